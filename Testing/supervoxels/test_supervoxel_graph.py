"""Graph supervoxels equal Felzenszwalb and Huttenlocher's algorithm, edge by edge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label as connected

from VISTA3DCore.supervoxels.graph import graph_supervoxels, segment_graph
from VISTA3DCore.supervoxels.grid import WorkingGrid


def _sequentially(count: int, first: np.ndarray, second: np.ndarray, weight: np.ndarray, scale: float) -> list[int]:
    """Algorithm 1 of the paper, as it stands there."""
    region, inside = list(range(count)), [0.0] * count
    for a, b, w in zip(first, second, weight, strict=True):
        one, other = region[a], region[b]
        limits = [inside[number] + scale / region.count(number) for number in (one, other)]
        if one != other and w <= min(limits):
            region = [one if number == other else number for number in region]
            inside[one] = float(w)
    return region


@st.composite
def _graphs(draw):
    count = draw(st.integers(2, 24))
    edges = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), min_size=1, max_size=80))
    edges = [edge for edge in edges if edge[0] != edge[1]]
    weights = sorted(draw(st.lists(st.integers(0, 12), min_size=len(edges), max_size=len(edges))))  # with ties
    first, second = (np.array([edge[n] for edge in edges], np.int32) for n in (0, 1))
    return count, first, second, np.array(weights, np.float32), draw(st.sampled_from([0.5, 3.0, 10.0, 40.0]))


@given(_graphs())
def test_rounds_give_what_the_sequential_algorithm_gives(graph):
    found = segment_graph(*graph)
    expected = _sequentially(*graph)
    pairs = {(one, other) for one, other in zip(found.tolist(), expected, strict=True)}

    assert len(pairs) == len(set(expected)) == len(set(found.tolist()))


def _grid(image: np.ndarray, body: np.ndarray | None = None) -> WorkingGrid:
    body = np.ones(image.shape, bool) if body is None else body
    return WorkingGrid(image.astype(np.float32), body, tuple(slice(0, n) for n in image.shape), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("segments", [2, 17, 100])
def test_the_count_is_exact_and_supervoxels_are_connected(segments):
    image = np.random.default_rng(0).normal(0, 50, (20, 18, 16))
    labels = graph_supervoxels(_grid(image), segments)

    assert len(np.unique(labels)) == segments
    assert connected(labels, connectivity=1, background=-1).max() == segments


def test_air_stays_out_and_materials_apart():
    image = np.zeros((16, 16, 16))
    image[8:] = 100
    body = np.ones(image.shape, bool)
    body[:, :4] = False
    labels = graph_supervoxels(_grid(image, body), 2, smoothing_mm=0.0)

    assert (labels[~body] == 0).all()
    assert {tuple(np.unique(labels[:8][body[:8]])), tuple(np.unique(labels[8:][body[8:]]))} == {(1,), (2,)}
