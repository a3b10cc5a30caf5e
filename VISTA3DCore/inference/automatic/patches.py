"""Cutting windows out of the image where the network runs, so that no window is uploaded by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from VISTA3DCore.backends.devices import free_memory
from VISTA3DCore.backends.transfers import upload
from VISTA3DCore.inference.windows import Shape, WindowLayout, crop_window

# The whole image is uploaded while it takes at most this share of the free memory, else the slab under the windows.
IMAGE_SHARE = 1 / 8


class PatchSource:
    """Hands out windows of one padded image.

    :param image: [1, 1, x, y, z] of the padded volume, on the host or where the windows are wanted.
    :param device: where the windows are wanted.
    :param share: of the device's free memory that the whole image may take.
    """

    def __init__(
        self, image: torch.Tensor, layout: WindowLayout, device: torch.device, share: float = IMAGE_SHARE
    ) -> None:
        self._image, self._layout, self._device, self._share = image, layout, device, share
        self._axis = layout.slab_axis
        self._part: torch.Tensor | None = None
        self._first, self._whole = 0, False

    def batch(self, windows: Sequence[Shape]) -> torch.Tensor:
        """Return windows of one layer, [B, 1, w, w, w]; a single one is a view."""
        self._load(windows[0][self._axis])
        places = [
            tuple(start - self._first * (axis == self._axis) for axis, start in enumerate(window)) for window in windows
        ]
        patches = [crop_window(self._part, place, self._layout.window) for place in places]
        return patches[0] if len(patches) == 1 else torch.cat(patches)

    def move(self, device: torch.device) -> None:
        """Hand out windows on another device from now on."""
        self._device, self._part = device, None

    def _load(self, start: int) -> None:
        """Have the planes from ``start`` on, a window thick, on the device."""
        if self._part is None:
            there = self._image.device.type == self._device.type
            self._whole = there or self._image.nbytes <= self._share * free_memory(self._device)
        if self._part is not None and (self._whole or self._first == start):
            return
        self._part = None  # frees the last slab before the next one comes
        self._first = 0 if self._whole else start
        depth = self._image.shape[2 + self._axis] if self._whole else self._layout.window[self._axis]
        self._part = upload(self._image.narrow(2 + self._axis, self._first, depth), self._device)
