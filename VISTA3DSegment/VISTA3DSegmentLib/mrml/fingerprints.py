# SPDX-License-Identifier: Apache-2.0
"""Telling whether somebody else changed a mask, at the price of the voxels that we changed ourselves.

A fingerprint is the number of voxels and the sum of a hash of each voxel's index, so it can be carried on from a
changed box alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .boxes import Ranges, Shape, box_of, slices

# Odd numbers with many bits, from the finaliser of splitmix64 (Steele et al. 2014, doi:10.1145/2660193.2660195).
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(31)
# Indices that are hashed at once stay in the processor's cache.
_CHUNK = 1 << 15
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Fingerprint:
    """A mask on a grid in a few bytes.

    :param count: number of voxels.
    :param total: sum of the hashes of their indices, modulo 2^64.
    """

    count: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.count:x}-{self.total:016x}"

    @classmethod
    def of(cls, mask: np.ndarray) -> Fingerprint:
        """Return the fingerprint of a bool array [i, j, k]."""
        box = box_of(mask)
        return cls() if box is None else cls._of_indices(_indices(mask[slices(box)], box, mask.shape))

    def after(self, before: np.ndarray, after: np.ndarray, box: Ranges, shape: Shape) -> Fingerprint:
        """Return the fingerprint after the voxels in a box were changed.

        :param before, after: bool [i, j, k] of the box.
        :param shape: of the whole grid.
        """
        added = self._of_indices(_indices(np.greater(after, before), box, shape))
        removed = self._of_indices(_indices(np.greater(before, after), box, shape))
        return Fingerprint(self.count + added.count - removed.count, (self.total + added.total - removed.total) & _WORD)

    @classmethod
    def _of_indices(cls, indices: np.ndarray) -> Fingerprint:
        total = 0
        for start in range(0, len(indices), _CHUNK):
            values = indices[start : start + _CHUNK].astype(np.uint64)
            values += np.uint64(1)
            values *= _FIRST
            values ^= values >> _SHIFT
            values *= _SECOND
            total += int(values.sum(dtype=np.uint64))
        return cls(len(indices), total & _WORD)


def _indices(mask: np.ndarray, box: Ranges, shape: Shape) -> np.ndarray:
    """Return the indices of a mask's voxels in the whole grid, i running fastest."""
    found = np.nonzero(mask.T)
    k, j, i = (axis + start for axis, (start, _) in zip(found, box[::-1], strict=True))
    return (k * shape[1] + j) * shape[0] + i
