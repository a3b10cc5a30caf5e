# SPDX-License-Identifier: Apache-2.0
"""The masks from before the first click, which the engine needs to answer every further one."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..mrml.boxes import NO_BOX, Ranges, Shape, box_of, intersection, shape_of, slices
from ..mrml.neighbors import Exchange

if TYPE_CHECKING:
    from VISTA3DCore.engine.arrays import SharedDirectory
    from VISTA3DCore.engine.protocol import ArrayRef

# Slicer keeps 10 undo states; the rest is for other segments. The oldest go first.
_KEPT = 64
_SAME_PLACE = 1e-5


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxels of a volume as a segmentation node sees them.

    :param shape: of the volume.
    :param placing: 4x4, voxel index -> coordinates of the segmentation node, mm.
    """

    shape: Shape
    placing: np.ndarray

    def matches(self, other: Grid) -> bool:
        """Whether voxels of both lie at the same places, within rounding."""
        return self.shape == other.shape and np.allclose(self.placing, other.placing, atol=_SAME_PLACE)


class Bases:
    """Keeps masks for as long as clicks may need them, packed, by their fingerprints.

    One at a time, the one that clicks are being asked about, is also a file for the engine.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, _Base] = OrderedDict()
        self._exchanges: OrderedDict[str, Exchange] = OrderedDict()
        self._file: tuple[str, ArrayRef, SharedDirectory] | None = None
        self._unpacked: tuple[str, np.ndarray] | None = None

    def keep(self, name: str, mask: np.ndarray, grid: Grid) -> None:
        """Keep a mask, bool [i, j, k] on the grid, under the name of its fingerprint."""
        if not self.holds(name, grid):
            self._drop(name)
            self._kept[name] = _Base.of(mask, grid)
        self._kept.move_to_end(name)
        while len(self._kept) > _KEPT:
            self._drop(next(iter(self._kept)))
            self._kept.popitem(last=False)

    def holds(self, name: str, grid: Grid) -> bool:
        """Whether a mask is kept, and belongs to the grid."""
        return name in self._kept and self._kept[name].grid.matches(grid)

    def knows(self, name: str) -> bool:
        """Whether a mask is kept, on whatever grid."""
        return name in self._kept

    def keep_exchange(self, name: str, exchange: Exchange) -> None:
        """Keep what clicks moved between segments, under its name."""
        if name:
            self._exchanges[name] = exchange
            self._exchanges.move_to_end(name)
            while len(self._exchanges) > _KEPT:
                self._exchanges.popitem(last=False)

    def exchange(self, name: str) -> Exchange | None:
        """Return what clicks moved between segments; None if it is not kept."""
        return self._exchanges.get(name) if name else Exchange()

    def patch(self, name: str, box: Ranges) -> np.ndarray:
        """Return the part of a kept mask that lies in a box, bool [i, j, k]; a new array."""
        self._kept.move_to_end(name)
        base, patch = self._kept[name], np.zeros(shape_of(box), dtype=bool, order="F")
        common = intersection(box, base.box)
        if common is not None:
            patch[slices(common, box)] = self._inner(name)[slices(common, base.box)]
        return patch

    def whole(self, name: str) -> np.ndarray:
        """Return a kept mask, bool [i, j, k] with i running fastest; a new array."""
        base = self._kept[name]
        mask = np.zeros(base.grid.shape, dtype=bool, order="F")
        mask[slices(base.box)] = self._inner(name)
        return mask

    def file_of(self, name: str, shared: SharedDirectory) -> ArrayRef | None:
        """Return the file of a kept mask in the engine's folder, None if there is none."""
        return self._file[1] if self._file is not None and self._file[::2] == (name, shared) else None

    def keep_file(self, name: str, ref: ArrayRef, shared: SharedDirectory) -> None:
        """Take charge of the file of a kept mask; that of another one is deleted."""
        self.release()
        self._file = name, ref, shared

    def release(self) -> None:
        """Delete the file for the engine; the masks stay."""
        kept, self._file = self._file, None
        if kept is not None:
            kept[2].delete(kept[1].file)

    def clear(self) -> None:
        """Forget all masks, e.g. because the scene was closed."""
        self.release()
        self._kept.clear()
        self._exchanges.clear()
        self._unpacked = None

    def _inner(self, name: str) -> np.ndarray:
        """Return what a base holds in its box; that of the last one asked for is kept unpacked."""
        if self._unpacked is None or self._unpacked[0] != name:
            self._unpacked = name, self._kept[name].inner()
        return self._unpacked[1]

    def _drop(self, name: str) -> None:
        if self._file is not None and self._file[0] == name:
            self.release()
        if self._unpacked is not None and self._unpacked[0] == name:
            self._unpacked = None


@dataclass(frozen=True, eq=False)
class _Base:
    """What a mask holds in its smallest box, eight voxels in a byte."""

    grid: Grid
    box: Ranges
    bits: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, grid: Grid) -> _Base:
        box = box_of(mask) or NO_BOX
        return cls(grid, box, np.packbits(mask[slices(box)].T))

    def inner(self) -> np.ndarray:
        shape = shape_of(self.box)
        return np.unpackbits(self.bits, count=math.prod(shape)).view(bool).reshape(shape[::-1]).T
