"""How well supervoxels follow the borders of structures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quality:
    """Supervoxels against a label map.

    :param boundary_recall: share of the label map's border voxels that have a supervoxel border within the tolerance.
    :param chance: the same share of all voxels of the body. Ragged supervoxels have borders everywhere, so recall
        means nothing by itself; what exceeds chance follows the structures.
    :param achievable_dice: mean over structures of the Dice that the best union of whole supervoxels reaches.
    :param count: supervoxels.
    """

    boundary_recall: float
    chance: float
    achievable_dice: float
    count: int


def borders(labels: np.ndarray) -> np.ndarray:
    """Return the voxels that have a 6-neighbour with another label: bool, like ``labels``."""
    result = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        moved, marked = np.moveaxis(labels, axis, 0), np.moveaxis(result, axis, 0)
        different = moved[1:] != moved[:-1]
        marked[1:] |= different
        marked[:-1] |= different
    return result


def measure_quality(
    supervoxels: np.ndarray, reference: np.ndarray, spacing: tuple[float, float, float], tolerance_mm: float
) -> Quality:
    """Compare supervoxels with a label map on the same grid.

    :param supervoxels: int [i, j, k], 0 outside the body.
    :param reference: label map [i, j, k], 0 is background.
    :param tolerance_mm: distance between voxel centres up to which a border counts as found.
    """
    from scipy.ndimage import distance_transform_edt

    found, wanted = borders(supervoxels), borders(reference)
    distance = distance_transform_edt(~found, sampling=spacing) if found.any() else np.full(found.shape, np.inf)
    body, near = supervoxels > 0, distance <= tolerance_mm + 1e-6
    return Quality(
        boundary_recall=float(near[wanted].mean()) if wanted.any() else float("nan"),
        chance=float(near[body].mean()) if body.any() else 0.0,
        achievable_dice=_achievable_dice(supervoxels, reference),
        count=len(np.unique(supervoxels[body])),
    )


def _achievable_dice(supervoxels: np.ndarray, reference: np.ndarray) -> float:
    values, structure = np.unique(reference, return_inverse=True)
    numbers, number = np.unique(supervoxels, return_inverse=True)
    table = np.bincount(number.ravel() * len(values) + structure.ravel(), minlength=len(numbers) * len(values))
    table = table.reshape(len(numbers), len(values))
    scores = [_best_dice(table[:, column], table.sum(axis=1)) for column in range(len(values)) if values[column]]
    return float(np.mean(scores)) if scores else float("nan")


def _best_dice(inside: np.ndarray, sizes: np.ndarray) -> float:
    """Return the largest Dice of a union: supervoxels join it in the order of how much of them is inside."""
    order = np.argsort(-inside / sizes, kind="stable")
    hits, volume = np.cumsum(inside[order]), np.cumsum(sizes[order])
    return float(np.max(2.0 * hits / (volume + inside.sum())))
