"""What makes a training step cheaper without changing what it computes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import batch_norm


class SampleNorm3d(nn.InstanceNorm3d):
    """Instance normalization that is fast for one sample.

    torch reshapes [1, C, ...] and copies it to another memory layout; the statistics of a batch of one are the same
    numbers without either.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize [N, C, i, j, k]."""
        if x.shape[0] != 1 or self.track_running_stats:
            return super().forward(x)
        return batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


def accelerate(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network, on its device, with fast normalization and, on a processor, a fast memory layout."""
    for module in network.modules():
        if type(module) is nn.InstanceNorm3d:
            module.__class__ = SampleNorm3d
    if device.type == "cpu":
        network = network.to(memory_format=torch.channels_last_3d)
    return network.to(device)
