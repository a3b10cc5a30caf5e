"""A result that grows: coarse labels first, then window by window, beginning near the slice that the user looks at.

The final result is bit-identical to that of the ordinary order. Sums of floating point numbers depend on their order,
so each block of planes adds its windows in the ordinary order, whatever order they run in: what a window adds to planes
where earlier windows are still missing waits until those have run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from VISTA3DCore.inference.automatic import ClassScores, classify_voxels
from VISTA3DCore.inference.feature_map import (
    AutomaticBackend,
    Block,
    FeatureMap,
    FeaturePass,
    normalised,
    zero_features,
)
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape, WindowLayout, crop_window
from VISTA3DCore.progress import Progress


@dataclass(frozen=True, eq=False)
class Watched:
    """How a run is watched.

    :param watch: is given each window's place in the volume and its features there, [C, x, y, z], before blending.
    :param plane: layers of windows near it run first, see :func:`outward`.
    """

    watch: Callable[[Box, torch.Tensor], None]
    plane: float | None = None


def outward(layout: WindowLayout, plane: float | None) -> list[int]:
    """Return the layers of windows in the order of their distance from a plane along the slab axis.

    :param plane: a voxel index of the volume along that axis; it may lie outside. None: the ordinary order.
    """
    if plane is None:
        return list(range(len(layout.layers)))
    axis = layout.slab_axis
    half = layout.window[axis] / 2
    centres = [start - layout.pad_before[axis] + half for start in layout.starts[axis]]
    return sorted(range(len(centres)), key=lambda layer: (abs(centres[layer] - 0.5 - plane), layer))


def waiting_bytes(layout: WindowLayout, channels: int) -> int:
    """Return how much may wait at a time when layers run outward: the shared planes of as many layers as overlap."""
    axis, side = layout.slab_axis, layout.window[layout.slab_axis]
    starts = layout.starts[axis]
    shared = [max(starts[layer - 1] + side - start, 0) for layer, start in enumerate(starts) if layer]
    overlapping = max(
        (sum(start < first + side for start in starts[n + 1 :]) for n, first in enumerate(starts)), default=0
    )
    most_windows = max(map(len, layout.layers))
    x, y, z = layout.window
    return most_windows * channels * 4 * (x * y * z // side) * max(shared, default=0) * overlapping


@dataclass(eq=False)
class BlockSums:
    """Sums of weighted window features, block by block (the planes between two starts of layers).

    Takes the place of :class:`VISTA3DCore.inference.feature_map.Slab` where layers run in another order.
    """

    layout: WindowLayout
    channels: int
    device: torch.device | str
    channels_last: bool = False
    _sums: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    _waiting: dict[tuple[int, int], list[tuple[Shape, torch.Tensor]]] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._weights = self.layout.weights(self.device)
        self._axis = self.layout.slab_axis
        self._starts = self.layout.starts[self._axis]
        self._side = self.layout.window[self._axis]

    def move(self, device: torch.device | str) -> None:
        """Continue on another device with everything summed so far."""
        self.device = device
        self._sums = {block: tuple(one.to(device) for one in pair) for block, pair in self._sums.items()}
        self._waiting = {key: [(at, part.to(device)) for at, part in parts] for key, parts in self._waiting.items()}
        self._weights = None if self._weights is None else self._weights.to(device)

    @torch.inference_mode()
    def add(self, start: Shape, features: torch.Tensor) -> None:
        """Add one window's features [C, w, w, w] (overwritten); ``start`` is its first voxel in the padded volume."""
        features = features.to(self.device)
        if self._weights is not None:
            features = features.float().mul_(self._weights)
        layer = self._starts.index(start[self._axis])
        ready = [block for block in self._blocks_of(layer) if self._is_next(layer, block)]
        late = [block for block in self._blocks_of(layer) if block not in ready]
        # What needs memory comes first: when it runs out, nothing has been added yet.
        for block in ready:
            self._allocate(block)
        copies = [self._part(start, block, features).clone() for block in late]
        for block in ready:
            self._add_part(block, start, self._part(start, block, features))
        for block, part in zip(late, copies, strict=True):
            self._waiting.setdefault((block, layer), []).append((start, part))

    def close(self, layer: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Say that all windows of a layer were added; yield each block that is complete, normalised.

        :return: the block's number and its planes, [C, x, y, z] of the padded volume.
        """
        self._done.add(layer)
        for block in self._blocks_of(layer):
            for earlier in self._layers_of(block):
                if earlier not in self._done:
                    break
                for start, part in self._waiting.pop((block, earlier), ()):
                    self._allocate(block)
                    self._add_part(block, start, part)
            else:
                self._allocate(block)
                yield block, normalised(*self._sums.pop(block), self.layout)

    def _blocks_of(self, layer: int) -> list[int]:
        """Return the blocks that a layer's windows reach."""
        end = self._starts[layer] + self._side
        return [block for block in range(layer, len(self._starts)) if self.layout.boundaries[block] < end]

    def _layers_of(self, block: int) -> list[int]:
        """Return the layers that reach a block."""
        first = self.layout.boundaries[block]
        return [layer for layer in range(block + 1) if self._starts[layer] + self._side > first]

    def _is_next(self, layer: int, block: int) -> bool:
        return all(earlier in self._done for earlier in self._layers_of(block) if earlier < layer)

    def _planes(self, start: Shape, block: int) -> tuple[int, int]:
        """Return the planes that a window and a block share."""
        first = start[self._axis]
        return max(first, self.layout.boundaries[block]), min(first + self._side, self.layout.boundaries[block + 1])

    def _part(self, start: Shape, block: int, values: torch.Tensor) -> torch.Tensor:
        """Return a view of the planes of a window's values [..., w, w, w] that lie in a block."""
        low, high = self._planes(start, block)
        return values.narrow(values.ndim - 3 + self._axis, low - start[self._axis], high - low)

    def _allocate(self, block: int) -> None:
        if block not in self._sums:
            shape = list(self.layout.padded_shape)
            shape[self._axis] = self.layout.boundaries[block + 1] - self.layout.boundaries[block]
            self._sums[block] = (
                zero_features(self.channels, shape, self.device, self.channels_last),
                torch.zeros(shape, device=self.device),
            )

    @torch.inference_mode()
    def _add_part(self, block: int, start: Shape, part: torch.Tensor) -> None:
        sums, total_weight = self._sums[block]
        place = list(start)
        place[self._axis] = self._planes(start, block)[0] - self.layout.boundaries[block]
        size = part.shape[1:]
        crop_window(sums, tuple(place), size).add_(part)
        weights = 1.0 if self._weights is None else self._part(start, block, self._weights)
        crop_window(total_weight, tuple(place), size).add_(weights)


class WatchedPass(FeaturePass):
    """As :class:`FeaturePass`, with the layers of windows in an order of their own and somebody who watches."""

    def __init__(
        self,
        backend: AutomaticBackend,
        image: torch.Tensor,
        layout: WindowLayout,
        device: torch.device | str | None,
        watched: Watched,
    ) -> None:
        super().__init__(backend, image, layout, device)
        self._watched = watched

    def _retain_in_place(self, progress: Progress) -> FeatureMap:
        return self._retain_copies(progress, torch.float32)

    def _blocks(self, depth: int, progress: Progress) -> Iterator[Block]:  # noqa: ARG002 - blocks have their own depth
        layout, done = self._layout, 0
        self._slab = BlockSums(layout, self._backend.config.width, self._sum_device, self._channels_last)
        for layer in outward(layout, self._watched.plane):
            for added in self._run_layer(layout.layers[layer], done, progress):
                done += added
            for block, planes in self._slab.close(layer):
                yield self._cropped(planes, layout.boundaries[block], layout.boundaries[block + 1])
        self._report(done, progress)

    def _features(self, windows: Sequence[Shape]) -> Sequence[torch.Tensor]:
        features = super()._features(windows)
        for window, one in zip(windows, features, strict=True):
            box, before = self._layout.box_of(window), self._layout.pad_before
            place = tuple(max(pad - first, 0) for pad, first in zip(before, window, strict=True))
            size = tuple(part.stop - part.start for part in box)
            self._watched.watch(box, crop_window(one, place, size).float())
        return features


@dataclass(eq=False)
class Preview:
    """Labels so far on the model grid.

    :param labels: uint16 [i, j, k], coarse ones at first; :param masks: bool, by index.
    """

    scores: ClassScores
    labels: np.ndarray
    masks: dict[int, np.ndarray]

    done: int = 0

    def paint(self, box: Box, features: torch.Tensor) -> None:
        """Replace the labels of a box by those of one window's features, [C, x, y, z]."""
        found, inside = classify_voxels(self.scores, features.flatten(1))
        self.labels[box] = found.reshape(features.shape[1:])
        for mask, voxels in zip(self.masks.values(), inside, strict=True):
            mask[box] = voxels.reshape(features.shape[1:])
        self.done += 1
