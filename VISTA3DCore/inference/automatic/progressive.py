"""A result that grows: coarse labels first, then window by window, beginning near the slice that the user looks at.

The final result is bit-identical to that of the ordinary order, see :mod:`VISTA3DCore.inference.automatic.block_sums`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from VISTA3DCore.inference.automatic.block_sums import BlockSums
from VISTA3DCore.inference.automatic.feature_map import AutomaticBackend, Block, FeatureMap, FeaturePass
from VISTA3DCore.inference.automatic.labels import ClassScores, classify_voxels
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
