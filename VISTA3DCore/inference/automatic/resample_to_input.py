"""From the model grid back to the input grid.

``nearest`` brings labels back by nearest neighbour, as the reference does. ``smooth`` interpolates the class *scores*
trilinearly at every input voxel and decides there, so that surfaces do not show the model grid's steps. Where all eight
surrounding model voxels have the same label, the interpolated winner is that label (a convex combination of scores that
all have the same winner), so only the voxels between different labels are evaluated, and the result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from VISTA3DCore.imaging.geometry import ras_orientation
from VISTA3DCore.imaging.masks import BitMasks, with_bit
from VISTA3DCore.imaging.resampling import nearest_lines, restoration_coordinates, restore_nearest
from VISTA3DCore.inference.automatic.feature_map import Block
from VISTA3DCore.inference.automatic.labels import ClassScores, LabelMap, classify_voxels
from VISTA3DCore.inference.automatic.resample_on_device import DeviceRestorer
from VISTA3DCore.progress import Progress

STAGE = "Restoring"

# Voxels interpolated at once: eight neighbours of 48 float32 features each are about 100 MB.
_VOXELS = 1 << 16


@dataclass(frozen=True, eq=False)
class Grids:
    """Where the model grid lies in the input grid.

    :param model_affine: of the (cropped) model grid, RAS order; :param model_shape: its shape.
    :param target_affine: of the input grid; :param target_shape: its shape.
    """

    model_affine: np.ndarray
    model_shape: tuple[int, int, int]
    target_affine: np.ndarray
    target_shape: tuple[int, int, int]

    @cached_property
    def nearest_lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """See :func:`VISTA3DCore.imaging.resampling.nearest_lines`; kept, for some milliseconds for each structure."""
        return nearest_lines(self.model_affine, self.model_shape, self.target_affine, self.target_shape)


class Restorer(Protocol):
    """Takes the feature map block by block and gives labels [i, j, k] and masks on the input grid."""

    def take(self, block: Block, progress: Progress | None = None) -> None:
        """Use one block.

        :raises Cancelled: if ``progress`` was cancelled.
        """

    def result(self, progress: Progress) -> tuple[np.ndarray, BitMasks]:
        """Return labels (uint16) and masks after the last block."""


class NearestRestorer:
    """Labels on the model grid, brought back by nearest neighbour; zero outside the foreground crop."""

    def __init__(self, scores: ClassScores, grids: Grids) -> None:
        self._grids, self._scores = grids, scores
        self.map = LabelMap(scores, grids.model_shape)
        self.take = self.map.take

    def result(self, progress: Progress) -> tuple[np.ndarray, BitMasks]:
        masks = BitMasks(self._scores.overlapping, self._grids.target_shape)
        share = 1.0 / (1 + len(masks.bytes))
        labels = self._restored(self.map.labels, progress.part(0.0, share))
        # Nearest neighbour takes voxels as they are, so eight masks are brought back at once.
        for number, bits in enumerate(self.map.bits):
            masks.bytes[number] = self._restored(bits, progress.part(share * (number + 1), share * (number + 2)))
        return labels, masks

    def _restored(self, labels: np.ndarray, progress: Progress) -> np.ndarray:
        grids = self._grids
        return restore_nearest(labels, grids.model_affine, grids.target_affine, grids.target_shape, progress)


@dataclass(frozen=True, eq=False)
class _Line:
    """Input voxels along one model axis: which of them lie inside, and their two model voxels and weight.

    :param inside: indices of the input voxels whose nearest model voxel is in the crop.
    :param low: model voxel below, :param high: above, :param weight: of the upper one; one entry per inside voxel.
    """

    inside: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray

    @classmethod
    def at(cls, coordinates: np.ndarray, offset: int, size: int, flip: bool) -> _Line:
        """Place the crop's voxels offset .. offset + size of the whole grid; halves are inside as for ``nearest``."""
        nearest = np.rint(coordinates) - offset
        inside = np.flatnonzero((nearest >= 0) & (nearest < size))
        place = np.clip(coordinates[inside] - offset, 0.0, size - 1.0)
        place = size - 1.0 - place if flip else place
        low = np.floor(place).astype(np.intp)
        return cls(inside, low, np.ceil(place).astype(np.intp), (place - low).astype(np.float32))


def model_lines(grids: Grids) -> tuple[_Line, _Line, _Line]:
    """Return, for each axis of the model grid, the input voxels along it."""
    permutation, flips = ras_orientation(grids.target_affine)
    coordinates, offset = restoration_coordinates(
        grids.model_affine, grids.model_shape, grids.target_affine, grids.target_shape
    )
    sizes = zip(grids.model_shape, permutation, strict=True)
    return tuple(_Line.at(coordinates[axis], offset[axis], size, flips[axis]) for size, axis in sizes)


@dataclass(eq=False)
class _Plane:
    """One plane of the model grid: features [C, u, v], labels and masks [u, v]."""

    features: torch.Tensor
    labels: np.ndarray
    masks: list[np.ndarray]


@dataclass(eq=False)
class SmoothRestorer:
    """Winners of trilinearly interpolated scores, plane by plane of the input grid.

    Works on blocks as they stream by: from one block to the next it keeps a single plane of features.
    """

    scores: ClassScores
    grids: Grids
    _last: _Plane | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.map = LabelMap(self.scores, self.grids.model_shape)
        self._lines = model_lines(self.grids)
        permutation, _ = ras_orientation(self.grids.target_affine)
        shape = self.grids.target_shape
        self._labels = np.zeros(shape, dtype=np.uint16, order="F")
        self._masks = BitMasks(self.scores.overlapping, shape)
        # Views of the results in the order of the model's axes.
        self._label_view = self._labels.transpose(permutation)
        self._bit_views = [array.transpose(permutation) for array in self._masks.bytes]

    def take(self, block: Block, progress: Progress | None = None) -> None:
        """Label the block on the model grid, then every input plane between its planes."""
        self.map.take(block, progress)
        line = self._lines[block.axis]
        for number in np.flatnonzero((line.high >= block.start) & (line.high < block.stop)):
            Progress.of(progress).check()
            lower, upper = self._plane(block, line.low[number]), self._plane(block, line.high[number])
            self._restore_plane(block.axis, int(line.inside[number]), lower, upper, float(line.weight[number]))
        last = self._plane(block, block.stop - 1)
        self._last = _Plane(last.features.clone(), last.labels, last.masks)

    def result(self, progress: Progress) -> tuple[np.ndarray, BitMasks]:
        progress.update(1.0, STAGE)
        return self._labels, self._masks

    def _plane(self, block: Block, number: int) -> _Plane:
        if number < block.start:
            return self._last
        features = block.features.select(1 + block.axis, int(number) - block.start)
        return _Plane(features, *self.map.plane(block.axis, int(number)))

    def _restore_plane(self, axis: int, target: int, lower: _Plane, upper: _Plane, weight: float) -> None:
        rows, columns = (line for number, line in enumerate(self._lines) if number != axis)
        features = torch.lerp(lower.features, upper.features, weight)
        inside = np.ix_(rows.inside, columns.inside)
        corners = zip((lower.labels, *lower.masks), (upper.labels, *upper.masks), strict=True)
        for number, (below, above) in enumerate(corners):
            values, mixed = _agreeing_values(below, above, rows, columns)
            for part in _parts(mixed):
                labels, masks = classify_voxels(self.scores, _interpolated(features, rows, columns, part))
                values[part] = labels if number == 0 else masks[number - 1]
            if number == 0:
                np.moveaxis(self._label_view, axis, 0)[target][inside] = values
            else:
                array, bit = divmod(number - 1, 8)
                plane = np.moveaxis(self._bit_views[array], axis, 0)[target]
                plane[inside] = with_bit(plane[inside], bit, values)


def _agreeing_values(
    below: np.ndarray, above: np.ndarray, rows: _Line, columns: _Line
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the corners' common label per input voxel, and the voxels whose eight corners differ."""
    values = below[rows.low[:, None], columns.low]
    same = below == above
    for first, second in _neighbours(below):
        same[first] &= below[first] == below[second]
    for first, second in _neighbours(above):
        same[first] &= above[first] == above[second]
    return values, np.nonzero(~same[rows.low[:, None], columns.low])


def _neighbours(plane: np.ndarray) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Pairs of slices: every voxel and its next one along the first axis, the second, and both."""
    for row, column in ((1, 0), (0, 1), (1, 1)):
        height, width = plane.shape[0] - row, plane.shape[1] - column
        yield (slice(0, height), slice(0, width)), (slice(row, None), slice(column, None))


def _parts(voxels: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(voxels[0]), _VOXELS):
        yield tuple(indices[start : start + _VOXELS] for indices in voxels)


def _interpolated(
    features: torch.Tensor, rows: _Line, columns: _Line, voxels: tuple[np.ndarray, np.ndarray]
) -> torch.Tensor:
    """Interpolate a plane of features [C, u, v] bilinearly at input voxels; return [C, n]."""
    row, column = voxels
    flat, width = features.flatten(1), features.shape[2]

    def corner(row_index: np.ndarray, column_index: np.ndarray) -> torch.Tensor:
        return flat[:, torch.from_numpy(row_index[row] * width + column_index[column]).to(flat.device)]

    along_columns = torch.from_numpy(columns.weight[column]).to(flat.device)
    low = torch.lerp(corner(rows.low, columns.low), corner(rows.low, columns.high), along_columns)
    high = torch.lerp(corner(rows.high, columns.low), corner(rows.high, columns.high), along_columns)
    return torch.lerp(low, high, torch.from_numpy(rows.weight[row]).to(flat.device))


def nearest_restorer(scores: ClassScores, grids: Grids) -> Restorer:
    """Return what restores by nearest neighbour: on the device where the network runs on a GPU, else on the host."""
    lines = grids.nearest_lines if scores.device.type == "cuda" else None
    if lines is None:
        return NearestRestorer(scores, grids)
    return DeviceRestorer(scores, grids.model_shape, grids.target_affine, grids.target_shape, lines, scores.device)


RESTORERS: dict[str, Callable[[ClassScores, Grids], Restorer]] = {
    "nearest": nearest_restorer,
    "smooth": SmoothRestorer,
}
