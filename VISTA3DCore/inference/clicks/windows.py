"""Which windows answer clicks. Positions are voxel indices of the model grid; a window may reach beyond it, into air.

``centred`` equals the reference (``point_based_window_inferer`` in MONAI): one window around each click, pushed back
into the volume. ``reuse`` goes through the clicks in their order: one that lies deep enough in a window chosen for an
earlier click is answered there; otherwise the window of a fixed lattice, half a window apart, is added whose centre is
nearest to the click. So most further clicks on an object need no window of their own, and the windows depend on the
list of clicks alone, never on what was asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from VISTA3DCore.errors import InputError
from VISTA3DCore.inference.windows import Shape, axis_starts

_LATTICE_OVERLAP = 0.5
# A click this part of a window's side deep (24 mm with the released model) has surroundings on every side.
_DEPTH = 8

Policy = Callable[[Sequence[np.ndarray], Shape, Shape], list[Shape]]
"""From the clicks' places, the model grid's shape and the window's sides to the windows' first voxels."""


def centred_window(place: np.ndarray, shape: Shape, window: Shape) -> Shape:
    """Return the first voxel of the window around a click.

    :param place: fractional voxel index [3] of the click.
    :param shape: of the model grid.
    :param window: sides.
    """
    return tuple(_centred(*axis) for axis in zip(place.tolist(), shape, window, strict=True))


def lattice_window(place: np.ndarray, shape: Shape, window: Shape) -> Shape:
    """Return the first voxel of the lattice window whose centre is nearest to a click."""
    return tuple(_on_lattice(*axis) for axis in zip(place.tolist(), shape, window, strict=True))


def neighbour_window(start: Shape, axis: int, direction: int, shape: Shape, window: Shape) -> Shape | None:
    """Return the window half a window further along an axis, at most to the volume's end; None if there is none.

    :param direction: -1 or 1.
    """
    limit = shape[axis] - window[axis]
    moved = min(max(start[axis] + direction * (window[axis] // 2), 0), limit)
    if limit <= 0 or (moved - start[axis]) * direction <= 0:
        return None
    return (*start[:axis], moved, *start[axis + 1 :])


def holds(start: Shape, window: Shape, place: np.ndarray) -> bool:
    """Return whether a click's nearest voxel lies in a window."""
    voxel = nearest_voxel(place)
    return all(first <= index < first + side for first, side, index in zip(start, window, voxel, strict=True))


def nearest_voxel(place: np.ndarray) -> tuple[int, int, int]:
    """Return the voxel that a fractional index lies in."""
    return tuple(int(np.floor(value + 0.5)) for value in place)


def window_image(image: np.ndarray, start: Shape, window: Shape) -> torch.Tensor:
    """Return a window [1, 1, w, w, w] of the image [i, j, k]; beyond its border lies air (0), as in the reference."""
    inside = [
        slice(max(first, 0), max(min(first + side, size), 0))
        for first, side, size in zip(start, window, image.shape, strict=True)
    ]
    place = tuple(
        slice(part.start - first, max(part.stop - first, part.start - first))
        for part, first in zip(inside, start, strict=True)
    )
    result = torch.zeros(1, 1, *window)
    cut = image[tuple(inside)]
    if cut.size:
        result[0, 0][place] = torch.from_numpy(np.ascontiguousarray(cut))
    return result


def _centred(place: float, size: int, side: int) -> int:
    half, padding = side // 2, max(side - size, 0)
    before = padding // 2
    # The reference works on the padded volume; its positions are shifted by the padding in front.
    place, size = place + before, size + padding
    if _outside(place, size):
        return _reaching(place, side) - before
    if place - half < 0:
        return -before
    if place + half > size:
        return size - side - before
    return int(place) - half - before


def _on_lattice(place: float, size: int, side: int) -> int:
    before, padded = max(side - size, 0) // 2, max(size, side)
    if _outside(place + before, padded):
        return _reaching(place, side)
    starts = axis_starts(padded, side, _LATTICE_OVERLAP)
    return min(starts, key=lambda start: (abs(start + (side - 1) / 2 - place - before), start)) - before


def _reaching(place: float, side: int) -> int:
    """Place a window for a click beyond the foreground: as much of the image as possible, some air behind the click."""
    voxel, depth = int(np.floor(place + 0.5)), side // 8
    return voxel - depth if place < 0 else voxel + depth - side + 1


def _outside(place: float, size: int) -> bool:
    return not -0.5 <= place < size - 0.5


def centred_windows(places: Sequence[np.ndarray], shape: Shape, window: Shape) -> list[Shape]:
    """Return a window around each click, each window once."""
    return sorted({centred_window(place, shape, window) for place in places})


def shared_windows(places: Sequence[np.ndarray], shape: Shape, window: Shape) -> list[Shape]:
    """Return as few lattice windows as hold every click deep enough, earlier clicks deciding."""
    chosen: list[Shape] = []
    for place in places:
        if not any(_holds_deep(start, window, place, shape) for start in chosen):
            chosen.append(lattice_window(place, shape, window))
    return chosen


def _holds_deep(start: Shape, window: Shape, place: np.ndarray, shape: Shape) -> bool:
    """Return whether a click is an eighth of the window away from each side behind which the volume goes on."""
    for first, side, index, size in zip(start, window, nearest_voxel(place), shape, strict=True):
        low = first + side // _DEPTH if first > 0 else first
        high = first + side - side // _DEPTH if first + side < size else first + side
        if not low <= index < high:
            return False
    return True


POLICIES: dict[str, Policy] = {"reuse": shared_windows, "centred": centred_windows}


def find_policy(name: str) -> Policy:
    """Return a policy by name.

    :raises InputError: if there is no such policy.
    """
    if name not in POLICIES:
        raise InputError(f"There is no window policy '{name}'; use one of: {', '.join(POLICIES)}.")
    return POLICIES[name]
