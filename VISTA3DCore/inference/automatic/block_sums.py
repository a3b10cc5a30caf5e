"""Sums of window features whose layers run in any order, equal to the bit to those of the ordinary order.

Sums of floating point numbers depend on their order, so each block of planes (those between two starts of layers) adds
its windows in the ordinary order, whatever order they run in. Only the first planes of a block, its *head*, belong to
windows of earlier layers, too: what a window adds there waits until those have run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from VISTA3DCore.inference.automatic.feature_map import normalised, zero_features
from VISTA3DCore.inference.windows import Shape, WindowLayout, crop_window


@dataclass(eq=False)
class BlockSums:
    """Sums of weighted window features, block by block.

    Takes the place of :class:`~.feature_map.Slab` where layers run in another order. Of a
    block whose own layer has not run, there is only the head.
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

    @property
    def nbytes(self) -> int:
        """What the sums and all that waits take at this moment."""
        sums = sum(one.nbytes for pair in self._sums.values() for one in pair)
        return sums + sum(part.nbytes for parts in self._waiting.values() for _, part in parts)

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
        heads = [block for block in self._blocks_of(layer) if self._head(block)]
        ready = [block for block in heads if self._is_next(layer, block)]
        late = [block for block in heads if block not in ready]
        # What needs memory comes first: when it runs out, nothing has been added yet.
        self._allocate(layer)
        for block in ready:
            self._allocate_head(block)
        copies = [self._part(start, features, *self._head_of(start, block)).clone() for block in late]
        for block in ready:
            self._add(block, start, *self._head_of(start, block), features)
        self._add(layer, start, *self._own(layer), features)
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
                self._add_waiting(block, earlier)
            else:
                self._allocate(block)
                yield block, normalised(*self._sums.pop(block), self.layout)

    @torch.inference_mode()
    def _add_waiting(self, block: int, layer: int) -> None:
        parts = self._waiting.pop((block, layer), [])
        if parts:
            self._allocate_head(block)
        for start, part in parts:
            self._add_part(block, start, *self._head_of(start, block), part)

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

    def _size(self, block: int) -> int:
        return self.layout.boundaries[block + 1] - self.layout.boundaries[block]

    def _head(self, block: int) -> int:
        """Return how many planes of a block earlier layers reach."""
        reached = self._starts[block - 1] + self._side - self._starts[block] if block else 0
        return min(max(reached, 0), self._size(block))

    def _head_of(self, start: Shape, block: int) -> tuple[int, int]:
        """Return the planes of the padded volume that a window shares with a block's head."""
        first = self.layout.boundaries[block]
        return first, min(start[self._axis] + self._side, first + self._head(block))

    def _own(self, block: int) -> tuple[int, int]:
        """Return the planes of the padded volume that belong to windows of one layer only."""
        first = self.layout.boundaries[block]
        return first + self._head(block), first + self._size(block)

    def _part(self, start: Shape, values: torch.Tensor, low: int, high: int) -> torch.Tensor:
        """Return a view of the planes [low, high) of a window's values [..., w, w, w]."""
        return values.narrow(values.ndim - 3 + self._axis, low - start[self._axis], high - low)

    def _allocate(self, block: int) -> None:
        """Make room for the whole of a block, and take over the sums of its head."""
        size, head = self._size(block), self._sums.get(block)
        if head is not None and head[1].shape[self._axis] == size:
            return
        whole = self._zeros(size)
        for one, part in zip(whole, head or (), strict=False):
            one.narrow(one.ndim - 3 + self._axis, 0, part.shape[part.ndim - 3 + self._axis]).copy_(part)
        self._sums[block] = whole

    def _allocate_head(self, block: int) -> None:
        if block not in self._sums:
            self._sums[block] = self._zeros(self._head(block))

    def _zeros(self, planes: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = list(self.layout.padded_shape)
        shape[self._axis] = planes
        features = zero_features(self.channels, shape, self.device, self.channels_last)
        return features, torch.zeros(shape, device=self.device)

    def _add(self, block: int, start: Shape, low: int, high: int, features: torch.Tensor) -> None:
        self._add_part(block, start, low, high, self._part(start, features, low, high))

    def _add_part(self, block: int, start: Shape, low: int, high: int, part: torch.Tensor) -> None:
        """Add the planes [low, high) of a window to a block's sums."""
        place = list(start)
        place[self._axis] = low - self.layout.boundaries[block]
        weights = 1.0 if self._weights is None else self._part(start, self._weights, low, high)
        for sums, values in zip(self._sums[block], (part, weights), strict=True):
            crop_window(sums, tuple(place), part.shape[1:]).add_(values)


def growing_bytes(layout: WindowLayout, channels: int, order: Sequence[int]) -> int:
    """Return the most that the sums of a run take, with all that waits, when its layers run in an order.

    :param order: numbers of the layers, see :func:`VISTA3DCore.inference.automatic.progressive.outward`.
    """
    # Nothing is computed on this device, and without weights nothing needs to be.
    sums = BlockSums(replace(layout, preset=replace(layout.preset, blending="constant")), channels, "meta")
    window, most = torch.empty((channels, *layout.window), device="meta"), 0
    for layer in order:
        for start in layout.layers[layer]:
            sums.add(start, window)
            most = max(most, sums.nbytes)
        for _, block in sums.close(layer):
            most = max(most, sums.nbytes + block.nbytes)
    return most
