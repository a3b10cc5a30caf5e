"""Coarser images by averaging, in bounded memory."""

from __future__ import annotations

import numpy as np

from VISTA3DCore.imaging.geometry import Box


def averaged(array: np.ndarray, box: Box, shape: tuple[int, ...]) -> np.ndarray:
    """Return the box of an array as means over coarser voxels, float32; reads the array slab by slab.

    :param shape: not larger than the box along any axis. Voxels that straddle two coarse ones count for the one that
        holds their centre.
    """
    array = array[box]
    if array.shape == tuple(shape):
        return np.ascontiguousarray(array, dtype=np.float32)
    first, second, third = (coarse_edges(size, coarse) for size, coarse in zip(array.shape, shape, strict=True))
    result = np.empty(shape, np.float32)
    for plane in range(shape[0]):
        slab = array[first[plane] : first[plane + 1]].mean(axis=0, dtype=np.float32)
        rows = np.add.reduceat(slab, second[:-1], axis=0) / np.diff(second)[:, None]
        result[plane] = np.add.reduceat(rows, third[:-1], axis=1) / np.diff(third)
    return result


def coarse_edges(size: int, coarse: int) -> np.ndarray:
    """Return where each of ``coarse`` voxels begins on an axis of ``size`` fine ones, and the end of the last one."""
    return np.ceil(np.arange(coarse + 1) * (size / coarse) - 0.5).clip(0, size).astype(int)
