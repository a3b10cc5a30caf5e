"""What clicks made of a mask, one after the other, and the memory of it.

The result of clicks is a fold over their list: each click changes the mask that was shown before it. So a list that
begins like a former one resumes where they part, and an undo costs nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.components import bounding_box, memory_order
from VISTA3DCore.inference.clicks.results import EMPTY_BOX, is_frozen
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape

# What clicks changed, eight voxels in a byte: a few kilobytes for a correction, two megabytes for a liver.
_BYTES = 64 << 20
_MOST_CHANGES = 4096


@dataclass(frozen=True, eq=False)
class Shown:
    """The mask of the input grid that a user sees: a base, and what clicks made of a box of it.

    :param base: bool [i, j, k] of the input grid, or None for an empty one.
    :param patch: the mask in the box, bool.
    """

    base: np.ndarray | None
    shape: Shape
    box: Box = EMPTY_BOX
    patch: np.ndarray | None = None

    @property
    def order(self) -> tuple[int, ...]:
        """Axes of the mask, the slowest in memory first."""
        return (0, 1, 2) if self.base is None else memory_order(self.base)

    @property
    def is_empty(self) -> bool:
        """Whether it has no voxel; a base counts as one, because no base is empty."""
        return self.base is None and (self.patch is None or not self.patch.any())

    def __getitem__(self, box: Box) -> np.ndarray:
        """Return the mask in a box of the input grid, bool; to be read only."""
        common = _common(box, self.box)
        if self.base is not None and common is None:
            return self.base[box]
        part = self._base_in(box)
        if common is not None:
            part[_within(common, box)] = self.patch[_within(common, self.box)]
        return part

    def holds(self, voxel: Sequence[int]) -> bool:
        """Return whether a voxel [3] of the input grid belongs to the mask."""
        return bool(self[tuple(slice(index, index + 1) for index in voxel)])

    def changed_by(self, changes: Sequence[Change]) -> Shown:
        """Return the mask after some more changes."""
        boxes = [one.box for one in changes if one.count]
        if not boxes:
            return self
        box = _union(boxes if self.patch is None else [*boxes, self.box])
        patch = self[box].copy(order="K")
        for change in changes:
            if change.count:
                patch[_within(change.box, box)] ^= change.flipped()
        return Shown(self.base, self.shape, box, patch)

    def difference(self) -> tuple[Box, np.ndarray]:
        """Return the smallest box in which the mask differs from the base, and the mask in it."""
        nothing = EMPTY_BOX, np.zeros((0, 0, 0), dtype=bool)
        if self.patch is None:
            return nothing
        inner = bounding_box(self.patch ^ self._base_in(self.box))
        if inner is None:
            return nothing
        return moved(inner, [part.start for part in self.box]), self.patch[inner].copy(order="K")

    def _base_in(self, box: Box) -> np.ndarray:
        if self.base is None:
            return np.zeros([part.stop - part.start for part in box], dtype=bool)
        return self.base[box].copy(order="K")


@dataclass(frozen=True, eq=False)
class Change:
    """The voxels whose value a click flipped, in their smallest box, eight in a byte.

    :param touched: for each click of the step, whether it selected a component.
    :param order: axes of the box, the slowest in memory first.
    """

    touched: tuple[bool, ...]
    box: Box = EMPTY_BOX
    bits: np.ndarray | None = None
    order: tuple[int, ...] = (0, 1, 2)

    @classmethod
    def of(cls, flipped: np.ndarray, start: Sequence[int], touched: tuple[bool, ...]) -> Change:
        """Pack a bool array [i, j, k] whose first voxel is ``start`` on the input grid."""
        inner = bounding_box(flipped)
        if inner is None:
            return cls(touched)
        order = memory_order(flipped)
        return cls(touched, moved(inner, start), np.packbits(flipped[inner].transpose(order)), order)

    @property
    def count(self) -> int:
        """Number of voxels of the box."""
        return math.prod(part.stop - part.start for part in self.box)

    @property
    def nbytes(self) -> int:
        return 0 if self.bits is None else self.bits.nbytes

    def flipped(self) -> np.ndarray:
        """Return the voxels as a bool array of the box's shape."""
        shape = [self.box[axis].stop - self.box[axis].start for axis in self.order]
        flipped = np.unpackbits(self.bits, count=self.count).view(bool).reshape(shape)
        return flipped.transpose(np.argsort(self.order))


class ClickHistory:
    """The changes that clicks made, by the list up to them; the least recently used are dropped.

    :param budget: bytes of packed changes.
    """

    def __init__(self, budget: int = _BYTES) -> None:
        self._budget, self._bytes = budget, 0
        self._changes: OrderedDict[bytes, Change] = OrderedDict()
        self._latest: tuple[bytes, Box, np.ndarray | None] | None = None
        self._base: tuple[np.ndarray, bytes] | None = None

    def clear(self) -> None:
        """Forget everything."""
        self._changes.clear()
        self._bytes, self._latest, self._base = 0, None, None

    @property
    def nbytes(self) -> int:
        """Bytes of the packed changes that are kept."""
        return self._bytes

    def keys(self, base: np.ndarray | None, options: Hashable, steps: Sequence[Sequence[Click]]) -> list[bytes]:
        """Return what the changes of the steps are kept by: each key tells base, options and all clicks up to there.

        :param steps: the first entry holds clicks that change nothing; the key of the base comes first.
        """
        first = hashlib.blake2b(repr(options).encode() + self._fingerprint(base), digest_size=16).digest()
        return list(itertools.accumulate(steps, _next_key, initial=first))[1:]

    def recall(self, shown: Shown, keys: Sequence[bytes]) -> tuple[list[Change], Shown]:
        """Return the changes that are kept of the first steps, and the mask after them.

        :param shown: the mask before the first step.
        :param keys: of the base and of each step.
        """
        known = list(itertools.takewhile(lambda key: key in self._changes, keys[1:]))
        for key in known:
            self._changes.move_to_end(key)
        changes = [self._changes[key] for key in known]
        if known and self._latest is not None and self._latest[0] == known[-1]:
            return changes, Shown(shown.base, shown.shape, *self._latest[1:])
        return changes, shown.changed_by(changes)

    def keep(self, key: bytes, change: Change, shown: Shown) -> None:
        """Keep the change of a step, and the mask after it, for the next step."""
        self._bytes += change.nbytes - (self._changes.pop(key).nbytes if key in self._changes else 0)
        self._changes[key] = change
        self._latest = key, shown.box, shown.patch
        while self._bytes > self._budget or len(self._changes) > _MOST_CHANGES:
            self._bytes -= self._changes.popitem(last=False)[1].nbytes

    def _fingerprint(self, base: np.ndarray | None) -> bytes:
        """Return a digest of a base's voxels; that of the last one is kept while nobody can have changed it."""
        if base is None:
            return b""
        if self._base is None or self._base[0] is not base:
            digest = _digest(base)
            self._base = (base, digest) if is_frozen(base, mapped=True) else None
            return digest
        return self._base[1]


def _digest(mask: np.ndarray) -> bytes:
    box = bounding_box(mask)
    if box is None:
        return b"empty"
    order = memory_order(mask)
    packed = np.packbits(mask[box].transpose(order))
    return repr((box, order)).encode() + hashlib.blake2b(packed, digest_size=16).digest()


def _next_key(key: bytes, clicks: Sequence[Click]) -> bytes:
    described = b"".join(struct.pack("<3d?", *click.position, click.positive) for click in clicks)
    return hashlib.blake2b(described, digest_size=16, key=key).digest()


def moved(box: Box, by: Sequence[int]) -> Box:
    """Return a box moved by so many voxels along each axis."""
    return tuple(slice(part.start + step, part.stop + step) for part, step in zip(box, by, strict=True))


def _within(box: Box, outer: Box) -> Box:
    """Return a box in the indices of another one that holds it."""
    return moved(box, [-part.start for part in outer])


def _common(one: Box, other: Box) -> Box | None:
    parts = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)]
    return tuple(slice(*part) for part in parts) if all(start < stop for start, stop in parts) else None


def _union(boxes: Sequence[Box]) -> Box:
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
    )
