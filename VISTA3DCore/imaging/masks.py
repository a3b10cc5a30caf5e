"""Masks that may overlap, a bit for each voxel: an eighth of what bool arrays take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np


class BitMasks(Mapping[int, np.ndarray]):
    """Masks of one shape by catalogue index; a mapping whose values, bool [i, j, k], are copies made when asked for.

    Eight masks share an array of bytes in Fortran order, of which memory is taken only where something was written.

    :param indices: of the structures, in order; the masks are empty at first.
    :param shape: [i, j, k].
    """

    def __init__(self, indices: Sequence[int], shape: Sequence[int]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self._place = {int(index): divmod(number, 8) for number, index in enumerate(indices)}
        #: The bytes, uint8 [i, j, k] each: bit n of array m is mask 8 m + n. Changing them changes the masks.
        self.bytes = [np.zeros(self.shape, dtype=np.uint8, order="F") for _ in range(-(-len(self._place) // 8))]

    @classmethod
    def of(cls, masks: Mapping[int, np.ndarray], shape: Sequence[int]) -> BitMasks:
        """Return masks given as bool arrays [i, j, k]; one after the other is read."""
        if isinstance(masks, BitMasks):
            return masks
        packed = cls(list(masks), shape)
        for index in masks:
            packed[index] = masks[index]
        return packed

    def rearranged(self, rearrange: Callable[[np.ndarray], np.ndarray], shape: Sequence[int]) -> BitMasks:
        """Return the same masks after flips or permutations of the axes.

        :param rearrange: does this to an array [i, j, k] of bytes, and returns one in Fortran order.
        :param shape: of the result.
        """
        changed = BitMasks((), shape)
        changed._place, changed.bytes = self._place, [rearrange(array) for array in self.bytes]
        return changed

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a copy of a mask.

        :raises KeyError: if there is none of that index.
        """
        array, bit = self._place[index]
        mask = self.bytes[array] >> bit
        mask &= 1
        return mask.view(bool)

    def __setitem__(self, index: int, mask: np.ndarray) -> None:
        """Replace a mask that is one of them."""
        for k in range(self.shape[2]):
            self.set_part(index, (slice(None), slice(None), k), mask[:, :, k])

    def __contains__(self, index: object) -> bool:
        # A Mapping's own would ask for the mask, which is a copy.
        return index in self._place

    def __iter__(self) -> Iterator[int]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def plane(self, index: int, k: int) -> np.ndarray:
        """Return a slice of a mask, bool [i, j]."""
        array, bit = self._place[index]
        return (self.bytes[array][:, :, k] & (1 << bit)) != 0

    def set_part(self, index: int, where: tuple, values: np.ndarray) -> None:
        """Replace a part of a mask, given as for an array, by bool values."""
        array, bit = self._place[index]
        self.bytes[array][where] = with_bit(self.bytes[array][where], bit, values)

    def count(self, index: int) -> int:
        """Return the number of voxels of a mask."""
        return sum(int(np.count_nonzero(self.plane(index, k))) for k in range(self.shape[2]))

    def clear(self, index: int) -> None:
        """Empty a mask."""
        array, bit = self._place[index]
        self.bytes[array] &= np.uint8(255 - (1 << bit))


def with_bit(part: np.ndarray, bit: int, values: np.ndarray) -> np.ndarray:
    """Return bytes, uint8, with one of their bits, 0 to 7, replaced by bool values of the same shape."""
    return (part & np.uint8(255 - (1 << bit))) | (np.asarray(values, dtype=bool).view(np.uint8) << np.uint8(bit))
