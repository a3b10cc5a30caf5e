"""How much memory the network takes, by arithmetic on its configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch

from VISTA3DCore.network.config import ModelConfig

Result = TypeVar("Result")

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


def device_budget(device: torch.device, weights: int) -> int:
    """Return the bytes of a CUDA device that a network and what goes with it may take.

    :param weights: bytes of the network's weights, which may be there already. What else is in use there (an image,
        retained features, kept clicks) is not to be had.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    free, total = torch.cuda.mem_get_info(index)
    allowed = int(torch.cuda.get_per_process_memory_fraction(index) * total)
    others = max(torch.cuda.memory_allocated(index) - weights, 0)
    return min(free + torch.cuda.memory_reserved(index), allowed) - others


_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
    "ALLOCATION_FAILED",
    # What a C++ library says, e.g. OpenVINO, with the words of each compiler.
    "bad_alloc",
    "bad allocation",
    # What cuDNN says when no algorithm finds room for its workspace.
    "unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device.

    Only torch's own allocator for CUDA has a class for it; the host's, MPS, CUDA and its libraries raise RuntimeError
    with such words.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def with_room(action: Callable[[], Result], otherwise: Callable[[], Result]) -> Result:
    """Run an action; if memory runs out, run the other one, which needs none there."""
    try:
        return action()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: the traceback would keep the failed attempt's tensors alive.
    return otherwise()


def empty_caches() -> None:
    """Give memory that torch keeps for later back to the devices, so that others may take it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
