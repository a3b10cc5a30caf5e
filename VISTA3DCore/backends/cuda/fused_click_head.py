"""The interactive head on a GPU: attention in float32, upscaling fused and in the backend's precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from VISTA3DCore.backends.cuda.fused_network import Rebuilder
from VISTA3DCore.backends.cuda.kernels.operations import GELU
from VISTA3DCore.network.click_head import ClickHead, ClickTokens, ImageSide, among_themselves
from VISTA3DCore.network.whole_attention import two_way_at_once

PLACES = (1, 2, 4, 8, 16, 32)
"""Numbers of clicks for which there is a graph; fewer clicks leave places empty, more get a number of their own."""


@dataclass(frozen=True)
class PlacedTokens:
    """The clicks in a window, and empty places that no click looks at.

    :param coordinates: [1, N, 3]; :param labels: [1, N]; :param empty: [1, N] bool; :param zero_shot: [1].
    """

    coordinates: torch.Tensor
    labels: torch.Tensor
    empty: torch.Tensor
    zero_shot: torch.Tensor

    @classmethod
    def of(cls, tokens: ClickTokens, device: torch.device) -> PlacedTokens:
        """Fill up to the next number of places."""
        coordinates, labels, zero_shot = tokens.tensors()
        count = labels.shape[1]
        missing = next((places for places in PLACES if places >= count), count) - count
        empty = torch.arange(count + missing)[None] >= count
        parts = functional.pad(coordinates, (0, 0, 0, missing)), functional.pad(labels, (0, missing)), empty, zero_shot
        return cls(*(part.to(device, non_blocking=True) for part in parts))


class FusedClickHead(ClickHead):
    """Runs the interactive head for one object at a time.

    Attention stays in float32: its weights over a quarter of a million tokens are smaller than float16 resolves.

    :param head: a MONAI ``PointMappingSAM`` on the device, float32.
    :param rebuild: rebuilds its convolutions.
    :param dtype: of the upscaling; :param memory_format: of its images.
    """

    def __init__(
        self, head: nn.Module, rebuild: Rebuilder, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> None:
        super().__init__(head)
        transposed, norm, _, _ = head.output_upscaling
        self._kernels = rebuild.kernels
        self._upscale, self._norm = rebuild.convolution(transposed), rebuild.normalisation(norm)
        self._dtype, self._format = dtype, memory_format

    def image_side(self, features: torch.Tensor) -> ImageSide:
        return ImageSide(features.flatten(2).transpose(1, 2).contiguous(), tuple(features.shape[2:]), None)

    def _transform(
        self, side: ImageSide, prompts: torch.Tensor, blind: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        place = self._position_grid(side.shape, prompts.device)
        unseen = None if blind is None else blind[0, 0, 0]

        def among(layer: nn.Module, tokens: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
            return among_themselves(layer, tokens[None], prompts[None], blind)[0]

        transformer, rows = self._head.transformer, self._kernels.normalise_rows
        tokens, image = two_way_at_once(transformer, side.tokens[0], place[0], prompts[0], unseen, among, rows)
        return tokens[None], image[None]

    def _mask(self, image: torch.Tensor, hyper: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        last = self._head.output_upscaling[-1]
        kernel, bias = torch.einsum("bo,oixyz->bixyz", hyper, last.weight), hyper @ last.bias
        low = image.view(len(image), *shape, -1).permute(0, 4, 1, 2, 3)
        upscaled = self._upscale(low.to(self._dtype).contiguous(memory_format=self._format))
        moments = self._kernels.measure(upscaled)
        return self._kernels.collapse(upscaled, kernel.to(self._dtype), self._norm, GELU, moments)[None] + bias
