"""Graph-based supervoxels: Felzenszwalb and Huttenlocher's segmentation (IJCV 59, 2004), on voxels instead of pixels.

Edges between neighbouring voxels are weighted with the difference of their HU. In the order of their weights, an edge
joins two regions unless it is heavier than what either of them holds inside plus scale / size. (SegVol made the
pseudo-labels of its training in this way.)

The order makes it a sequential algorithm. Here most of it runs in rounds of array operations with the same result: an
edge that is the lightest one of *both* its regions is decided now as it would be decided in its turn, because nothing
before its turn can change these regions; and a region that is too weakly connected by its lightest edge is final.
"""

from __future__ import annotations

import heapq

import numpy as np

from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.grid import WorkingGrid

SCALE = 30.0
"""HU times voxels. The paper's 150 to 500 are for colours from 0 to 255; this is smaller, because here the smallest
regions are joined until the count is reached. Documentation/supervoxels.md has the measurements."""
_SMALL_SHARE = 0.04
"""When a round removes fewer than this share of the edges, going through the rest one by one is faster."""


def graph_supervoxels(
    grid: WorkingGrid, segments: int, scale: float = SCALE, smoothing_mm: float = 1.5, progress: Progress | None = None
) -> np.ndarray:
    """Return exactly ``segments`` supervoxels (fewer where there are fewer voxels): int32 [a, b, c], 0 in the air.

    :param scale: larger values give larger regions before the smallest ones are joined to reach the count.
    :param smoothing_mm: Gaussian smoothing before edges are weighted (the paper: 0.8 pixels).
    """
    from scipy.ndimage import gaussian_filter

    progress = Progress.of(progress)
    progress.update(0.0, "Joining voxels")
    image = gaussian_filter(np.clip(grid.image, -1100, 1500), [smoothing_mm / mm for mm in grid.spacing])
    edges = _edges(image, grid.body)
    count = int(grid.body.sum())
    regions = segment_graph(count, *edges, scale, progress.part(0.05, 0.8))
    while regions.max() + 1 < min(segments, count):  # too few: the image is too even for this scale
        scale = scale / 4 if scale > 1e-3 else -1.0
        regions = segment_graph(count, *edges, scale, progress.part(0.8, 0.9))
    regions = _reduced(regions, *edges, segments)
    labels = np.zeros(image.shape, np.int32)
    labels[grid.body] = regions + 1
    return labels


def _edges(image: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first and second node and weight of the edges between 6-neighbours, the lightest first."""
    nodes = np.cumsum(body, dtype=np.int32).reshape(body.shape) - 1
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    for axis in range(3):
        low, high = (np.moveaxis(body, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        both = low & high
        for found, part in ((first, slice(None, -1)), (second, slice(1, None))):
            found.append(np.moveaxis(nodes, axis, 0)[part][both])
        difference = np.abs(np.diff(np.moveaxis(image, axis, 0), axis=0))
        weights.append(difference[both])
    weight = np.concatenate(weights)
    order = np.argsort(weight, kind="stable")
    return np.concatenate(first)[order], np.concatenate(second)[order], weight[order]


def segment_graph(
    count: int,
    first: np.ndarray,
    second: np.ndarray,
    weight: np.ndarray,
    scale: float,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the region of each node, numbered from 0 on, as Felzenszwalb and Huttenlocher's Algorithm 1 gives it.

    :param count: nodes.
    :param first: and ``second``, nodes that edges connect, in ascending order of ``weight``.
    """
    progress = Progress.of(progress)
    region = np.arange(count, dtype=np.int32)  # of each node
    size, inside = np.ones(count, np.int64), np.zeros(count, np.float64)
    edges = (first, second, weight.astype(np.float64))
    while len(edges[0]):
        progress.update(1.0 - len(edges[0]) / len(first), "Joining voxels")
        limit = inside + scale / size
        joined, final = _decided(*edges, limit)
        a, b, w = (column[joined] for column in edges)
        size[a] += size[b]
        inside[a] = w
        number = np.arange(len(size), dtype=np.int32)
        number[b] = a
        region = number[region]
        before, edges = len(edges[0]), _remaining(edges, number, final)
        if before - len(edges[0]) < _SMALL_SHARE * before:
            break
    return _numbered(_one_by_one(region, size, inside, edges, scale))


def _decided(
    first: np.ndarray, second: np.ndarray, weight: np.ndarray, limit: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges that join their regions now, and which regions are final."""
    rank = np.arange(len(first), dtype=np.int64)
    lightest = np.full(len(limit), len(first), np.int64)
    for nodes in (first, second):  # of equal indices the last assignment stays: the lightest edge, in reverse order
        own = np.full(len(limit), len(first), np.int64)
        own[nodes[::-1]] = rank[::-1]
        np.minimum(lightest, own, out=lightest)
    heaviest = np.append(weight, -np.inf)[lightest]
    final = heaviest > limit
    mutual = (lightest[first] == rank) & (lightest[second] == rank)
    return np.flatnonzero(mutual & ~final[first] & ~final[second]), final


def _remaining(
    edges: tuple[np.ndarray, ...], number: np.ndarray, final: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    open_ = ~final[edges[0]] & ~final[edges[1]]
    first, second, weight = (column[open_] for column in edges)
    first, second = number[first], number[second]
    between = first != second
    return first[between], second[between], weight[between]


def _one_by_one(
    region: np.ndarray, size: np.ndarray, inside: np.ndarray, edges: tuple[np.ndarray, ...], scale: float
) -> np.ndarray:
    """Decide the edges that are left in their order, and return the region of each node."""
    live, compact = np.unique(np.concatenate(edges[:2]), return_inverse=True)
    parent = list(range(len(live)))
    sizes, limits = size[live].tolist(), (inside[live] + scale / size[live]).tolist()
    half = len(edges[0])
    for one, other, w in zip(compact[:half].tolist(), compact[half:].tolist(), edges[2].tolist(), strict=True):
        a, b = one, other
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b and w <= limits[a] and w <= limits[b]:
            parent[b] = a
            sizes[a] += sizes[b]
            limits[a] = w + scale / sizes[a]
    roots = np.array(parent, np.int64)
    while (roots[roots] != roots).any():
        roots = roots[roots]
    number = np.arange(len(size))
    number[live] = live[roots]
    return number[region]


def _numbered(regions: np.ndarray) -> np.ndarray:
    return np.unique(regions, return_inverse=True)[1].astype(np.int32)


def _reduced(
    regions: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray, segments: int
) -> np.ndarray:
    """Join the smallest region with the neighbour that its lightest edge leads to, until ``segments`` are left.

    The paper joins regions below a least size in the same manner; here the count decides instead of the size. Regions
    without neighbours stay.
    """
    neighbours = _neighbours(regions, first, second, weight)
    sizes = np.bincount(regions).tolist()
    parent, left = list(range(len(sizes))), len(sizes)
    queue = [(size, number) for number, size in enumerate(sizes)]
    heapq.heapify(queue)
    while left > segments and queue:
        size, small = heapq.heappop(queue)
        if parent[small] != small or size != sizes[small] or not neighbours[small]:
            continue
        into = min(neighbours[small], key=neighbours[small].__getitem__)
        _join(neighbours, small, into)
        parent[small], left = into, left - 1
        sizes[into] += size
        heapq.heappush(queue, (sizes[into], into))
    roots = np.array(parent)
    while (roots[roots] != roots).any():
        roots = roots[roots]
    return _numbered(roots[regions])


def _neighbours(
    regions: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray
) -> list[dict[int, float]]:
    """Return for each region its neighbours and the weight of the lightest edge to each."""
    a, b = regions[first].astype(np.int64), regions[second].astype(np.int64)
    between = a != b
    low, high = np.minimum(a, b)[between], np.maximum(a, b)[between]
    pairs = low * (int(regions.max()) + 1) + high
    lightest = np.unique(pairs, return_index=True)[1]  # the first one of a pair
    found: list[dict[int, float]] = [{} for _ in range(int(regions.max()) + 1)]
    weights = weight[between][lightest].tolist()
    for one, other, w in zip(low[lightest].tolist(), high[lightest].tolist(), weights, strict=True):
        found[one][other] = found[other][one] = w
    return found


def _join(neighbours: list[dict[int, float]], small: int, into: int) -> None:
    for other, weight in neighbours[small].items():
        del neighbours[other][small]
        if other != into:
            lighter = min(weight, neighbours[into].get(other, np.inf))
            neighbours[into][other] = neighbours[other][into] = lighter
    neighbours[small] = {}
