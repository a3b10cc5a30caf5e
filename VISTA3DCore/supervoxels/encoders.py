"""What supervoxels need of an image encoder, and which one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class SliceEncoder(Protocol):
    """Turns square slices into dense features.

    :ivar name: for people and the report.
    :ivar side: pixels of a side of the square that goes in.
    :ivar channels: features of each pixel.
    :ivar window_hu: HU that become 0 and 1; values outside are clipped.
    :ivar device: where slices are wanted.
    """

    name: str
    side: int
    channels: int
    window_hu: tuple[float, float]
    device: torch.device

    def features(self, slices: torch.Tensor) -> torch.Tensor:
        """Encode slices.

        :param slices: float32 [b, side, side], 0..1.
        :return: [b, channels, s, s]; pixel (0, 0) covers the same place as in the input, for any s.
        """
        ...
