"""Limiting the work to a box in the patient."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import Region, to_region
from VISTA3DCore.inference.preprocessing import Box, ModelGrid

__all__ = ["context_box", "cut_to_region", "grown", "to_region"]

# Context around a region: at least this share of a window on every side (24 mm with the released model).
_CONTEXT = 1 / 8


def context_box(
    region: Region | None,
    grid: ModelGrid,
    target_affine: np.ndarray,
    target_shape: tuple[int, int, int],
    window: tuple[int, int, int],
) -> Box | None:
    """Return the voxels of the model grid to compute: the region with context, or everything without a region.

    The box is at least one window long on each axis where the grid is, so that the network sees real surroundings
    instead of padding.

    :return: None where the region lies in the air around the foreground, so that there is nothing to compute.
    :raises InputError: if the region lies outside the volume.
    """
    shape = grid.shape
    if region is None:
        return tuple(slice(0, size) for size in shape)
    region.voxel_box(target_affine, target_shape)
    try:
        box = region.voxel_box(grid.affine, shape)
    except InputError:
        return None
    sides = zip(box, shape, window, strict=True)
    return tuple(grown(part, size, side, int(side * _CONTEXT)) for part, size, side in sides)


def grown(part: slice, size: int, side: int, margin: int) -> slice:
    """Return a range of voxels with a margin, at least ``side`` voxels long where the axis of ``size`` voxels is."""
    start, stop = part.start - margin, part.stop + margin
    missing = max(min(side, size) - (stop - start), 0)
    start, stop = start - missing // 2, stop + missing - missing // 2
    shift = max(-start, 0) - max(stop - size, 0) if stop - start <= size else 0
    return slice(max(start + shift, 0), min(stop + shift, size))


def cut_to_region(region: Region, affine: np.ndarray, arrays: Iterable[np.ndarray]) -> None:
    """Set every voxel outside the region to zero, in place."""
    for array in arrays:
        box = region.voxel_box(affine, array.shape)
        inside = array[box].copy()
        array[...] = 0
        array[box] = inside
