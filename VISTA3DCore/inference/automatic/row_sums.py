"""Sums of window features for large volumes: of one row of windows, and of the planes that two layers share.

A slab (:class:`~.feature_map.Slab`) is as wide as the volume and as thick as a window. The
windows of a layer run row by row, and once a row has run, nothing more is added to the voxels before the next one, save
where the next layer overlaps this one. So only the planes that layers share are kept as wide as the volume (*shared*);
of the planes behind them in a layer, the voxels under one row of windows (*under*). For 512 x 512 x 600 voxels of a
common CT these are 1.2 GB instead of 1.7, for 333 x 333 voxels in a plane of the model grid 1.5 instead of 2.7. The
sums are the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from VISTA3DCore.inference.automatic.feature_map import Block, FeaturePass, normalised, slab_bytes, zero_features
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape, WindowLayout, crop_window
from VISTA3DCore.progress import Progress

_WORTH = 0.85


@dataclass(frozen=True)
class Rows:
    """How a layer's windows lie in rows.

    :param axis: along which one row follows the other; the slowest in which windows run.
    :param starts: first voxel of each row; :param stops: where the voxels end to which no later row adds.
    :param shared: planes of a layer, the first ones, that are kept as wide as the volume: as many as layers share.
    """

    axis: int
    starts: tuple[int, ...]
    stops: tuple[int, ...]
    shared: int

    @classmethod
    def of(cls, layout: WindowLayout) -> Rows:
        axis = 0 if layout.slab_axis else 1
        starts, layers = layout.starts[axis], layout.starts[layout.slab_axis]
        side = layout.window[layout.slab_axis]
        shared = max((one + side - other for one, other in pairwise(layers)), default=0)
        return cls(axis, tuple(starts), (*starts[1:], layout.padded_shape[axis]), shared)

    def pieces(self, layout: WindowLayout) -> Iterator[Piece]:
        """Hand out the parts in which the padded volume's features come, in their order."""
        for layer, (first, last) in enumerate(pairwise(layout.boundaries)):
            for row in range(len(self.starts)):
                middle = min(first + self.shared, last)
                for start, stop in ((first, middle), (middle, last)):
                    if start < stop:
                        yield Piece(layer, row, start, stop)


@dataclass(frozen=True)
class Piece:
    """Finished planes [start, stop) of a layer, of the voxels that a row of windows leaves finished."""

    layer: int
    row: int
    start: int
    stop: int


def cuts_of(layout: WindowLayout) -> list[tuple[int, int, tuple[int, int, int]]]:
    """Return where features of a volume are cut: planes, and (axis, first row, behind the last), padding left out."""
    rows = Rows.of(layout)
    boxes = ((piece, _box(layout, rows, piece)) for piece in rows.pieces(layout))
    return [
        (
            box[layout.slab_axis].start,
            box[layout.slab_axis].stop,
            (rows.axis, box[rows.axis].start, box[rows.axis].stop),
        )
        for _, box in boxes
        if all(part.start < part.stop for part in box)
    ]


def _box(layout: WindowLayout, rows: Rows, piece: Piece) -> Box:
    """Return the voxels of a piece in the volume, padding left out."""
    whole = [(0, size) for size in layout.padded_shape]
    whole[rows.axis], whole[layout.slab_axis] = (
        (rows.starts[piece.row], rows.stops[piece.row]),
        (piece.start, piece.stop),
    )
    limits = zip(whole, layout.pad_before, layout.shape, strict=True)
    return tuple(slice(max(low - pad, 0), min(high - pad, size)) for (low, high), pad, size in limits)


def row_bytes(layout: WindowLayout, channels: int) -> int:
    """Return the size of the sums that are kept."""
    return 4 * channels * sum(math.prod(shape) for shape in _shapes(layout))


def streaming_bytes(layout: WindowLayout, channels: int) -> int:
    """Return the size of the sums of a streaming run, in the way that is taken."""
    return row_bytes(layout, channels) if saves(layout, channels) else slab_bytes(layout, channels)


def saves(layout: WindowLayout, channels: int) -> bool:
    """Return whether sums row by row take so much less memory than a slab that they are worth their copies.

    Not where the last layer, which ends with the volume, shares most of its planes with the one before.
    """
    return row_bytes(layout, channels) < _WORTH * slab_bytes(layout, channels)


def _shapes(layout: WindowLayout) -> tuple[Shape, Shape]:
    """Return the shapes of what is kept: *shared* and *under*."""
    axis, rows = layout.slab_axis, Rows.of(layout)
    shared, under = list(layout.padded_shape), list(layout.padded_shape)
    shared[axis], under[axis] = rows.shared, layout.window[axis] - rows.shared
    under[rows.axis] = layout.window[rows.axis]
    return tuple(shared), tuple(under)


class RowSums:
    """Sums of weighted window features under one row of windows of one layer, and where the layers overlap.

    :param channels_last: they lie in memory as the features do.
    """

    def __init__(
        self, layout: WindowLayout, channels: int, device: torch.device | str, channels_last: bool = False
    ) -> None:
        self._layout, self._axis, self._rows = layout, layout.slab_axis, Rows.of(layout)
        shapes = _shapes(layout)
        self._shared, self._under = (zero_features(channels, shape, device, channels_last) for shape in shapes)
        self._shared_weight, self._under_weight = (torch.zeros(shape, device=device) for shape in shapes)
        self._window_weights = layout.weights(device)
        self._row = 0

    def move(self, device: torch.device | str) -> None:
        """Continue on another device with everything summed so far."""
        names = ("_shared", "_under", "_shared_weight", "_under_weight", "_window_weights")
        self.__dict__.update({name: one.to(device) for name in names if (one := getattr(self, name)) is not None})

    @torch.inference_mode()
    def begin(self, row: int) -> None:
        """Go on to a row of windows: the one behind the last, or the first one of the next layer."""
        starts, side = self._rows.starts, self._layout.window[self._rows.axis]
        kept = 0 if row == 0 else starts[row - 1] + side - starts[row]
        self._row = row
        for under in (self._under.movedim(0, -1), self._under_weight):
            _move_down(under.movedim(self._rows.axis, 0), side - kept)
            under.narrow(self._rows.axis, kept, side - kept).zero_()

    @torch.inference_mode()
    def add(self, start: Shape, features: torch.Tensor) -> None:
        """Add one window's features [C, w, w, w] (overwritten); ``start`` is its first voxel in the padded volume."""
        features = features.to(self._under.device)
        weights = self._window_weights
        if weights is not None:
            features = features.float().mul_(weights)
        side, shared = self._layout.window[self._axis], self._rows.shared
        place = list(start)
        place[self._axis] = 0
        self._add(self._shared, self._shared_weight, place, features, 0, shared)
        place[self._rows.axis] = 0
        self._add(self._under, self._under_weight, place, features, shared, side - shared)

    def _add(
        self, sums: torch.Tensor, total: torch.Tensor, place: list[int], features: torch.Tensor, first: int, count: int
    ) -> None:
        """Add so many planes of a window, from ``first`` on."""
        part = features.narrow(1 + self._axis, first, count)
        crop_window(sums, tuple(place), part.shape[1:]).add_(part)
        weights = self._window_weights
        more = 1.0 if weights is None else weights.narrow(self._axis, first, count)
        crop_window(total, tuple(place), part.shape[1:]).add_(more)

    @torch.inference_mode()
    def finished(self, piece: Piece) -> torch.Tensor:
        """Return a piece of the row's finished features, [C, x, y, z] of the padded volume, normalised in place."""
        first = piece.start - self._layout.boundaries[piece.layer]
        in_shared = first < self._rows.shared
        sums, weight = (self._shared, self._shared_weight) if in_shared else (self._under, self._under_weight)
        start, stop = self._rows.starts[piece.row], self._rows.stops[piece.row]
        place = (start if in_shared else 0), stop - start
        planes = (first if in_shared else first - self._rows.shared), piece.stop - piece.start
        features, total = (
            one.narrow(one.ndim - 3 + self._rows.axis, *place).narrow(one.ndim - 3 + self._axis, *planes)
            for one in (sums, weight)
        )
        return normalised(features, total, self._layout)

    @torch.inference_mode()
    def settle(self, layer: int) -> None:
        """Keep what the next layer shares of the finished voxels; their finished planes are gone then."""
        first, last = self._layout.boundaries[layer : layer + 2]
        done, side, shared = last - first, self._layout.window[self._axis], self._rows.shared
        start, stop = self._rows.starts[self._row], self._rows.stops[self._row]
        pairs = ((self._shared.movedim(0, -1), self._under.movedim(0, -1)), (self._shared_weight, self._under_weight))
        for wide, under in pairs:
            kept = wide.narrow(self._rows.axis, start, stop - start).movedim(self._axis, 0)
            behind = under.narrow(self._rows.axis, 0, stop - start).movedim(self._axis, 0)
            _move_down(kept, min(done, shared))
            held = max(shared - done, 0)
            moved = behind[max(done - shared, 0) :]
            kept[held : held + side - max(done, shared)].copy_(moved)
            kept[side - done :].zero_()


def _move_down(planes: torch.Tensor, shift: int) -> None:
    """Move planes towards the front, one after the other, so that nothing is copied aside; the last ones stay."""
    for number in range(len(planes) - shift):
        planes[number].copy_(planes[number + shift])


class RowPass(FeaturePass):
    """As :class:`FeaturePass`, but streams parts of planes, row by row."""

    def _blocks(self, depth: int, progress: Progress) -> Iterator[Block]:  # noqa: ARG002 - rows have their own depth
        layout, rows, done = self._layout, Rows.of(self._layout), 0
        self._attempt(self._allocate_rows)
        for (number, row), pieces in groupby(rows.pieces(layout), lambda piece: (piece.layer, piece.row)):
            self._slab.begin(row)
            windows = [one for one in layout.layers[number] if one[rows.axis] == rows.starts[row]]
            for added in self._run_layer(windows, done, progress):
                done += added
            for piece in pieces:
                box = _box(layout, rows, piece)
                if all(part.start < part.stop for part in box):
                    yield self._unpadded(piece, box)
            self._slab.settle(number)
        self._report(done, progress)

    def _allocate_rows(self) -> None:
        self._slab = RowSums(self._layout, self._backend.config.width, self._sum_device, self._channels_last)

    def _unpadded(self, piece: Piece, box: Box) -> Block:
        layout, rows = self._layout, Rows.of(self._layout)
        origin = [0, 0, 0]
        origin[rows.axis], origin[layout.slab_axis] = rows.starts[piece.row], piece.start
        place = tuple(part.start + pad - first for part, pad, first in zip(box, layout.pad_before, origin, strict=True))
        features = crop_window(self._slab.finished(piece), place, tuple(part.stop - part.start for part in box))
        planes, lines = box[layout.slab_axis], box[rows.axis]
        return Block(layout.slab_axis, planes.start, planes.stop, features, (rows.axis, lines.start, lines.stop))
