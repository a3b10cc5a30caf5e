# SPDX-License-Identifier: Apache-2.0
"""Boxes of voxels as half-open ranges along i, j, k, as the engine's protocol writes them."""

from __future__ import annotations

import numpy as np

Shape = tuple[int, int, int]
Ranges = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

NO_BOX: Ranges = ((0, 0), (0, 0), (0, 0))


def slices(box: Ranges, within: Ranges = NO_BOX) -> tuple[slice, slice, slice]:
    """Return a box as slices, counted from the first voxel of the box ``within``."""
    return tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(box, within, strict=True))


def shape_of(box: Ranges) -> Shape:
    """Return the number of voxels along each axis."""
    return tuple(stop - start for start, stop in box)


def union(*boxes: Ranges | None) -> Ranges | None:
    """Return the smallest box that holds all the boxes; None where there is none."""
    found = [box for box in boxes if box is not None]
    if not found:
        return None
    return tuple((min(start for start, _ in ends), max(stop for _, stop in ends)) for ends in zip(*found, strict=True))


def intersection(one: Ranges, other: Ranges) -> Ranges | None:
    """Return the box that two boxes have in common, or None."""
    common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return common if all(start < stop for start, stop in common) else None


def box_of(mask: np.ndarray, first: Shape = (0, 0, 0)) -> Ranges | None:
    """Return the smallest box that holds what a mask [i, j, k] holds; None for an empty one.

    :param first: index of the mask's first voxel.
    """
    ranges = []
    for axis in (2, 1, 0):  # i runs fastest in memory
        hits = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(hits):
            return None
        start, stop = int(hits[0]), int(hits[-1]) + 1
        mask = mask[(slice(None),) * axis + (slice(start, stop),)]
        ranges.append((start + first[axis], stop + first[axis]))
    return tuple(ranges[::-1])
