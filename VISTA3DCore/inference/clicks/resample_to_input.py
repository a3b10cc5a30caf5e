"""Click scores from the model grid to a box of the input grid, and masks the other way.

The axes of the two grids are parallel (the model grid is the resampled input, flipped and permuted to RAS), so
trilinear interpolation is one small matrix product per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from VISTA3DCore.imaging.components import memory_order
from VISTA3DCore.imaging.geometry import apply_affine, ras_orientation
from VISTA3DCore.inference.clicks.history import Shown
from VISTA3DCore.inference.clicks.scores import ScoreMap
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape


@dataclass(frozen=True, eq=False)
class ParallelGrids:
    """The input grid and the model grid.

    :param target_affine: 4x4, voxel index of the input grid -> RAS mm; :param target_shape: its shape.
    :param model_affine: 4x4, voxel index of the model grid -> RAS mm; :param model_shape: its shape.
    """

    target_affine: np.ndarray
    target_shape: Shape
    model_affine: np.ndarray
    model_shape: Shape

    def to_model(self, positions: np.ndarray) -> np.ndarray:
        """Return fractional voxel indices of the model grid of RAS positions [..., 3]."""
        return apply_affine(np.linalg.inv(self.model_affine), positions)

    def to_target(self, positions: np.ndarray) -> np.ndarray:
        """Return fractional voxel indices of the input grid of RAS positions [..., 3]."""
        return apply_affine(np.linalg.inv(self.target_affine), positions)

    @cached_property
    def permutation(self) -> tuple[int, int, int]:
        """For each axis of the model grid the parallel one of the input grid."""
        return ras_orientation(self.target_affine)[0]

    def line(self, axis: int) -> tuple[float, float]:
        """Return (offset, step): the index along a model axis of voxel 0 of the input grid, and per voxel further."""
        return float(self._target_to_model[axis, 3]), float(self._target_to_model[axis, self.permutation[axis]])

    @cached_property
    def _target_to_model(self) -> np.ndarray:
        return np.linalg.inv(self.model_affine) @ self.target_affine

    def target_box(self, model_box: Box, margin: float = 0.5) -> Box:
        """Return the input voxels whose centres lie in a box of model voxels, within the input grid; may be empty.

        :param margin: how far a model voxel reaches beyond its centre, in model voxels.
        """
        result = [slice(0, 0)] * 3
        for axis, part in enumerate(model_box):
            offset, step = self.line(axis)
            size = self.target_shape[self.permutation[axis]]
            ends = sorted(((part.start - margin - offset) / step, (part.stop - 1 + margin - offset) / step))
            first = min(max(int(np.ceil(ends[0] - 1e-6)), 0), size)
            result[self.permutation[axis]] = slice(first, max(min(int(np.floor(ends[1] + 1e-6)) + 1, size), first))
        return tuple(result)

    def mask_on_model(self, mask: np.ndarray | Shown, box: Box) -> np.ndarray:
        """Return a mask of the input grid at the centres of model voxels (nearest input voxel); False beyond it.

        :param mask: bool [i, j, k] of the input grid; only a box of it is looked at.
        :param box: of the model grid; may reach beyond it.
        """
        result = np.zeros([part.stop - part.start for part in box], dtype=bool)
        rows, inside = [], []
        for axis, part in enumerate(box):
            offset, step = self.line(axis)
            voxels, size = np.arange(part.start, part.stop), self.target_shape[self.permutation[axis]]
            index = np.floor((voxels - offset) / step + 0.5).astype(np.intp)
            # The outer voxels of the model grid may lie half a voxel beyond the centres of the input's.
            within = (voxels >= 0) & (voxels < self.model_shape[axis])
            index[within] = index[within].clip(0, size - 1)
            valid = (index >= 0) & (index < size)
            rows.append(index[valid])
            first = int(valid.argmax())
            inside.append(slice(first, first + len(rows[-1])))
        if any(found.size == 0 for found in rows):
            return result
        part = [slice(int(found.min()), int(found.max()) + 1) for found in rows]
        rows = [found - side.start for found, side in zip(rows, part, strict=True)]
        cut = mask[tuple(part[axis] for axis in np.argsort(self.permutation))].transpose(self.permutation)
        found, place = _taken(cut, rows), result[tuple(inside)]
        # Plane by plane, because transposing all of it at once misses the processor's cache at every voxel.
        for number in range(place.shape[1]):
            place[:, number] = found[:, number].copy(order="K")
        return result


def answered_mask(
    score_map: ScoreMap, grids: ParallelGrids, box: Box, order: Sequence[int] = (0, 1, 2)
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the interpolated scores are positive, and where they are known, in a box of the input grid.

    A voxel is known if its nearest model voxel was answered. Unanswered model voxels have score 0, which leaves the
    sign of an interpolated score to the answered ones.

    :param box: of the input grid, not empty.
    :param order: axes of the input grid, the slowest in memory first, of the results.
    :return: two bool arrays [i, j, k] of the box's shape.
    """
    axes = [grids.permutation.index(axis) for axis in order]
    scores, known = score_map.scores.transpose(axes), score_map.known.transpose(axes)
    places = [_places(score_map.start[axis], grids, axis, box) for axis in axes]
    part = [
        np.clip([np.floor(place.min()), np.ceil(place.max())], 0, size - 1).astype(int)
        for place, size in zip(places, scores.shape, strict=True)
    ]
    cut = np.ascontiguousarray(scores[tuple(slice(low, high + 1) for low, high in part)])
    positive = _positive(torch.from_numpy(cut), [place - low for place, (low, _) in zip(places, part, strict=True)])
    back = np.argsort(order)
    return positive.numpy().transpose(back), _known(known, places).transpose(back)


def _taken(array: np.ndarray, rows: list[np.ndarray]) -> np.ndarray:
    """Return ``array[np.ix_(*rows)]``, taken one axis after another in the order of memory, which is far quicker."""
    order = memory_order(array)
    array = array.transpose(order)
    for step, axis in enumerate(order):
        array = array.take(rows[axis], step)
    return array.transpose(np.argsort(order))


def _places(first: int, grids: ParallelGrids, axis: int, box: Box) -> np.ndarray:
    """Return where the input voxels of a box lie along a model axis, in voxels from ``first``."""
    voxels = box[grids.permutation[axis]]
    offset, step = grids.line(axis)
    return _off_the_rim(np.arange(voxels.start, voxels.stop) * step + offset, grids.model_shape[axis]) - first


def _positive(scores: torch.Tensor, places: list[np.ndarray]) -> torch.Tensor:
    """Return whether the scores [x, y, z], interpolated at places along each axis, are positive.

    The last step makes most of the voxels; it goes plane by plane, so that their scores never leave the cache.
    """
    slow, *others = (_Line.at(place, size) for place, size in zip(places, scores.shape, strict=True))
    planes = others[0].matrix() @ (scores @ others[1].matrix().T)
    positive = torch.empty(len(slow.low), *planes.shape[1:], dtype=torch.bool)
    buffer = torch.empty(planes.shape[1:])
    for low, high, weight, result in zip(slow.low, slow.high, slow.weight.tolist(), positive, strict=True):
        torch.gt(torch.lerp(planes[low], planes[high], weight, out=buffer), 0, out=result)
    return positive


def _off_the_rim(place: np.ndarray, size: int) -> np.ndarray:
    """Move places in the outer half voxels of the model grid to these voxels' centres.

    Between those centres and the air around the grid scores would be mixed with what the network says of that air,
    although the image goes on there, or ends.
    """
    rim = (place >= -0.5) & (place <= size - 0.5)
    return np.where(rim, np.clip(place, 0, size - 1), place)


def _known(known: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    """Return the known flag of the nearest model voxel; False beyond the map."""
    nearest = [np.floor(place + 0.5).astype(np.intp) for place in places]
    inside = [(index >= 0) & (index < size) for index, size in zip(nearest, known.shape, strict=True)]
    result = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
    if not known.all():
        clipped = [np.clip(index, 0, size - 1) for index, size in zip(nearest, known.shape, strict=True)]
        result &= known[np.ix_(*clipped)]
    return result


@dataclass(frozen=True, eq=False)
class _Line:
    """Linear interpolation at n places along an axis; the ends are repeated beyond.

    :param low: voxel below each place, :param high: above, :param weight: of the upper one.
    """

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    size: int

    @classmethod
    def at(cls, place: np.ndarray, size: int) -> _Line:
        place = np.clip(place, 0, size - 1)
        low = np.floor(place).astype(np.intp)
        return cls(low, np.minimum(low + 1, size - 1), (place - low).astype(np.float32), size)

    def matrix(self) -> torch.Tensor:
        """Return it as a matrix [n, size]."""
        matrix = np.zeros((len(self.low), self.size), dtype=np.float32)
        rows = np.arange(len(self.low))
        matrix[rows, self.high] = self.weight
        matrix[rows, self.low] += 1 - self.weight
        return torch.from_numpy(matrix)
