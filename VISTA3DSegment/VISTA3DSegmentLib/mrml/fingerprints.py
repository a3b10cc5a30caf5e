# SPDX-License-Identifier: Apache-2.0
"""Telling whether somebody else changed a mask, at the price of the voxels that we changed ourselves.

A fingerprint is the number of voxels and the sum of their weights. A voxel's weight is the product of a random number
for each of its indices, modulo 2^64, so a fingerprint can be carried on from a changed box alone.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from .boxes import Ranges, box_of, slices

_WORD = (1 << 64) - 1
# Voxels that are weighed at once.
_CHUNK = 1 << 19
# Planes of a labelmap that are looked at in one step.
_PLANES = 16


@dataclass(frozen=True)
class Fingerprint:
    """A mask on a grid in a few bytes.

    :param count: number of voxels.
    :param total: sum of their weights, modulo 2^64.
    """

    count: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.count:x}-{self.total:016x}"

    @classmethod
    def of(cls, mask: np.ndarray) -> Fingerprint:
        """Return the fingerprint of a whole mask, a bool array [i, j, k]."""
        box = box_of(mask)
        return cls() if box is None else cls()._plus(mask[slices(box)].view(np.int8), box)

    def after(self, before: np.ndarray, after: np.ndarray, box: Ranges) -> Fingerprint:
        """Return the fingerprint after the voxels in a box were changed.

        :param before, after: bool [i, j, k] of the box.
        """
        changed = box_of(before != after, tuple(start for start, _ in box))
        if changed is None:
            return self
        inner = slices(changed, box)
        return self._plus(after[inner].view(np.int8) - before[inner].view(np.int8), changed)

    def _plus(self, change: np.ndarray, box: Ranges) -> Fingerprint:
        """Return the fingerprint with the weights of some voxels added or taken away.

        :param change: int8 [i, j, k] of the box: 1, 0 or -1 times each voxel.
        """
        along_i, along_j, along_k = (_weights(axis, *ends) for axis, ends in enumerate(box))
        count, total = 0, 0
        step = max(1, _CHUNK // (change.shape[0] * change.shape[1]))
        for start in range(0, change.shape[2], step):
            slab = change[:, :, start : start + step].T.astype(np.int64, order="C")
            count += int(slab.sum())
            total += int((slab @ along_i @ along_j) @ along_k[start : start + step])
        return Fingerprint(self.count + count, (self.total + total) & _WORD)


def _weights(axis: int, start: int, stop: int) -> np.ndarray:
    """Return a random number for each index, int64: splitmix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    values = np.arange(start + 1, stop + 1, dtype=np.uint64) + np.uint64(axis << 32)
    values *= np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (values ^ (values >> np.uint64(31))).view(np.int64)


def label_fingerprints(voxels: np.ndarray) -> Generator[None, None, dict[int, Fingerprint]]:
    """Return the fingerprint of each label of a labelmap, wherever it is; in steps of some milliseconds.

    A label is fingerprinted from its own first index along each axis, so a mask that was only moved keeps its
    fingerprint. All labels together take one pass: each row of a label is a run, and weights of runs are differences of
    sums of weights.

    :param voxels: labels [i, j, k], 0 is background; i runs fastest in memory.
    """
    parts = []
    for k in range(voxels.shape[2]):
        plane = voxels[:, :, k].T
        if plane.any():
            parts.append(_runs(plane, k))
        if k % _PLANES == _PLANES - 1:
            yield
    if not parts:
        return {}
    values = np.concatenate([values for values, _places in parts])
    labels, owners = np.unique(values, return_inverse=True)
    places = np.concatenate([places for _values, places in parts], axis=1)
    first = np.full((3, len(labels)), np.iinfo(np.int64).max)
    for axis, row in enumerate((0, 2, 3)):  # i, j, k
        np.minimum.at(first[axis], owners, places[row])
    start, stop = places[:2] - first[0, owners]
    j, k = places[2:] - first[1:, owners]
    along_i, along_j, along_k = (_weights(axis, 0, size) for axis, size in enumerate(voxels.shape))
    sums = np.concatenate([[0], along_i.cumsum()])
    weights = (sums[stop] - sums[start]) * along_j[j] * along_k[k]
    counts, totals = np.zeros((2, len(labels)), dtype=np.int64)
    np.add.at(counts, owners, stop - start)
    np.add.at(totals, owners, weights)
    return {
        int(label): Fingerprint(int(count), int(total) & _WORD)
        for label, count, total in zip(labels, counts, totals, strict=True)
    }


def _runs(plane: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs of equal labels in the rows [j, i] of a plane: their labels, and [start, stop, j, k] of each."""
    inside, differs = plane != 0, plane[:, 1:] != plane[:, :-1]
    begins, ends = inside.copy(), inside.copy()
    begins[:, 1:] &= differs
    ends[:, :-1] &= differs
    at = np.flatnonzero(begins)  # several times as fast as nonzero in two dimensions
    j, start = np.divmod(at, plane.shape[1])
    stop = np.flatnonzero(ends) - j * plane.shape[1] + 1
    return plane[j, start], np.stack([start, stop, j, np.full_like(j, k)])
