"""A convolution to one channel, with the normalisation and activation before it, for images that lie channels-last.

Libraries compute it as slowly as one to many channels. Here each voxel is multiplied with all 27 taps at once, and each
tap's products are then added up where the convolution puts them: 0.3 ms for 128^3 voxels of 48 channels on an H100,
against 1.3 ms.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from VISTA3DCore.backends.cuda.kernels import operations
from VISTA3DCore.backends.cuda.kernels.operations import Activation, Moments, Normalisation
from VISTA3DCore.backends.cuda.kernels.triton_normalize import activated, factors, measure

_ROWS = 128
_TAPS = 32
"""27, filled up to what matrix units can use."""
_VOXELS = 512


@triton.jit
def _multiply_taps(
    image,
    weight,
    scale,
    shift,
    products,
    voxels,
    slope,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TAPS: tl.constexpr,
    GELU: tl.constexpr,
):
    """Normalise and activate one tile of voxels, and write its product with each tap."""
    rows, columns, taps = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, TAPS)
    known, inside = columns < CHANNELS, rows < voxels
    place = rows[:, None].to(tl.int64) * CHANNELS + columns[None, :]
    value = tl.load(image + place, mask=inside[:, None] & known[None, :], other=0.0).to(tl.float32)
    factor = tl.load(scale + columns, mask=known, other=0.0)
    value = value * factor[None, :] + tl.load(shift + columns, mask=known, other=0.0)[None, :]
    vectors = tl.load(weight + taps[:, None] * COLUMNS + columns[None, :])
    active = activated(value, slope, GELU).to(vectors.dtype)
    product = tl.dot(vectors, tl.trans(active), input_precision="ieee")
    target = taps[:, None].to(tl.int64) * voxels + rows[None, :]
    tl.store(products + target, product, mask=(taps < 27)[:, None] & inside[None, :])


@triton.jit
def _add_taps(products, result, planes, Y: tl.constexpr, Z: tl.constexpr, VOXELS: tl.constexpr):
    """Add up what the 27 taps give to one tile of voxels."""
    voxels = planes * (Y * Z)
    flat = tl.program_id(0) * VOXELS + tl.arange(0, VOXELS)
    x, y, z = flat // (Y * Z), flat // Z % Y, flat % Z
    total = tl.zeros((VOXELS,), dtype=tl.float32)
    for tap in tl.static_range(27):
        tap_x, tap_y, tap_z = x + (tap // 9 - 1), y + (tap // 3 % 3 - 1), z + (tap % 3 - 1)
        inside = (tap_x >= 0) & (tap_x < planes) & (tap_y >= 0) & (tap_y < Y) & (tap_z >= 0) & (tap_z < Z)
        there = ((tap // 9 - 1) * Y + (tap // 3 % 3 - 1)) * Z + (tap % 3 - 1)
        place = flat.to(tl.int64) + there
        total += tl.load(products + voxels.to(tl.int64) * tap + place, mask=inside, other=0.0)
    tl.store(result + flat, total, mask=flat < voxels)


def collapse(
    image: torch.Tensor,
    weight: torch.Tensor,
    normalisation: Normalisation,
    activation: Activation,
    moments: Moments | None = None,
) -> torch.Tensor:
    """As :func:`VISTA3DCore.backends.cuda.kernels.operations.collapse`, which gets the images that do not suit."""
    if len(image) != 1 or not image.is_contiguous(memory_format=torch.channels_last_3d):
        return operations.collapse(image, weight, normalisation, activation, moments)
    _, channels, x, y, z = image.shape
    scale, shift = factors(normalisation, moments or measure(image), x * y * z)
    columns = max(16, triton.next_power_of_2(channels))
    vectors = image.new_zeros((_TAPS, columns))
    vectors[:27, :channels] = weight[0].permute(1, 2, 3, 0).flatten(0, 2)
    products = torch.empty((27, x * y * z), device=image.device)
    _multiply_taps[(triton.cdiv(x * y * z, _ROWS),)](
        image,
        vectors,
        scale,
        shift,
        products,
        x * y * z,
        activation.slope,
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=columns,
        TAPS=_TAPS,
        GELU=activation.gelu,
    )
    result = torch.empty((x, y, z), device=image.device)
    _add_taps[(triton.cdiv(x * y * z, _VOXELS),)](products, result, x, Y=y, Z=z, VOXELS=_VOXELS)
    return result
