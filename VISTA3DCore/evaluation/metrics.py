"""How well a predicted mask agrees with a reference, on their common grid, through MONAI's metrics.

- **Dice**: 2 |A and B| / (|A| + |B|).
- **Surface Dice** (normalised surface distance, https://arxiv.org/abs/1809.04430): the share of both surfaces, in mm2,
  that lies at most a tolerance away from the other one.
- **HD95**: the 95th percentile of the distances from each surface to the other, the larger of both directions, in mm.
- **Volume error**: (predicted - reference) / reference.

Memory is that of the box around both masks, not of the volume: nothing outside of it counts in any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.settings import TOLERANCE_MM
from VISTA3DCore.imaging.components import bounding_box

_PERCENTILE = 95
# Voxels around both masks, so that their surfaces at the box's sides are closed as inside a volume.
_MARGIN = 2

BOTH, MISSED, INVENTED, ABSENT = "both", "missed", "invented", "absent"


@dataclass(frozen=True)
class Agreement:
    """How a prediction agrees with a reference.

    :param outcome: ``both`` have voxels; ``missed``: only the reference has; ``invented``: only the prediction has;
        ``absent``: neither has.
    :param dice: 0 where missed; None where there is no reference, because then it says nothing about the prediction.
    :param surface_dice: as ``dice``; None where surfaces were not measured, like ``hd95_mm``.
    :param hd95_mm: None unless both have voxels: there is no distance to nothing.
    :param volume_error: share of the reference's volume, -1 where missed; None where there is no reference.
    :param reference_ml: volume of the reference.
    :param predicted_ml: volume of the prediction.
    """

    outcome: str
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    volume_error: float | None
    reference_ml: float
    predicted_ml: float


def agreement(
    predicted: np.ndarray, reference: np.ndarray, spacing: np.ndarray, tolerance_mm: float | None = TOLERANCE_MM
) -> Agreement:
    """Compare two masks.

    :param predicted: bool [i, j, k].
    :param reference: bool [i, j, k] on the same grid.
    :param spacing: mm along i, j, k.
    :param tolerance_mm: of the surface Dice; None to measure no surfaces.
    :raises InputError: if the grids differ, or the tolerance is no length.
    """
    if predicted.shape != reference.shape:
        raise InputError(f"The grids differ: {predicted.shape} and {reference.shape} voxels.")
    if tolerance_mm is not None and not tolerance_mm >= 0:
        raise InputError(f"The tolerance is a length in mm, 0 or more, not {tolerance_mm}.")
    boxes = [box for mask in (predicted, reference) if (box := bounding_box(mask)) is not None]
    if len(boxes) < 2:
        return _one_sided(predicted, reference, spacing)
    masks = [_cropped(mask, boxes) for mask in (predicted, reference)]
    volumes = [np.count_nonzero(mask) * _voxel_ml(spacing) for mask in masks]
    first, second = (torch.from_numpy(mask)[None, None] for mask in masks)
    surface_dice, hd95 = (None, None) if tolerance_mm is None else _surfaces(first, second, spacing, tolerance_mm)
    return Agreement(
        BOTH,
        float(compute_dice(first, second, include_background=True)),
        surface_dice,
        hd95,
        volume_error=float(volumes[0] / volumes[1] - 1.0),
        reference_ml=float(volumes[1]),
        predicted_ml=float(volumes[0]),
    )


def _surfaces(
    predicted: torch.Tensor, reference: torch.Tensor, spacing: np.ndarray, tolerance_mm: float
) -> tuple[float, float]:
    """Return surface Dice and HD95 of masks [1, 1, i, j, k] that both have voxels."""
    steps = [float(step) for step in spacing]
    surface = compute_surface_dice(
        predicted, reference, [tolerance_mm], include_background=True, spacing=steps, use_subvoxels=True
    )
    distance = compute_hausdorff_distance(
        predicted, reference, include_background=True, percentile=_PERCENTILE, spacing=steps
    )
    return float(surface), float(distance)


def _one_sided(predicted: np.ndarray, reference: np.ndarray, spacing: np.ndarray) -> Agreement:
    """Compare masks of which one at least is empty."""
    ml = [float(np.count_nonzero(mask) * _voxel_ml(spacing)) for mask in (reference, predicted)]
    if ml[0]:
        return Agreement(MISSED, 0.0, 0.0, None, -1.0, *ml)
    return Agreement(INVENTED if ml[1] else ABSENT, None, None, None, None, *ml)


def _cropped(mask: np.ndarray, boxes: list[tuple[slice, slice, slice]]) -> np.ndarray:
    """Return a mask in the box around all boxes, with a margin of empty voxels."""
    around = tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )
    return np.pad(np.ascontiguousarray(mask[around]), _MARGIN)


def _voxel_ml(spacing: np.ndarray) -> float:
    return float(np.prod(spacing)) / 1000.0
