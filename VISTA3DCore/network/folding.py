"""The last steps of the interactive head: normalise, activate, and one convolution C -> 1, on a processor quickly.

A convolution with one output channel is slow in every CPU library: as one matrix product (27 taps x C) followed by 27
shifted sums it takes a quarter of the time.
"""

from __future__ import annotations

import torch
from torch.nn.functional import batch_norm, conv3d, gelu, pad

_PLANES = 4
"""Planes that are processed at a time, so that what passes between the steps stays in the processor's cache."""
_VOXELS = 1 << 16
"""Voxels that are summed at a time, for the same reason."""


def folded_convolution(upscaled: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Convolve each of B images with its own kernel C -> 1, zeros outside.

    :param upscaled: [B, C, x, y, z].
    :param kernel: [B, C, 3, 3, 3].
    :param bias: [B].
    :return: [B, x, y, z].
    """
    if upscaled.device.type != "cpu":
        return conv3d(upscaled.reshape(1, -1, *upscaled.shape[2:]), kernel, bias, padding=1, groups=len(kernel))[0]
    taps = torch.bmm(kernel.flatten(2).transpose(1, 2), upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
    return _summed(taps, bias)


def _summed(taps: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the sums of the taps' images [B, 27, x, y, z], each moved to where a convolution would put it."""
    shifts = ((1 - x, 1 - y, 1 - z) for x in range(3) for y in range(3) for z in range(3))
    moved = (_shifted(tap, shift) for tap, shift in zip(taps.unbind(1), shifts, strict=True))
    return sum(moved, bias[:, None, None, None])


def _shifted(image: torch.Tensor, shift: tuple[int, int, int]) -> torch.Tensor:
    """Move an image [B, x, y, z] by -1, 0 or 1 voxels along each axis; zeros come in."""
    amounts = [amount for step in reversed(shift) for amount in (step, -step)]
    return pad(image, amounts) if any(shift) else image


def trained_tail(upscaled: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return what :func:`folded_tail` returns, for training on a processor.

    Every step sees the voxels as rows of one matrix, and so do the gradients: where images and gradients differ in
    memory layout, torch goes through them element by element, and a step backward takes four times as long.

    :param upscaled: [1, C, x, y, z] in channels-last memory.
    :param kernel: [1, C, 3, 3, 3].
    :param bias: [1].
    :return: [1, x, y, z].
    """
    rows = upscaled.permute(0, 2, 3, 4, 1).reshape(-1, upscaled.shape[1]).float()
    active = gelu(batch_norm(rows, None, None, training=True, eps=epsilon))
    taps = (active @ kernel[0].flatten(1)).T.contiguous()
    return _summed(taps.view(1, -1, *upscaled.shape[2:]), bias)


def folded_tail(upscaled: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return instance normalisation (not affine), GELU and :func:`folded_convolution` of one image, on the CPU.

    :param upscaled: [1, C, x, y, z] in channels-last memory, float32 or bfloat16; computed with in float32.
    :param kernel: [1, C, 3, 3, 3].
    :return: [1, x, y, z].
    """
    planes = upscaled.permute(0, 2, 3, 4, 1)[0]
    depth, height, width, channels = planes.shape
    scale, shift = _normalisation(planes.reshape(-1, channels), epsilon)
    taps = kernel[0].permute(1, 2, 3, 0).reshape(27, channels)
    result = bias.new_zeros(depth + 2, height + 2, width + 2)
    for start in range(0, depth, _PLANES):
        slab = planes[start : start + _PLANES].float()
        active = gelu(torch.addcmul(shift, slab.reshape(-1, channels), scale))
        _add_taps(result, (taps @ active.T).view(3, 3, 3, *slab.shape[:3]), start)
    return (result[1:-1, 1:-1, 1:-1] + bias)[None]


def _add_taps(result: torch.Tensor, taps: torch.Tensor, start: int) -> None:
    """Add each tap's image to the padded result where a convolution would put it."""
    count, height, width = taps.shape[3:]
    for x in range(3):
        for y in range(3):
            for z in range(3):
                place = result[start + 2 - x : start + 2 - x + count, 2 - y : 2 - y + height, 2 - z : 2 - z + width]
                place += taps[x, y, z]


def _normalisation(voxels: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift [C] that give each channel of the voxels [n, C] mean 0 and variance 1."""
    count, parts = len(voxels), voxels.split(_VOXELS)
    ones = torch.ones(1, _VOXELS)
    mean = torch.cat([ones[:, : len(part)] @ part.float() for part in parts]).sum(0) / count
    squares = torch.stack([(part - mean).square_().sum(0) for part in parts]).sum(0)
    scale = torch.rsqrt(squares / count + epsilon)
    return scale, -mean * scale
