"""How far a click reaches in the variant ``near``: what lies farther away stays, whatever the network answers.

For models whose clicks have learned little. Their answer may miss most of an object, and then a negative click would
remove the object with the spill. Users click into the middle of an error, so the way from a click to the border of the
mask tells how thick the error is.
"""

from __future__ import annotations

import numpy as np

from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.inference.clicks.history import Shown
from VISTA3DCore.inference.clicks.resample_to_input import ParallelGrids
from VISTA3DCore.inference.preprocessing import Box

NEAR = "near"

# Chosen on two training CTs: a wider reach helps large errors and costs more where the answer is wrong.
_THICKNESSES = 1.5
_LEAST_MM = 1.0
_FIRST_VOXELS = 8


def reach_mm(shown: Shown, grids: ParallelGrids, click: Click) -> float:
    """Return how far a click reaches: one and a half times its distance to the border of the mask, and 1 mm.

    :param shown: the mask before the click; infinite where nothing of it is as the click says, e.g. where it is empty.
    """
    distance, half = np.inf, _FIRST_VOXELS
    voxel = np.rint(grids.to_target(np.array(click.position))).astype(int)
    shape, spacing = np.array(grids.target_shape), np.linalg.norm(grids.target_affine[:3, :3], axis=0)
    while not shown.is_empty:
        low, high = np.clip(voxel - half, 0, shape), np.clip(voxel + half + 1, 0, shape)
        box = tuple(map(slice, low.tolist(), high.tolist()))
        squares = _squared_distances(grids, click, box)[shown[box] == click.positive]
        distance = float(np.sqrt(squares.min(initial=np.inf)))
        if distance <= half * spacing.min() or (not low.any() and np.all(high == shape)):
            break
        half *= 2
    return _THICKNESSES * distance + _LEAST_MM


def within(reach: float, grids: ParallelGrids, click: Click, box: Box) -> np.ndarray:
    """Return which voxels of a box of the input grid lie within the reach (mm) of a click, bool [i, j, k]."""
    return _squared_distances(grids, click, box) <= reach**2


def _squared_distances(grids: ParallelGrids, click: Click, box: Box) -> np.ndarray:
    """Return the squared distance in mm of each voxel of a box from a click.

    Anatomical images have orthogonal axes; where they are sheared, distances are along the axes.
    """
    place = grids.to_target(np.array(click.position))
    spacing = np.linalg.norm(grids.target_affine[:3, :3], axis=0)
    lines = [
        ((np.arange(part.start, part.stop) - at) * size) ** 2
        for part, at, size in zip(box, place, spacing, strict=True)
    ]
    return sum(np.ix_(*lines))
