"""Features of the runs so far: retained while they fit into memory, else computed as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from VISTA3DCore.backends.devices import free_memory
from VISTA3DCore.inference.automatic.block_sums import growing_bytes
from VISTA3DCore.inference.automatic.device_memory import sums_fit
from VISTA3DCore.inference.automatic.feature_map import (
    AutomaticBackend,
    Block,
    FeatureMap,
    FeaturePass,
    map_bytes,
    slab_bytes,
)
from VISTA3DCore.inference.automatic.progressive import Watched, WatchedPass, outward
from VISTA3DCore.inference.automatic.row_sums import RowPass, cuts_of, saves, streaming_bytes
from VISTA3DCore.inference.preprocessing import Box, ModelGrid
from VISTA3DCore.inference.windows import WindowLayout
from VISTA3DCore.progress import Progress

# A feature map is retained while all retained maps of a session take at most this share of the free memory.
RETAINED_SHARE = 0.25


class FeatureStore:
    """The features of one volume, by box and windows.

    :param grid: what the network sees of the volume.
    :param dtype: in which features are retained.
    """

    def __init__(self, backend: AutomaticBackend, grid: ModelGrid, dtype: torch.dtype) -> None:
        self._backend, self._grid, self._dtype = backend, grid, dtype
        self._features: dict[tuple, FeatureMap] = {}

    def clear(self) -> None:
        """Forget all features; they are computed anew when they are needed, with the same result."""
        self._features.clear()

    def has(self, box: Box, layout: WindowLayout) -> bool:
        """Return whether the features of a box are retained."""
        return _key(box, layout) in self._features

    def blocks(
        self,
        box: Box,
        layout: WindowLayout,
        streaming: bool | None,
        progress: Progress,
        watched: Watched | None = None,
        whole_planes: bool = True,
    ) -> Iterator[Block]:
        """Hand out the features of a box of the model grid: retained ones, or those of a network pass.

        :param layout: the windows of the box.
        :param streaming: True never retains, False always does, None does if they fit.
        :param watched: in which order layers run, and who watches; blocks then come in another order, too.
        :param whole_planes: False allows parts of planes, of which a streaming run keeps less in memory.
        """
        key = _key(box, layout)
        # The same cuts whether retained or not, because matrix products of other shapes may round differently.
        in_rows = not whole_planes and watched is None and self._in_rows(layout)
        if key not in self._features:
            retained = self._retains(layout, streaming)
            size = map_bytes if retained else streaming_bytes if in_rows else slab_bytes
            run = self._pass(box, layout, size, watched, RowPass if in_rows and not retained else FeaturePass)
            if not retained:
                yield from run.stream(progress, self._dtype)
                return
            self._keep(key, run.retain(progress.part(0.0, 0.9), self._dtype))
            progress = progress.part(0.9, 1.0)
        features = self._features[key]
        for block in features.blocks(cuts_of(layout) if in_rows else None):
            progress.update(block.start / features.boundaries[-1], "Labeling")
            yield block

    def _pass(
        self,
        box: Box,
        layout: WindowLayout,
        size_of_sums: Callable[[WindowLayout, int], int],
        watched: Watched | None,
        kind: type[FeaturePass],
    ) -> FeaturePass:
        image = self._grid.crop(box).tensor[None, None]
        if watched is not None:
            return self._watched_pass(image, layout, watched)
        fits = sums_fit(self._backend, layout, size_of_sums(layout, self._backend.config.width))
        return kind(self._backend, image, layout, self._backend.device if fits else "cpu")

    def _watched_pass(self, image: torch.Tensor, layout: WindowLayout, watched: Watched) -> WatchedPass:
        """Keep the order that is asked for while there is room for all that waits in it; else take the ordinary one."""
        for plane in (watched.plane, None):
            watched = replace(watched, plane=plane)
            size = growing_bytes(layout, self._backend.config.width, outward(layout, plane))
            if sums_fit(self._backend, layout, size):
                return WatchedPass(self._backend, image, layout, self._backend.device, watched)
        return WatchedPass(self._backend, image, layout, "cpu", watched)

    def _in_rows(self, layout: WindowLayout) -> bool:
        """Return whether sums are kept row by row; on a GPU only where a slab, which is faster, has no room."""
        channels = self._backend.config.width
        there = self._backend.device.type == "cuda" and sums_fit(self._backend, layout, slab_bytes(layout, channels))
        return saves(layout, channels) and not there

    def _retains(self, layout: WindowLayout, streaming: bool | None) -> bool:
        if streaming is not None:
            return not streaming
        size = map_bytes(layout, self._backend.config.width, self._dtype)
        return size <= RETAINED_SHARE * (free_memory(torch.device("cpu")) + self._present)

    def _keep(self, key: tuple, features: FeatureMap) -> None:
        """Retain a map; if the maps together exceed the budget, only this one."""
        present = self._present
        if present and present + features.nbytes > RETAINED_SHARE * (free_memory(torch.device("cpu")) + present):
            self._features.clear()
        self._features[key] = features

    @property
    def _present(self) -> int:
        return sum(features.nbytes for features in self._features.values())


def _key(box: Box, layout: WindowLayout) -> tuple:
    return tuple((axis.start, axis.stop) for axis in box), layout
