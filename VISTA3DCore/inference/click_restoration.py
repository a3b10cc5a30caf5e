"""Click scores from the model grid to a box of the input grid, and masks the other way.

The axes of the two grids are parallel (the model grid is the resampled input, flipped and permuted to RAS), so
trilinear interpolation is one small matrix product per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from VISTA3DCore.imaging.geometry import apply_affine, ras_orientation
from VISTA3DCore.inference.click_scores import ScoreMap
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

    @property
    def permutation(self) -> tuple[int, int, int]:
        """For each axis of the model grid the parallel one of the input grid."""
        return ras_orientation(self.target_affine)[0]

    def line(self, axis: int) -> tuple[float, float]:
        """Return (offset, step): the index along a model axis of voxel 0 of the input grid, and per voxel further."""
        matrix = np.linalg.inv(self.model_affine) @ self.target_affine
        return float(matrix[axis, 3]), float(matrix[axis, self.permutation[axis]])

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

    def mask_on_model(self, mask: np.ndarray, box: Box) -> np.ndarray:
        """Return a mask of the input grid at the centres of model voxels (nearest input voxel); False beyond it.

        :param box: of the model grid; may reach beyond it.
        """
        result = np.zeros([part.stop - part.start for part in box], dtype=bool)
        rows, inside = [], []
        for axis, part in enumerate(box):
            offset, step = self.line(axis)
            voxels, size = np.arange(part.start, part.stop), mask.shape[self.permutation[axis]]
            index = np.floor((voxels - offset) / step + 0.5).astype(np.intp)
            # The outer voxels of the model grid may lie half a voxel beyond the centres of the input's.
            within = (voxels >= 0) & (voxels < self.model_shape[axis])
            index[within] = index[within].clip(0, size - 1)
            valid = (index >= 0) & (index < size)
            rows.append(index[valid])
            inside.append(np.flatnonzero(valid))
        result[np.ix_(*inside)] = mask.transpose(self.permutation)[np.ix_(*rows)]
        return result


def answered_mask(score_map: ScoreMap, grids: ParallelGrids, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return where the interpolated scores are positive, and where they are known, in a box of the input grid.

    A voxel is known if its nearest model voxel was answered. Unanswered model voxels have score 0, which leaves the
    sign of an interpolated score to the answered ones.

    :param box: of the input grid, not empty.
    :return: two bool arrays [i, j, k] of the box's shape.
    """
    weights, nearest, part = [], [], []
    for axis, (first, size) in enumerate(zip(score_map.start, score_map.scores.shape, strict=True)):
        voxels = box[grids.permutation[axis]]
        offset, step = grids.line(axis)
        place = _off_the_rim(np.arange(voxels.start, voxels.stop) * step + offset, grids.model_shape[axis]) - first
        low = int(np.clip(np.floor(place.min()), 0, size - 1))
        high = int(np.clip(np.ceil(place.max()), 0, size - 1)) + 1
        weights.append(_interpolation(place - low, high - low))
        nearest.append(np.floor(place + 0.5).astype(np.intp))
        part.append(slice(low, high))
    scores = torch.from_numpy(np.ascontiguousarray(score_map.scores[tuple(part)]))
    for weight in reversed(weights):
        # Each product interpolates the last axis and moves it to the front, so three of them restore the order.
        scores = torch.tensordot(weight, scores, dims=([1], [2]))
    back = np.argsort(grids.permutation)
    return (scores > 0).numpy().transpose(back), _known(score_map.known, nearest).transpose(back)


def _off_the_rim(place: np.ndarray, size: int) -> np.ndarray:
    """Move places in the outer half voxels of the model grid to these voxels' centres.

    Between those centres and the air around the grid scores would be mixed with what the network says of that air,
    although the image goes on there, or ends.
    """
    rim = (place >= -0.5) & (place <= size - 0.5)
    return np.where(rim, np.clip(place, 0, size - 1), place)


def _known(known: np.ndarray, nearest: list[np.ndarray]) -> np.ndarray:
    """Return the known flag of the nearest model voxel; False beyond the map."""
    inside = [(index >= 0) & (index < size) for index, size in zip(nearest, known.shape, strict=True)]
    result = inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]
    if not known.all():
        clipped = [np.clip(index, 0, size - 1) for index, size in zip(nearest, known.shape, strict=True)]
        result &= known[np.ix_(*clipped)]
    return result


def _interpolation(place: np.ndarray, size: int) -> torch.Tensor:
    """Return the matrix [n, size] of linear interpolation at n places; the ends are repeated beyond."""
    place = np.clip(place, 0, size - 1)
    low = np.floor(place).astype(np.intp)
    upper = (place - low).astype(np.float32)
    matrix = np.zeros((len(place), size), dtype=np.float32)
    rows = np.arange(len(place))
    matrix[rows, np.minimum(low + 1, size - 1)] = upper
    matrix[rows, low] += 1 - upper
    return torch.from_numpy(matrix)
