"""The sliding window over features: what the network sees of a volume, blended into one map.

The class head is linear after its last convolution: score(c) = e_c . F. So windows are blended as C features (48),
never as class logits (117 and more), and any class is a dot product later. The map has two lives that give
bit-identical features: *streaming*, a slab of one window's thickness whose planes are handed out as soon as no later
window touches them and then dropped, so that memory does not depend on the volume's length; and *retained*, the whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, TypeVar, runtime_checkable

import torch

from VISTA3DCore.backends.memory import empty_caches, is_out_of_memory
from VISTA3DCore.errors import NotEnoughMemoryError, SlowerWarning
from VISTA3DCore.inference.automatic.patches import PatchSource
from VISTA3DCore.inference.windows import Shape, WindowLayout, crop_window
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

STAGE = "Segmenting"
# Less than any weight (at least 1e-3, see windows.py), more than none.
_TINY = 1e-6

Result = TypeVar("Result")


class AutomaticBackend(Protocol):
    """What the sliding window needs of a runtime."""

    config: ModelConfig
    device: torch.device

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        """[1, 1, w, w, w] -> [C, w, w, w], float32."""

    def class_matrix(self, indices: Sequence[int]) -> torch.Tensor:
        """K class indices -> [K, C], float32."""

    def on(self, device: torch.device | str) -> AutomaticBackend:
        """Return the same network on another device."""


@runtime_checkable
class BatchingBackend(AutomaticBackend, Protocol):
    """A runtime that computes several windows at once.

    :param batch: how many; it may become smaller.
    :param channels_last: how features lie in memory.
    """

    batch: int
    channels_last: bool

    def automatic_features_batch(self, patches: torch.Tensor) -> torch.Tensor:
        """[B, 1, w, w, w] -> [B, C, w, w, w], any float type, valid until the next call."""

    def shrink(self) -> bool:
        """Halve the batch; return False if it is one window already."""


@dataclass(frozen=True)
class Block:
    """Finished planes of the feature map, or a part of them.

    :param axis: the axis along which the volume is cut into blocks.
    :param start: first plane, a voxel index of the volume; :param stop: behind the last.
    :param features: [C, x, y, z], float32; a view that is valid until the next block is asked for.
    :param rows: another axis, the first row along it, and behind the last; None for whole planes.
    """

    axis: int
    start: int
    stop: int
    features: torch.Tensor
    rows: tuple[int, int, int] | None = None

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The voxels of the volume that it holds."""
        place = [slice(None)] * 3
        place[self.axis] = slice(self.start, self.stop)
        if self.rows is not None:
            axis, start, stop = self.rows
            place[axis] = slice(start, stop)
        return tuple(place)


@dataclass(frozen=True)
class FeatureMap:
    """The retained life.

    :param features: [C, x, y, z] of the volume, float32 or float16.
    :param boundaries: where the blocks begin and end along ``axis``; the same cuts as in the streaming life, because
        matrix products of other shapes may round differently.
    """

    features: torch.Tensor
    axis: int
    boundaries: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.features.numel() * self.features.element_size()

    def blocks(self, cuts: Iterable[tuple[int, int, tuple[int, int, int]]] | None = None) -> Iterator[Block]:
        """Hand out the map as the streaming life does.

        :param cuts: the planes and rows of each block; None: whole planes.
        """
        for start, stop, rows in cuts or ((*planes, None) for planes in pairwise(self.boundaries)):
            part = self.features.narrow(1 + self.axis, start, stop - start)
            if rows is not None:
                part = part.narrow(1 + rows[0], rows[1], rows[2] - rows[1])
            yield Block(self.axis, start, stop, part.float(), rows)


def map_bytes(layout: WindowLayout, channels: int, dtype: torch.dtype = torch.float32) -> int:
    """Return the size of a retained map."""
    x, y, z = layout.padded_shape
    return channels * x * y * z * dtype.itemsize


def slab_bytes(layout: WindowLayout, channels: int) -> int:
    """Return the size of the streaming slab."""
    axis = layout.slab_axis
    return map_bytes(layout, channels) // layout.padded_shape[axis] * layout.window[axis]


def zero_features(
    channels: int,
    shape: Sequence[int],
    device: torch.device | str,
    channels_last: bool,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return zeros [C, x, y, z] that lie in memory as a runtime's features do."""
    if channels_last:
        return torch.zeros((*shape, channels), device=device, dtype=dtype).movedim(-1, 0)
    return torch.zeros((channels, *shape), device=device, dtype=dtype)


@torch.inference_mode()
def normalised(sums: torch.Tensor, weight: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """Divide sums of features [C, x, y, z] by their weight [x, y, z], in place, and return them.

    Where no window ran, features are zero, and so is every score: background.
    """
    return sums.div_(weight.clamp(min=_TINY) if layout.skipped else weight)


class Slab:
    """Sums of weighted window features over the planes [first, first + depth) of the padded volume.

    :param channels_last: they lie in memory as the features do, or every addition would stride through it.
    """

    def __init__(
        self,
        layout: WindowLayout,
        channels: int,
        depth: int,
        device: torch.device | str,
        channels_last: bool = False,
    ) -> None:
        shape = list(layout.padded_shape)
        shape[layout.slab_axis] = depth
        self._layout, self._axis, self._first = layout, layout.slab_axis, 0
        self.sums = zero_features(channels, shape, device, channels_last)
        self.total_weight = torch.zeros(shape, device=device)
        self._window_weights = layout.weights(device)

    @property
    def device(self) -> torch.device:
        return self.sums.device

    def move(self, device: torch.device | str) -> None:
        """Continue on another device with everything summed so far."""
        self.sums = self.sums.to(device)
        self.total_weight = self.total_weight.to(device)
        if self._window_weights is not None:
            self._window_weights = self._window_weights.to(device)

    @torch.inference_mode()
    def add(self, start: Shape, features: torch.Tensor) -> None:
        """Add one window's features [C, w, w, w] (overwritten); ``start`` is its first voxel in the padded volume."""
        features = features.to(self.device)
        place = tuple(first - self._first * (axis == self._axis) for axis, first in enumerate(start))
        weights = self._window_weights
        if weights is not None:
            features = features.float().mul_(weights)
        crop_window(self.sums, place, self._layout.window).add_(features)
        crop_window(self.total_weight, place, self._layout.window).add_(1.0 if weights is None else weights)

    @torch.inference_mode()
    def finish(self, start: int, stop: int) -> torch.Tensor:
        """Normalise the planes [start, stop) in place and return them, [C, x, y, z] of the padded volume."""
        planes = self.sums.narrow(1 + self._axis, start - self._first, stop - start)
        return normalised(planes, self.total_weight.narrow(self._axis, start - self._first, stop - start), self._layout)

    def advance(self, first: int) -> None:
        """Drop the planes before ``first``."""
        shift = first - self._first
        for volume in (self.sums.movedim(0, -1), self.total_weight):
            planes = volume.movedim(self._axis, 0)
            kept = len(planes) - shift
            for number in range(kept):  # one after the other: nothing is copied aside
                planes[number].copy_(planes[number + shift])
            planes[kept:].zero_()
        self._first = first


class FeaturePass:
    """Runs the network over all windows of one volume.

    When memory runs out the work goes on where it stands, one step down: first the sums move to the host's memory,
    then the network moves to the CPU.

    :param image: [1, 1, x, y, z], float32, intensities scaled to [0, 1].
    :param layout: its windows.
    :param device: where features are summed; the backend's device where None.
    """

    def __init__(
        self,
        backend: AutomaticBackend,
        image: torch.Tensor,
        layout: WindowLayout,
        device: torch.device | str | None = None,
    ) -> None:
        self._backend, self._layout = backend, layout
        self._patches = PatchSource(layout.pad(image), layout, backend.device)
        self._sum_device = torch.device(device or backend.device)
        self._slab: Slab | None = None
        # Not bound methods: they would tie this object to itself, and its sums would outlive the run.
        self._steps_down = [type(self)._sum_on_host, type(self)._run_on_cpu]

    @property
    def _channels_last(self) -> bool:
        return getattr(self._backend, "channels_last", False)

    def stream(self, progress: Progress, dtype: torch.dtype = torch.float32) -> Iterator[Block]:
        """Yield the finished planes block by block; each block is gone when the next one is asked for.

        :param dtype: ``float16`` rounds the features as retaining them in this type would.
        """
        for block in self._blocks(self._layout.window[self._layout.slab_axis], progress):
            yield block if dtype == torch.float32 else replace(block, features=block.features.to(dtype).float())

    def retain(self, progress: Progress, dtype: torch.dtype = torch.float32) -> FeatureMap:
        """Return the whole map.

        :param dtype: ``float16`` halves the memory; sums are float32 all the same.
        """
        if dtype == torch.float32:
            return self._retain_in_place(progress)
        return self._retain_copies(progress, dtype)

    def _retain_copies(self, progress: Progress, dtype: torch.dtype) -> FeatureMap:
        axis, width, features, boundaries = self._layout.slab_axis, self._backend.config.width, None, [0]
        for block in self.stream(progress):
            if features is None:
                features = zero_features(width, self._layout.shape, block.features.device, self._channels_last, dtype)
            features.narrow(1 + axis, block.start, block.stop - block.start).copy_(block.features)
            boundaries.append(block.stop)
        return FeatureMap(features, axis, tuple(sorted(boundaries)))

    def _retain_in_place(self, progress: Progress) -> FeatureMap:
        axis = self._layout.slab_axis
        stops = [block.stop for block in self._blocks(self._layout.padded_shape[axis], progress)]
        features = crop_window(self._slab.sums, self._layout.pad_before, self._layout.shape)
        return FeatureMap(features, axis, (0, *stops))

    def _blocks(self, depth: int, progress: Progress) -> Iterator[Block]:
        layout, done = self._layout, 0
        self._attempt(lambda: self._allocate(depth))
        rolling = depth < layout.padded_shape[layout.slab_axis]
        for layer, (start, stop) in zip(layout.layers, pairwise(layout.boundaries), strict=True):
            if rolling and start:
                self._slab.advance(start)
            for added in self._run_layer(layer, done, progress):
                done += added
            yield self._cropped(self._slab.finish(start, stop), start, stop)
        self._report(done, progress)

    def _run_layer(self, layer: Sequence[Shape], done: int, progress: Progress) -> Iterator[int]:
        """Run a layer's windows; yield how many were added each time.

        :param done: windows that ran before.
        """
        waiting = list(layer)
        while waiting:
            self._report(done + len(layer) - len(waiting), progress)
            left = len(waiting)
            self._attempt(lambda: self._add(waiting))
            yield left - len(waiting)

    def _report(self, done: int, progress: Progress) -> None:
        total = len(self._layout.windows)
        progress.update(done / total, STAGE, f"{done} of {total} windows")

    def _add(self, waiting: list[Shape]) -> None:
        """Run the next windows of a layer, and take each off the list once it is added."""
        size = getattr(self._backend, "batch", 1)
        # What is left of a layer runs one by one: a runtime then prepares for two sizes of batches, not for all.
        windows = waiting[: size if len(waiting) >= size else 1]
        for window, features in zip(windows, self._features(windows), strict=True):
            self._slab.add(window, features)
            waiting.remove(window)

    def _features(self, windows: Sequence[Shape]) -> Sequence[torch.Tensor]:
        patches = self._patches.batch(windows)
        if isinstance(self._backend, BatchingBackend):
            return self._backend.automatic_features_batch(patches)
        return [self._backend.automatic_features(patches)]

    def _allocate(self, depth: int) -> None:
        self._slab = Slab(self._layout, self._backend.config.width, depth, self._sum_device, self._channels_last)

    def _cropped(self, planes: torch.Tensor, start: int, stop: int) -> Block:
        """Remove the padding; a padded axis has one layer only, so its block holds the whole of it."""
        layout, axis = self._layout, self._layout.slab_axis
        place, shape = list(layout.pad_before), list(layout.shape)
        if layout.padded_shape[axis] == layout.shape[axis]:
            shape[axis] = stop - start
        else:
            start, stop = 0, layout.shape[axis]
        return Block(axis, start, stop, crop_window(planes, tuple(place), tuple(shape)))

    def _attempt(self, action: Callable[[], Result]) -> Result:
        """Run an action; when memory runs out, step down and run it again."""
        while True:
            try:
                return action()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            # Outside the handler: the traceback would keep the failed attempt's tensors alive.
            self._step_down(message)

    def _step_down(self, message: str) -> None:
        if getattr(self._backend, "shrink", bool)():
            empty_caches()
            return
        if not self._steps_down:
            raise NotEnoughMemoryError(
                f"There is not enough memory for one window of this model ({message.splitlines()[0]}); close other "
                "programs or use a smaller model."
            )
        self._steps_down.pop(0)(self)
        empty_caches()

    def _sum_on_host(self) -> None:
        self._sum_device = torch.device("cpu")
        if self._slab is not None:
            self._slab.move("cpu")

    def _run_on_cpu(self) -> None:
        warn_of_the_cpu()
        there, self._backend = self._backend, self._backend.on("cpu")
        getattr(there, "forget", bool)()
        self._patches.move(torch.device("cpu"))


def warn_of_the_cpu() -> None:
    """Tell the user why everything takes longer from here on."""
    sentence = "The GPU ran out of memory; the work continues on the processor, more slowly."
    warnings.warn(sentence, SlowerWarning, stacklevel=2)
