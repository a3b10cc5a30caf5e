"""How well supervoxels follow the borders of structures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Quality:
    """Supervoxels against a label map.

    :param boundary_recall: share of the label map's border voxels that have a supervoxel border within the tolerance.
    :param border_share: share of the body's voxels that are supervoxel borders: ragged supervoxels buy recall with it.
    :param achievable_dice: mean over structures of the Dice that the best union of whole supervoxels reaches, each
        supervoxel counted for a structure where more than half of it belongs to it.
    :param count: supervoxels.
    """

    boundary_recall: float
    border_share: float
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
    body = supervoxels > 0
    return Quality(
        boundary_recall=float((distance[wanted] <= tolerance_mm + 1e-6).mean()) if wanted.any() else float("nan"),
        border_share=float(found[body].mean()) if body.any() else 0.0,
        achievable_dice=_achievable_dice(supervoxels, reference),
        count=len(np.unique(supervoxels[body])),
    )


def _achievable_dice(supervoxels: np.ndarray, reference: np.ndarray) -> float:
    values, structure = np.unique(reference, return_inverse=True)
    numbers, number = np.unique(supervoxels, return_inverse=True)
    table = np.bincount(number.ravel() * len(values) + structure.ravel(), minlength=len(numbers) * len(values))
    table = table.reshape(len(numbers), len(values))
    sizes = table.sum(axis=1)
    scores = []
    for column in range(len(values)):
        if values[column]:
            inside = table[:, column]
            mostly = 2 * inside > sizes
            scores.append(2.0 * inside[mostly].sum() / (sizes[mostly].sum() + inside.sum()))
    return float(np.mean(scores)) if scores else float("nan")
