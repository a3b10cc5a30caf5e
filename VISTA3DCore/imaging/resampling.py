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

from VISTA3DCore.imaging.geometry import from_ras, ras_orientation, reoriented_affine, shape_of, spacing_of
from VISTA3DCore.imaging.torch_sampler import TorchSampler, base_grid, normalisation
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
    if _separates(mapping, new_shape):
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


@dataclass(frozen=True, eq=False)
class SeparablePlan:
    """How :func:`resample_to_spacing` resamples one axis at a time, for those who do it elsewhere, e.g. on a GPU.

    :param affine: of the new grid; :param shape: its shape.
    :param steps: (axis, lower neighbours, upper neighbours, weights of the upper ones) in the order that it keeps to;
        each voxel becomes low + weight * (high - low), in float32.
    """

    affine: np.ndarray
    shape: tuple[int, int, int]
    steps: tuple[tuple[int, np.ndarray, np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], affine: np.ndarray, spacing: Sequence[float]) -> SeparablePlan | None:
        """Return the plan, or None where nothing is resampled or the axes do not separate."""
        affine = np.array(affine, dtype=np.float64)
        new_affine, new_shape = model_grid(affine, shape, spacing)
        mapping = np.linalg.solve(affine, new_affine)
        if _unchanged(affine, new_affine, mapping, shape, new_shape) or not _separates(mapping, new_shape):
            return None
        taps = [_axis_taps(mapping, axis, shape[axis], new_shape[axis]) for axis in range(3)]
        steps = (
            (axis, taps[axis].low, taps[axis].high, taps[axis].weight) for axis in _sequence(taps, shape, new_shape)
        )
        return cls(new_affine, new_shape, tuple(steps))


def _separates(mapping: np.ndarray, new_shape: tuple[int, ...]) -> bool:
    return bool(np.all(np.abs(np.triu(mapping[:3, :3], 1)) @ np.array(new_shape) < _NEGLIGIBLE_SHIFT))


def _sequence(taps: Sequence[_Taps], shape: Sequence[int], new_shape: Sequence[int]) -> list[int]:
    """Return the axes to resample, the one that shrinks most first: the others then have the least to do.

    Equal ones have a fixed order, or the rounding would depend on how the array lies in memory.
    """
    axes = sorted(range(3), key=lambda axis: (new_shape[axis] / shape[axis], -axis))
    return [axis for axis in axes if not (taps[axis].is_identity and new_shape[axis] == shape[axis])]


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
    return shape_of(new_shape), origin


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
    by_axis = [_axis_taps(mapping, axis, array.shape[axis], new_shape[axis]) for axis in range(3)]
    taps = [by_axis[axis] for axis in order]
    sequence = [order.tolist().index(axis) for axis in _sequence(by_axis, array.shape, new_shape)]
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
    sampler, offset = _inverse_sampler(model_affine, model_shape, target_affine, target_shape)
    i, j, k = (sampler.line(axis) for axis in range(3))
    return (i, j, k), offset


def _inverse_sampler(
    model_affine: np.ndarray, model_shape: tuple[int, ...], target_affine: np.ndarray, target_shape: tuple[int, ...]
) -> tuple[TorchSampler, tuple[int, int, int]]:
    target_affine = np.array(target_affine, dtype=np.float64)
    permutation, flips = ras_orientation(target_affine)
    cropped_shape = tuple(model_shape[axis] for axis in np.argsort(permutation))
    to_cropped = reoriented_affine(np.eye(4), cropped_shape, permutation, flips)
    cropped_affine = np.asarray(model_affine, dtype=np.float64) @ np.linalg.inv(to_cropped)
    # Nine decimals remove the rounding of the reorientation, so that a half voxel in the shape falls as it fell before.
    spacing = np.round(spacing_of(cropped_affine), 9)
    whole_affine, whole_shape = model_grid(target_affine, target_shape, spacing.tolist())
    offset = np.rint(np.linalg.solve(whole_affine, cropped_affine)[:3, 3])
    mapping = np.linalg.solve(_retraced(target_affine, whole_affine, offset, to_cropped), target_affine)
    theta = normalisation(whole_shape) @ mapping @ np.linalg.inv(normalisation(target_shape))
    grid = base_grid(target_shape[0]), base_grid(target_shape[1]), base_grid(target_shape[2])
    return TorchSampler(theta, grid, whole_shape), shape_of(offset)


def _retraced(affine: np.ndarray, whole_affine: np.ndarray, offset: np.ndarray, to_cropped: np.ndarray) -> np.ndarray:
    """Return the whole model grid's affine as MONAI holds it after undoing orientation and crop.

    Mathematically it is ``whole_affine``, but native spacings such as 0.75, 1.25 or 3.75 mm put many voxels exactly
    half-way between two voxels of the model grid, and there the rounding of these very products decides.
    """
    shift, shift_back = np.eye(4), np.eye(4)
    shift[:3, 3], shift_back[:3, 3] = offset, -offset
    to_model = np.linalg.solve(affine, whole_affine)
    return affine @ to_model @ shift @ to_cropped @ np.linalg.inv(to_cropped) @ shift_back


def nearest_lines(
    model_affine: np.ndarray, model_shape: tuple[int, ...], target_affine: np.ndarray, target_shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return :func:`restore_nearest` as one lookup per axis, for those who do it elsewhere, e.g. on a GPU.

    :return: for each axis of the *input* grid, the index on the corresponding axis of the (cropped, RAS) model grid for
        every voxel along it, -1 outside; or None where the axes do not separate (see :func:`restore_nearest`).
    """
    sampler, offset = _inverse_sampler(model_affine, model_shape, target_affine, target_shape)
    if sampler.decides_halves():
        return None
    permutation, flips = ras_orientation(target_affine)

    def line(axis: int) -> np.ndarray:
        size, index = model_shape[permutation.index(axis)], np.rint(sampler.line(axis)).astype(np.int64) - offset[axis]
        return np.where((index >= 0) & (index < size), size - 1 - index if flips[axis] else index, -1)

    return line(0), line(1), line(2)


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
    :param model_affine: its 4x4 affine, voxel index -> mm.
    :param target_affine: the input's affine.
    :param target_shape: the input's shape.
    :return: labels on the input grid, dtype kept.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress = Progress.of(progress)
    source = from_ras(labels, target_affine)
    sampler, offset = _inverse_sampler(model_affine, labels.shape, target_affine, target_shape)
    fill = _fill_exactly if sampler.decides_halves() else _fill_separably
    result = np.zeros(target_shape, dtype=labels.dtype, order="F")
    fill(result, source, sampler, offset, progress)
    return result


def _fill_separably(
    result: np.ndarray, source: np.ndarray, sampler: TorchSampler, offset: tuple[int, ...], progress: Progress
) -> None:
    indices = [np.rint(sampler.line(axis)).astype(np.intp) - offset[axis] for axis in range(3)]
    inside = [np.flatnonzero((line >= 0) & (line < size)) for line, size in zip(indices, source.shape, strict=True)]
    if not all(line.size for line in inside):
        return
    # Coordinates run in one direction, so the voxels inside are a box of the result.
    box = result[inside[0][0] : inside[0][-1] + 1, inside[1][0] : inside[1][-1] + 1]
    rows, columns = indices[0][inside[0]], indices[1][inside[1]]
    plane, last = None, -1
    for k in inside[2]:
        if indices[2][k] != last:  # neighbouring slices often come from the same one
            last = indices[2][k]
            # Two lookups along one axis each, i fastest, instead of one for every voxel.
            plane = np.ascontiguousarray(source[:, :, last].T).take(columns, axis=0).take(rows, axis=1).T
        box[:, :, k] = plane
        progress.update((k + 1) / result.shape[2], "Restoring")


def _fill_exactly(
    result: np.ndarray, source: np.ndarray, sampler: TorchSampler, offset: tuple[int, ...], progress: Progress
) -> None:
    for k in range(result.shape[2]):
        indices = [np.rint(sampler.plane(axis, k)).astype(np.intp) - offset[axis] for axis in range(3)]
        inside = np.logical_and.reduce(
            [(plane >= 0) & (plane < size) for plane, size in zip(indices, source.shape, strict=True)]
        )
        result[:, :, k][inside] = source[tuple(plane[inside] for plane in indices)]
        progress.update((k + 1) / result.shape[2], "Restoring")
