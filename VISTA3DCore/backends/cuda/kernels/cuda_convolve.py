"""3 x 3 x 3 convolutions with as few channels as all weights and a few planes of the image have room on the chip.

That is the finest level of the network, with 48 channels half of all its work. The kernel (convolve.cu) normalises and
activates its input and takes the moments of its result in passing. On an H100 it takes less than half the time of what
it replaces: a pass that normalises, cuDNN's convolution, a pass that adds the residual, and one that takes moments.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from weakref import WeakKeyDictionary

import torch

from VISTA3DCore.backends.cuda.kernels.nvrtc import Kernel
from VISTA3DCore.backends.cuda.kernels.operations import Convolution, Entry, Moments
from VISTA3DCore.backends.cuda.kernels.triton_normalize import factors, measure

THREADS = 256
"""Of a block; also its voxels of a plane."""
_WARPS = THREADS // 32
_LINES = (32, 64, 128, 256)
"""Extents along z for which a warp's voxels are in one line, and a block's are whole lines."""
_CAPABILITY = (8, 0)
"""The first that multiplies these matrices."""


def suits(image: torch.Tensor, convolution: Convolution) -> bool:
    """Whether the kernel can convolve an image [B, C, x, y, z] where it is; if so, it is the fastest."""
    channels, (_, y, z) = image.shape[1], image.shape[2:]
    return (
        convolution.output_padding is None
        and convolution.bias is None
        and tuple(convolution.weight.shape) == (channels, channels, 3, 3, 3)
        and set(convolution.padding) == set(convolution.stride) == {1}
        and image.dtype in (torch.float16, torch.bfloat16)
        and image.is_contiguous(memory_format=torch.channels_last_3d)
        and channels % 16 == 0
        and z in _LINES
        and y % (THREADS // z) == 0
        and image.device.type == "cuda"
        and _has_room(image.device, shared_bytes(channels, z))
    )


@cache
def _has_room(device: torch.device, needed: int) -> bool:
    # The attribute is missing in some builds of torch.
    room = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 0)
    return needed <= room and torch.cuda.get_device_capability(device) >= _CAPABILITY


def shared_bytes(channels: int, z: int) -> int:
    """Return the shared memory of a block: the weights, two patches of planes, and the factors that normalise."""
    patch = 2 * channels * ((THREADS // z + 2) * (z + 1) + 1)
    return 2 * 27 * channels**2 + 2 * patch + 2 * 4 * channels


def convolve(
    image: torch.Tensor, convolution: Convolution, entry: Entry | None = None, after: torch.Tensor | None = None
) -> tuple[torch.Tensor, Moments]:
    """Return convolution(activation(norm(image))) + after, rounded once, and its moments.

    :param image: [B, C, x, y, z], one that suits. :param entry: normalisation and activation, or None for neither.
    :param after: a residual of the image's shape and layout, or None.
    """
    batch, channels, x, y, z = image.shape
    result = torch.empty_like(image)
    patches = y * z // THREADS
    steps = _steps(x, patches * batch, torch.cuda.get_device_properties(image.device).multi_processor_count)
    parts = patches * (x // steps) * _WARPS
    means, squares = torch.empty((2, batch, parts, channels), device=image.device).unbind()
    scale = shift = means
    if entry is not None:
        scale, shift = factors(entry.normalisation, entry.moments or measure(image), x * y * z)
    kernel = _kernel(channels, y, z, image.dtype == torch.bfloat16, image.device)
    kernel(
        (patches, x // steps, batch),
        image,
        _arranged(convolution),
        scale,
        shift,
        image if after is None else after,
        result,
        means,
        squares,
        x,
        steps,
        int(entry is not None),
        int(after is not None),
        1.0 if entry is None else float(entry.activation.slope),
    )
    return result, Moments(means, squares, 32 * steps)


def _steps(planes: int, patches: int, processors: int) -> int:
    """Return along how many planes a block marches: as many as keep all processors busy for the shortest time."""
    whole = [steps for steps in range(1, planes + 1) if planes % steps == 0]
    return min(whole, key=lambda steps: -(-patches * (planes // steps) // processors) * (steps + 2))


@cache
def _kernel(channels: int, y: int, z: int, bfloat16: bool, device: torch.device) -> Kernel:
    defines = [f"C={channels}", f"Y={y}", f"Z={z}"] + ["BFLOAT16"] * bfloat16
    with torch.cuda.device(device):
        return Kernel(source(), "convolve", defines, THREADS, shared_bytes(channels, z))


def source() -> str:
    """Return the kernel's program text."""
    return (files(__package__) / "convolve.cu").read_text(encoding="utf-8")


_ARRANGED: WeakKeyDictionary[Convolution, torch.Tensor] = WeakKeyDictionary()


def _arranged(convolution: Convolution) -> torch.Tensor:
    if convolution not in _ARRANGED:
        _ARRANGED[convolution] = arranged(convolution.weight)
    return _ARRANGED[convolution]


def arranged(weight: torch.Tensor) -> torch.Tensor:
    """Return weights [o, i, 3, 3, 3] in the order in which the kernel's threads read them.

    For each tap in y and z, 16 input channels, tap in x, and 16 output channels, each of 32 threads reads 8 weights:
    the second factor of mma.m16n8k16 for 8 output channels, and for the next 8.
    """
    blocks = len(weight) // 16
    rows = weight.permute(3, 4, 1, 2, 0).reshape(9, blocks, 2, 4, 2, 3, blocks, 2, 8)
    # tap, input block, half, thread in group, low; tap in x, output block, half, group
    return rows.permute(0, 1, 5, 6, 8, 3, 7, 2, 4).contiguous()
