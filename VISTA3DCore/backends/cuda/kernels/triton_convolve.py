"""3 x 3 x 3 convolutions of few channels, in half precision and channels-last, with the moments of what they give.

cuDNN is fastest with many channels. With 1 to 96 of them a matrix product that gathers its rows from the image takes
half to five sixths of cuDNN's time on an H100, and the pass that takes the moments is saved.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl

from VISTA3DCore.backends.cuda.kernels.operations import Convolution, Moments

_ROWS = 128
"""Voxels of a tile."""
_DEEP = 64
"""Taps times channels that are multiplied at once; four times as many values of both factors wait in shared memory."""
_MOST_CHANNELS = 96
_FEWEST_VOXELS = 1 << 15
"""Below, there are too few tiles for a large device, and cuDNN splits the sum instead."""
_CAPABILITY = (9, 0)
"""On older devices nobody has measured it yet."""


@triton.jit
def _gather(
    image,
    weight,
    after,
    result,
    means,
    squares,
    planes,
    Y: tl.constexpr,
    Z: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    DEEP: tl.constexpr,
    WIDE: tl.constexpr,
    ADD: tl.constexpr,
):
    """Compute one tile of the result; planes, Y and Z are its extents."""
    tile, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    flat = tile * ROWS + tl.arange(0, ROWS)
    x, y, z = flat // (Y * Z) * STRIDE, flat // Z % Y * STRIDE, flat % Z * STRIDE
    # Bit t: tap t lies inside the image.
    inside = tl.zeros((ROWS,), dtype=tl.int32)
    for bit in tl.static_range(27):
        tap_x, tap_y, tap_z = x + (bit // 9 - 1), y + (bit // 3 % 3 - 1), z + (bit % 3 - 1)
        good = (tap_x >= 0) & (tap_x < planes * STRIDE) & (tap_y >= 0) & (tap_y < Y * STRIDE)
        inside |= tl.where(good & (tap_z >= 0) & (tap_z < Z * STRIDE), 1 << bit, 0)
    columns = tl.arange(0, WIDE)
    known = columns < COLUMNS
    volume = batch * planes * (Y * Z)
    rows = (
        image + volume * (STRIDE * STRIDE * STRIDE * CHANNELS) + ((x * (Y * STRIDE) + y) * (Z * STRIDE) + z) * CHANNELS
    )
    value = tl.zeros((ROWS, WIDE), dtype=tl.float32)
    for start in range(0, 27 * CHANNELS, DEEP):
        deep = start + tl.arange(0, DEEP)
        tap, channel = deep // CHANNELS, deep % CHANNELS
        away = ((tap // 9 - 1) * (Y * STRIDE) + (tap // 3 % 3 - 1)) * (Z * STRIDE) + (tap % 3 - 1)
        seen = (((inside[:, None] >> tap[None, :]) & 1) != 0) & (deep < 27 * CHANNELS)[None, :]
        part = tl.load(rows[:, None] + (away * CHANNELS + channel)[None, :], mask=seen, other=0.0)
        factors = tl.load(weight + deep[:, None] * WIDE + columns[None, :], mask=known[None, :], other=0.0)
        value = tl.dot(part, factors, value)
    place = volume * COLUMNS + flat[:, None] * COLUMNS + columns[None, :]
    if ADD:
        value += tl.load(after + place, mask=known[None, :], other=0.0).to(tl.float32)
    rounded = value.to(result.dtype.element_ty)
    tl.store(result + place, rounded, mask=known[None, :])
    value = rounded.to(tl.float32)
    mean = tl.sum(value, axis=0) * (1.0 / ROWS)
    deviation = value - mean[None, :]
    target = (batch * tl.num_programs(0) + tile) * COLUMNS + columns
    tl.store(means + target, mean, mask=known)
    tl.store(squares + target, tl.sum(deviation * deviation, axis=0), mask=known)


def suits(image: torch.Tensor, convolution: Convolution) -> bool:
    """Whether this kernel can convolve an image [B, C, x, y, z]; it need not be the fastest."""
    weight, stride = convolution.weight, convolution.stride
    shape = image.shape[2:]
    return (
        convolution.output_padding is None
        and convolution.bias is None
        and tuple(weight.shape[2:]) == (3, 3, 3)
        and set(convolution.padding) == {1}
        and set(stride) in ({1}, {2})
        and image.dtype in (torch.float16, torch.bfloat16)
        and image.is_contiguous(memory_format=torch.channels_last_3d)
        and image.shape[1] in (1, *range(16, _MOST_CHANNELS + 1, 16))
        and weight.shape[0] in range(16, _MOST_CHANNELS + 1, 16)
        and all(side % stride[0] == 0 for side in shape)
        and shape.numel() // stride[0] ** 3 % _ROWS == 0
    )


def pays(image: torch.Tensor, convolution: Convolution) -> bool:
    """Whether it is the fastest on the image's device, as far as it was measured."""
    voxels = image.shape[2:].numel() // convolution.stride[0] ** 3
    there = image.device.type == "cuda" and torch.cuda.get_device_capability(image.device) >= _CAPABILITY
    return there and voxels >= _FEWEST_VOXELS


def convolve(
    image: torch.Tensor, convolution: Convolution, after: torch.Tensor | None = None
) -> tuple[torch.Tensor, Moments]:
    """Return convolution(image) + after, rounded once, and its moments.

    :param image: [B, C, x, y, z], one that suits; :param after: a residual of the result's shape and layout, or None.
    """
    (batch, channels), columns, stride = image.shape[:2], len(convolution.weight), convolution.stride[0]
    x, y, z = (side // stride for side in image.shape[2:])
    tiles, deep = x * y * z // _ROWS, min(_DEEP, triton.next_power_of_2(27 * channels))
    result = image.new_empty((batch, x, y, z, columns)).permute(0, 4, 1, 2, 3)
    means, squares = torch.empty((2, batch, tiles, columns), device=image.device).unbind()
    wide = triton.next_power_of_2(columns)
    _gather[(tiles, batch)](
        image,
        _rows_of_weights(convolution, deep, wide),
        result if after is None else after,
        result,
        means,
        squares,
        x,
        Y=y,
        Z=z,
        STRIDE=stride,
        CHANNELS=channels,
        COLUMNS=columns,
        ROWS=_ROWS,
        DEEP=deep,
        WIDE=wide,
        ADD=after is not None,
        num_warps=4,
        num_stages=3,
    )
    return result, Moments(means, squares, _ROWS)


_WEIGHTS: WeakKeyDictionary[Convolution, torch.Tensor] = WeakKeyDictionary()


def _rows_of_weights(convolution: Convolution, deep: int, wide: int) -> torch.Tensor:
    """Return weights as a matrix [taps * channels, columns], filled up with zeros."""
    if convolution not in _WEIGHTS:
        rows = convolution.weight.permute(2, 3, 4, 1, 0).flatten(0, 3)
        filled = rows.new_zeros((triton.cdiv(len(rows), deep) * deep, wide))
        filled[: len(rows), : rows.shape[1]] = rows
        _WEIGHTS[convolution] = filled
    return _WEIGHTS[convolution]
