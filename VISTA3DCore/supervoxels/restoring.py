"""Supervoxels of the working grid on the volume's own grid, along the edges of the image."""

from __future__ import annotations

from itertools import product

import numpy as np

from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.grid import WorkingGrid

SIMILAR_HU = 40.0
"""A neighbour that differs by this much has its vote weakened to 37 %: about the noise of a thin slice."""
_SLAB = 8


def restore(labels: np.ndarray, grid: WorkingGrid, volume: Volume, progress: Progress | None = None) -> np.ndarray:
    """Return labels on the volume's grid: int32 [i, j, k].

    Each voxel takes the label that most of the (at most 8) coarse voxels around it vote for; a vote weighs as in linear
    interpolation, times exp(-|difference of HU| / 40), so that a border between two supervoxels goes where the image
    has its edge. Works slab by slab.

    :param labels: int32 on the working grid.
    """
    result = np.zeros(volume.shape, np.int32)
    inner = result[grid.box]
    if inner.shape == labels.shape:
        inner[...] = labels
        return result
    progress = Progress.of(progress)
    axes = [_neighbours(size, coarse) for size, coarse in zip(inner.shape, labels.shape, strict=True)]
    image = volume.array[grid.box]
    for start in range(0, inner.shape[0], _SLAB):
        part = slice(start, start + _SLAB)
        slab = [[(index[part], weight[part]) for index, weight in axes[0]], *axes[1:]]
        inner[part] = _voted(labels, grid.image, image[part].astype(np.float32), slab)
        progress.update(start / inner.shape[0], "Restoring the grid")
    return result


def _neighbours(size: int, coarse: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return, for the coarse voxel before and the one after each fine one, its index and weight."""
    place = ((np.arange(size) + 0.5) * (coarse / size) - 0.5).clip(0, coarse - 1)
    before = np.minimum(place.astype(np.int64), coarse - 1)
    weight = (place - before).astype(np.float32)
    return [(before, 1.0 - weight), (np.minimum(before + 1, coarse - 1), weight)]


def _voted(
    labels: np.ndarray, coarse: np.ndarray, image: np.ndarray, axes: list[list[tuple[np.ndarray, np.ndarray]]]
) -> np.ndarray:
    """Return the labels of a slab: where all neighbours agree theirs, elsewhere the one with the most votes."""
    corners = list(product(*axes))
    candidates = np.stack([labels[np.ix_(*(index for index, _ in sides))] for sides in corners])
    result = candidates[0].copy()
    disputed = (candidates != candidates[:1]).any(axis=0)
    places, candidates = np.nonzero(disputed), candidates[:, disputed]
    votes = np.stack([_votes(coarse, image[disputed], sides, places) for sides in corners])
    totals = np.stack([np.where(candidates == one, votes, 0.0).sum(axis=0) for one in candidates])
    result[disputed] = np.take_along_axis(candidates, totals.argmax(axis=0)[None], axis=0)[0]
    return result


def _votes(
    coarse: np.ndarray,
    image: np.ndarray,
    sides: tuple[tuple[np.ndarray, np.ndarray], ...],
    places: tuple[np.ndarray, ...],
) -> np.ndarray:
    """Return how much one of the neighbours counts for each disputed voxel."""
    where = tuple(index[place] for (index, _), place in zip(sides, places, strict=True))
    weight = np.prod([weight[place] for (_, weight), place in zip(sides, places, strict=True)], axis=0)
    return weight * (np.exp(np.abs(image - coarse[where]) * (-1.0 / SIMILAR_HU)) + 1e-6)
