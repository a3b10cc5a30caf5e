"""What a session answers to clicks. Needs numpy alone, because clients of the engine process make these, too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from mmap import mmap

import numpy as np

from VISTA3DCore.anatomy.structure import Structure

Box = tuple[slice, slice, slice]
Shape = tuple[int, int, int]

EMPTY_BOX: Box = (slice(0, 0),) * 3


@dataclass(frozen=True, eq=False)
class ClickResult:
    """What clicks made of a mask.

    :param base: the mask from before the first click that is not settled, bool [i, j, k] of the input grid; None for an
        empty one.
    :param box: the smallest box of the input grid in which the result differs from the base; empty slices if nowhere.
    :param patch: the result in this box, bool.
    :param touched: for each click, whether it selected a component to add or remove; False for settled clicks, and
        for those that the mask before them served already.
    :param encoded: how many windows had to be encoded for this answer.
    :param structure: what was clicked (of a group, the member that was hit), or None for a new object.
    """

    base: np.ndarray | None
    shape: Shape
    box: Box
    patch: np.ndarray
    touched: tuple[bool, ...]
    encoded: int = 0
    structure: Structure | None = None

    @cached_property
    def mask(self) -> np.ndarray:
        """The whole result, bool [i, j, k] of the input grid; a new array."""
        mask = np.zeros(self.shape, dtype=bool) if self.base is None else self.base.copy(order="K")
        mask[self.box] = self.patch
        return mask

    @property
    def changed(self) -> bool:
        """Whether the result differs from the base."""
        return self.patch.size > 0


@dataclass(frozen=True)
class Suggestion:
    """A place to look at next.

    :param position: RAS mm, the centre of a voxel of the model grid.
    :param score: 0 (no doubt) to 1 (a large region of doubt); comparable within one answer.
    :param positive: what the network would say: True if it thinks that the place belongs to the object.
    """

    position: tuple[float, float, float]
    score: float
    positive: bool


def is_frozen(array: object, mapped: bool = False) -> bool:
    """Return whether no one can have changed an array: it is read-only, and so is whatever it is a view of.

    :param mapped: whether a file that is mapped read-only counts, which its owner could still write to.
    """
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or (mapped and isinstance(array, mmap))
