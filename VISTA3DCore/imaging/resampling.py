"""Resampling to the model grid and back: MONAI's ``Spacing`` and its inverse, one axis at a time.

MONAI resamples with a general grid sampler: eight neighbours and three float64 coordinates per voxel. But ``Spacing``
keeps the axes' directions, so its mapping from output to input indices is diagonal (upper triangular where the affine
carries the rounding of a float32 header), and trilinear interpolation falls apart into three linear ones. Coordinates
and weights are float64, voxels float32, and slabs bound the temporary memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from VISTA3DCore.imaging.geometry import from_ras, ras_orientation, reoriented_affine, spacing_of
from VISTA3DCore.progress import Progress, ProgressUpdate

# monai.data.utils.AFFINE_TOL: spacings (mm) and matrices closer than this count as equal, and nothing is resampled.
AFFINE_TOLERANCE = 1e-3
# Off-diagonal terms that displace no voxel by more than this (in voxels) are left out: 1e-7 of the intensity range.
_NEGLIGIBLE_SHIFT = 1e-7
_SLAB_VOXELS = 1 << 21

ProgressLike = Progress | Callable[[ProgressUpdate], None] | None


def resample_to_spacing(
    array: np.ndarray, affine: np.ndarray, spacing: Sequence[float], progress: ProgressLike = None
) -> tuple[np.ndarray, np.ndarray]:
    """Resample linearly to a voxel spacing, keeping the directions of the axes and the position of the first voxel.

    Equals ``monai.transforms.Spacing(pixdim=spacing, mode="bilinear", padding_mode="border")`` within 1e-6 of the
    intensity range, with identical affine and shape.

    :param array: [i, j, k], any real dtype.
    :param affine: 4x4, voxel index -> mm.
    :param spacing: three lengths in mm, one per array axis.
    :param progress: reports and cancels between slabs.
    :return: float32 array (the input's memory order; the input itself if there is nothing to do and it is float32)
        and the new affine.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress = Progress.of(progress)
    affine = np.array(affine, dtype=np.float64)
    new_affine, new_shape = model_grid(affine, array.shape, spacing)
    mapping = np.linalg.solve(affine, new_affine)
    if _unchanged(affine, new_affine, mapping, array.shape, new_shape):
        return np.asarray(array, dtype=np.float32), affine
    off_diagonal = np.abs(np.triu(mapping[:3, :3], 1)) @ np.array(new_shape)
    if np.all(off_diagonal < _NEGLIGIBLE_SHIFT):
        return _resample_separably(array, mapping, new_shape, progress), new_affine
    return _resample_sheared(array, mapping, new_shape, progress), new_affine


def model_grid(
    affine: np.ndarray, shape: tuple[int, ...], spacing: Sequence[float]
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return affine and shape of the grid with another spacing, exactly as MONAI's ``Spacing`` computes them.

    The formulas follow ``monai.data.utils`` ``zoom_affine(diagonal=False)`` and ``compute_shape_offset`` operation by
    operation, since the rounding of a half voxel decides about the shape.
    """
    affine = np.array(affine, dtype=np.float64)
    original = spacing_of(affine)
    wanted = np.array(spacing, dtype=np.float64)
    wanted = np.where(np.abs(original - wanted) <= AFFINE_TOLERANCE, original, wanted)
    directions = affine[:3, :3]
    stretch = np.linalg.cholesky(directions.T @ directions).T
    result = np.eye(4)
    result[:3, :3] = directions @ np.linalg.inv(stretch) @ np.diag(np.sign(np.diag(stretch)) * wanted)
    new_shape, result[:3, 3] = _shape_and_origin(affine, result, np.array(shape, dtype=np.float64))
    return result, new_shape


def _shape_and_origin(
    affine: np.ndarray, new_affine: np.ndarray, shape: np.ndarray
) -> tuple[tuple[int, int, int], np.ndarray]:
    corners = np.asarray(np.meshgrid(*[(0.0, side - 1.0) for side in shape], indexing="ij")).reshape(3, -1)
    corners = np.concatenate((corners, np.ones_like(corners[:1])))
    mapped = (np.linalg.solve(new_affine, affine) @ corners)[:3]
    new_shape = np.round(np.ptp(mapped, axis=1) + 1.0)
    for index in range(corners.shape[1]):
        if np.allclose(np.min(mapped - mapped[:, index : index + 1], 1), 0.0, rtol=AFFINE_TOLERANCE):
            origin = (affine @ corners)[:3, index]
            break
    else:  # a sheared grid has no smallest corner; MONAI then aligns the centres
        origin = affine[:3, :3] @ (shape / 2.0) + affine[:3, 3] - new_affine[:3, :3] @ (new_shape / 2.0)
    return tuple(int(side) for side in new_shape), origin


def _unchanged(
    affine: np.ndarray, new_affine: np.ndarray, mapping: np.ndarray, shape: tuple[int, ...], new_shape: tuple[int, ...]
) -> bool:
    if tuple(shape) != tuple(new_shape):
        return False
    return np.allclose(affine, new_affine, atol=AFFINE_TOLERANCE) or np.allclose(
        mapping, np.eye(4), atol=AFFINE_TOLERANCE
    )


@dataclass(frozen=True)
class _Taps:
    """Linear interpolation along one axis: out[n] = (1 - weight[n]) * in[low[n]] + weight[n] * in[high[n]]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @classmethod
    def at(cls, coordinates: np.ndarray, size: int) -> _Taps:
        """Neighbours and weights at float64 coordinates; outside the border voxel is repeated."""
        clipped = np.clip(coordinates, 0.0, size - 1.0)
        low = np.floor(clipped).astype(np.intp)
        return cls(low, np.ceil(clipped).astype(np.intp), (clipped - low).astype(np.float32))

    def window(self, start: int, stop: int) -> tuple[int, int, _Taps]:
        """Return the range of input needed for the outputs start..stop, and taps relative to it."""
        low, high = self.low[start:stop], self.high[start:stop]
        first, last = int(low.min()), int(high.max()) + 1
        return first, last, _Taps(low - first, high - first, self.weight[start:stop])

    @property
    def is_identity(self) -> bool:
        """Whether every output is its own input; only valid where both axes have the same size."""
        return np.array_equal(self.low, np.arange(len(self.low))) and np.array_equal(self.low, self.high)

    def apply(self, block: np.ndarray, axis: int) -> np.ndarray:
        weight = self.weight.reshape([-1 if index == axis else 1 for index in range(block.ndim)])
        result = np.take(block, self.high, axis=axis)
        low = np.take(block, self.low, axis=axis)
        result -= low
        result *= weight
        result += low
        return result


def _resample_separably(
    array: np.ndarray, mapping: np.ndarray, new_shape: tuple[int, int, int], progress: Progress
) -> np.ndarray:
    """Interpolate along the axes in turn, slab by slab along the axis that varies slowest in memory."""
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    source = array.transpose(order)
    shape = [new_shape[axis] for axis in order]
    taps = [_axis_taps(mapping, axis, array.shape[axis], new_shape[axis]) for axis in order]
    # The axis that shrinks most goes first: the others then have the least to do.
    sequence = [
        axis
        for axis in np.argsort(np.array(shape) / source.shape, kind="stable")
        if not (taps[axis].is_identity and shape[axis] == source.shape[axis])
    ]
    result = np.empty(shape, dtype=np.float32)
    depth = max(1, int(_SLAB_VOXELS / max(source[0].size, 1) * shape[0] / source.shape[0]))
    for start in range(0, shape[0], depth):
        first, last, slab_taps = taps[0].window(start, start + depth)
        block = source[first:last].astype(np.float32)
        for axis in sequence:
            block = (slab_taps if axis == 0 else taps[axis]).apply(block, axis)
        result[start : start + depth] = block
        progress.update(min(start + depth, shape[0]) / shape[0], "Resampling")
    return result.transpose(np.argsort(order))


def _axis_taps(mapping: np.ndarray, axis: int, size: int, new_size: int) -> _Taps:
    return _Taps.at(mapping[axis, axis] * np.arange(new_size, dtype=np.float64) + mapping[axis, 3], size)


def _resample_sheared(
    array: np.ndarray, mapping: np.ndarray, new_shape: tuple[int, int, int], progress: Progress
) -> np.ndarray:
    """As above for an upper triangular mapping: input k depends on output k; j on (j, k); i on (i, j, k)."""
    steps = [np.arange(size, dtype=np.float64) for size in new_shape]
    result = np.empty(new_shape, dtype=np.float32, order="F")
    along_k = _Taps.at(mapping[2, 2] * steps[2] + mapping[2, 3], array.shape[2])
    for k in range(new_shape[2]):
        first, last, taps = along_k.window(k, k + 1)
        plane = taps.apply(array[:, :, first:last].astype(np.float32), 2)[:, :, 0]
        along_j = mapping[1, 1] * steps[1] + (mapping[1, 2] * k + mapping[1, 3])
        plane = _Taps.at(along_j, array.shape[1]).apply(plane, 1)
        along_i = mapping[0, 0] * steps[0][:, None] + (mapping[0, 1] * steps[1] + mapping[0, 2] * k + mapping[0, 3])
        taps = _Taps.at(along_i, array.shape[0])
        low, high = np.take_along_axis(plane, taps.low, 0), np.take_along_axis(plane, taps.high, 0)
        result[:, :, k] = low + taps.weight * (high - low)
        progress.update((k + 1) / new_shape[2], "Resampling")
    return result


def restoration_coordinates(
    model_affine: np.ndarray,
    model_shape: tuple[int, ...],
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], tuple[int, int, int]]:
    """Return where the voxels of the input grid lie on the model grid, axis by axis.

    :param model_affine: affine of the (cropped, RAS-oriented) model grid.
    :param model_shape: its shape.
    :param target_affine: affine of the input grid, from which the model grid was made by :func:`resample_to_spacing`,
        cropping and :func:`~VISTA3DCore.imaging.geometry.to_ras`.
    :param target_shape: shape of the input grid.
    :return: three float64 vectors of coordinates, one per axis of the *input* grid, on the whole model grid in the
        input's axis order (see :func:`~VISTA3DCore.imaging.geometry.from_ras`), clipped to that grid as MONAI's border
        padding does; and the index in that grid of the first voxel of the cropped one.
    """
    permutation, flips = ras_orientation(target_affine)
    back = np.argsort(permutation)
    cropped_affine = reoriented_affine(model_affine, model_shape, tuple(back), (False, False, False))
    cropped_shape = [model_shape[axis] for axis in back]
    cropped_affine = reoriented_affine(cropped_affine, cropped_shape, (0, 1, 2), flips)
    # Nine decimals remove the rounding of the reorientation, so that a half voxel in the shape falls as it fell before.
    whole_affine, whole_shape = model_grid(target_affine, target_shape, np.round(spacing_of(cropped_affine), 9))
    offset = np.rint(np.linalg.solve(whole_affine, cropped_affine)[:3, 3]).astype(int)
    mapping = np.linalg.solve(whole_affine, target_affine)
    coordinates = [
        np.clip(mapping[axis, axis] * np.arange(target_shape[axis]) + mapping[axis, 3], 0.0, whole_shape[axis] - 1.0)
        for axis in range(3)
    ]
    return tuple(coordinates), tuple(int(index) for index in offset)


def restore_nearest(
    labels: np.ndarray,
    model_affine: np.ndarray,
    target_affine: np.ndarray,
    target_shape: tuple[int, ...],
    progress: ProgressLike = None,
) -> np.ndarray:
    """Bring labels from the (cropped, RAS) model grid back to the input grid: nearest neighbour, 0 outside the crop.

    Equals MONAI's ``Invertd(nearest_interp=True)`` of [Spacing, CropForeground, Orientation RAS]: undo the
    orientation, pad with 0, sample nearest with border padding; halves round to even.

    :param labels: [i, j, k] of the model grid, any dtype.
    :param model_affine: its affine; :param target_affine: the input's; :param target_shape: the input's shape.
    :return: labels on the input grid, dtype kept.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress = Progress.of(progress)
    source = from_ras(labels, target_affine)
    coordinates, offset = restoration_coordinates(model_affine, labels.shape, target_affine, target_shape)
    indices = [np.rint(line).astype(np.intp) - start for line, start in zip(coordinates, offset, strict=True)]
    inside = [(line >= 0) & (line < size) for line, size in zip(indices, source.shape, strict=True)]
    rows, columns = (line[valid] for line, valid in zip(indices[:2], inside[:2], strict=True))
    result = np.zeros(target_shape, dtype=labels.dtype, order="F")
    for k in np.flatnonzero(inside[2]):
        plane = source[:, :, indices[2][k]]
        result[np.flatnonzero(inside[0])[:, None], np.flatnonzero(inside[1]), k] = plane[rows[:, None], columns]
        progress.update((k + 1) / target_shape[2], "Restoring")
    return result
