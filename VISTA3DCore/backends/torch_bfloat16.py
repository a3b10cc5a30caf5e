"""PyTorch on a processor with bfloat16 instructions: convolutions in half the bits, channels last in memory.

Statistics of the instance normalisations stay in float32, and so does the interactive head but for its transposed
convolution.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import group_norm

from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.network.config import ModelConfig

if TYPE_CHECKING:
    from VISTA3DCore.backends.selection import NetworkSource


class BFloat16Backend(TorchBackend):
    """As :class:`TorchBackend`, with encoder, decoders and the class head's convolutions in bfloat16; on the CPU.

    :param network: a network, which stays as it is, or a function that loads one, which is then changed in place.
    """

    precision = "bfloat16"

    def __init__(self, network: NetworkSource, config: ModelConfig) -> None:
        own = copy.deepcopy(network) if isinstance(network, nn.Module) else network()
        to_bfloat16(own.image_encoder)
        to_bfloat16(own.class_head.image_post_mapping)
        super().__init__(own, config, upscaling=torch.bfloat16)

    def on(self, device: torch.device | str) -> TorchBackend:
        """Return this backend: it runs on processors alone, and nothing has less than it to fall back on.

        :raises ValueError: for another kind of device.
        """
        if torch.device(device).type != "cpu":
            raise ValueError(f"This runtime is for processors, not for '{device}'.")
        return self

    @torch.inference_mode()
    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        """As :meth:`TorchBackend.automatic_features`."""
        decoded = self._network.image_encoder(_low(patch), with_point=False, with_label=True)[1]
        return self._network.class_head.image_post_mapping(decoded)[0].float().contiguous()

    @torch.inference_mode()
    def click_features(self, patch: torch.Tensor) -> torch.Tensor:
        """As :meth:`TorchBackend.click_features`."""
        decoded = self._network.image_encoder(_low(patch), with_point=True, with_label=False)[0]
        return self._click_head.features(decoded.float())[0]


class _ChannelsLastNorm(nn.Module):
    """An instance normalisation that leaves channels last: one group a channel, with statistics in float32."""

    def __init__(self, norm: nn.InstanceNorm3d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return group_norm(image, image.shape[1], self.weight, self.bias, self.eps)


def to_bfloat16(module: nn.Module) -> None:
    """Change a module's convolutions to bfloat16, channels last, and its instance normalisations to fit; in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.InstanceNorm3d):
            setattr(module, name, _ChannelsLastNorm(child))
        elif isinstance(child, nn.Conv3d | nn.ConvTranspose3d):
            child.to(dtype=torch.bfloat16, memory_format=torch.channels_last_3d)
        else:
            to_bfloat16(child)


def _low(patch: torch.Tensor) -> torch.Tensor:
    return patch.to("cpu", torch.bfloat16, memory_format=torch.channels_last_3d)
