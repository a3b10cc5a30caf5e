"""How much memory the network takes, by arithmetic on its configuration."""

from __future__ import annotations

import math

import torch

from VISTA3DCore.network.config import ModelConfig

# Images of the finest level that exist at once, at most: the skip, a block's input, its two inner images, and what is
# left of the coarser levels, a quarter. The tests trace the network; without fused kernels it is one more.
IMAGES = 5
# What cuDNN may take to compute a convolution.
WORKSPACE = 256 << 20


def weight_bytes(config: ModelConfig, itemsize: int, clicks: bool = False) -> int:
    """Return the size of the convolution weights of the automatic branch, and of the click branch where asked for.

    :param itemsize: bytes of a weight.
    """
    widths = [config.width * 2**level for level in range(len(config.blocks_down))]
    encoder = 27 * config.width + sum(2 * 27 * w * w * n for w, n in zip(widths, config.blocks_down, strict=True))
    encoder += sum(27 * w * 2 * w for w in widths[:-1])
    decoder = sum(27 * 2 * w * w + 2 * 27 * w * w for w in widths[:-1]) + config.width**2
    class_head, click_head = 4 * 27 * config.width**2, 2 * 27 * config.click_features**2
    return itemsize * (encoder + decoder + class_head + (decoder + click_head) * clicks)


def activation_bytes(config: ModelConfig, itemsize: int, batch: int = 1) -> int:
    """Return what the images inside the network take at most while it works on a batch of windows.

    :param itemsize: bytes of a value.
    """
    return IMAGES * itemsize * config.width * math.prod(config.window) * batch


def device_budget(device: torch.device) -> int:
    """Return the bytes that this process may use on a CUDA device, those that it has already included."""
    index = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(index)
    allowed = int(torch.cuda.get_per_process_memory_fraction(index) * total)
    return min(free + torch.cuda.memory_reserved(index), allowed)
