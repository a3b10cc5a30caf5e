"""Instance normalisation, activation and residual additions in two passes over a channels-last image.

Unfused, they move 14 GB per window of the released model, as much time as its convolutions on an H100. The first pass
adds the residual and takes the moments, which some convolutions do in passing; the second normalises, adds and
activates. Sums are float32 and taken in a fixed order, by parts that are merged without cancellation (Chan, Golub and
LeVeque 1979), so results repeat exactly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from VISTA3DCore.backends.cuda.kernels import operations
from VISTA3DCore.backends.cuda.kernels.operations import IDENTITY, Activation, Moments, Normalisation

_ROWS = 128
"""Voxels of a tile; with 64 channels its 8192 values fit a program's registers."""
_MOST_CHANNELS = 64
_MOST_PARTS = 1024
"""Partial statistics that one program merges at once."""
_MERGED_CHANNELS = 8


@triton.jit
def _part_statistics(
    image,
    before,
    means,
    squares,
    voxels,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILES: tl.constexpr,
    ADD: tl.constexpr,
):
    """Write the mean and the sum of squared deviations of each channel over one part of the voxels."""
    part, batch = tl.program_id(0), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    offset = batch * voxels * CHANNELS
    count = 0.0
    mean = tl.zeros((COLUMNS,), dtype=tl.float32)
    square = tl.zeros((COLUMNS,), dtype=tl.float32)
    for tile in range(TILES):
        rows = (part * TILES + tile) * ROWS + tl.arange(0, ROWS)
        inside = (rows < voxels)[:, None] & (columns < CHANNELS)[None, :]
        place = offset + rows[:, None].to(tl.int64) * CHANNELS + columns[None, :]
        value = tl.load(image + place, mask=inside, other=0.0).to(tl.float32)
        if ADD:
            value += tl.load(before + place, mask=inside, other=0.0).to(tl.float32)
            rounded = value.to(image.dtype.element_ty)
            tl.store(image + place, rounded, mask=inside)
            value = rounded.to(tl.float32)
        here = tl.sum((rows < voxels).to(tl.float32), axis=0)
        tile_mean = tl.sum(value, axis=0) / tl.maximum(here, 1.0)
        deviation = tl.where(inside, value - tile_mean[None, :], 0.0)
        step, total = tile_mean - mean, tl.maximum(count + here, 1.0)
        square += tl.sum(deviation * deviation, axis=0) + step * step * (count * here / total)
        mean += step * (here / total)
        count += here
    target = (batch * tl.num_programs(0) + part) * CHANNELS + columns
    tl.store(means + target, mean, mask=columns < CHANNELS)
    tl.store(squares + target, square, mask=columns < CHANNELS)


@triton.jit
def _merge_statistics(
    means,
    squares,
    weight,
    bias,
    scale,
    shift,
    voxels,
    parts,
    part_voxels,
    epsilon,
    CHANNELS: tl.constexpr,
    PARTS: tl.constexpr,
    COLUMNS: tl.constexpr,
    AFFINE: tl.constexpr,
):
    """Merge the parts, and write the factor and summand that normalise each channel."""
    batch, columns = tl.program_id(1), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    known = columns < CHANNELS
    merged = 0.0
    mean = tl.zeros((COLUMNS,), dtype=tl.float32)
    square = tl.zeros((COLUMNS,), dtype=tl.float32)
    for start in range(0, parts, PARTS):
        rows = start + tl.arange(0, PARTS)
        inside = (rows < parts)[:, None] & known[None, :]
        place = (batch * parts + rows[:, None]) * CHANNELS + columns[None, :]
        count = tl.minimum(tl.maximum(voxels - rows * part_voxels, 0), part_voxels).to(tl.float32)[:, None]
        part_mean = tl.load(means + place, mask=inside, other=0.0)
        here = tl.sum(count)
        chunk_mean = tl.sum(part_mean * (count / here), axis=0)
        step = tl.where(inside, part_mean - chunk_mean[None, :], 0.0)
        more = tl.sum(tl.load(squares + place, mask=inside, other=0.0) + step * step * count, axis=0)
        total = merged + here
        move = chunk_mean - mean
        square += more + move * move * (merged * here / total)
        mean += move * (here / total)
        merged = total
    factor = 1.0 / tl.sqrt(square / voxels + epsilon)
    summand = tl.zeros((COLUMNS,), dtype=tl.float32)
    if AFFINE:
        factor *= tl.load(weight + columns, mask=known, other=0.0)
        summand = tl.load(bias + columns, mask=known, other=0.0)
    tl.store(scale + batch * CHANNELS + columns, factor, mask=known)
    tl.store(shift + batch * CHANNELS + columns, summand - mean * factor, mask=known)


@triton.jit
def activated(value, slope, GELU: tl.constexpr):
    """Return GELU of a tile, or the tile where it is positive and ``slope`` times it where it is negative."""
    if GELU:
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    else:
        value = tl.where(value > 0, value, value * slope)
    return value


@triton.jit
def _apply(
    image,
    after,
    result,
    scale,
    shift,
    voxels,
    slope,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ADD: tl.constexpr,
    GELU: tl.constexpr,
):
    """Normalise one tile, add to it, activate it."""
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    known = columns < CHANNELS
    inside = (rows < voxels)[:, None] & known[None, :]
    place = (batch * voxels + rows[:, None]) * CHANNELS + columns[None, :]
    factor = tl.load(scale + batch * CHANNELS + columns, mask=known, other=0.0)
    summand = tl.load(shift + batch * CHANNELS + columns, mask=known, other=0.0)
    value = tl.load(image + place, mask=inside, other=0.0).to(tl.float32) * factor[None, :] + summand[None, :]
    if ADD:
        value += tl.load(after + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + place, activated(value, slope, GELU).to(result.dtype.element_ty), mask=inside)


def measure(image: torch.Tensor, before: torch.Tensor | None = None) -> Moments | None:
    """As :func:`VISTA3DCore.backends.cuda.kernels.operations.measure`, which gets the images that do not suit."""
    if not _suits(image, before):
        return operations.measure(image, before)
    batch, channels, voxels = len(image), image.shape[1], image[0, 0].numel()
    columns, tiles = _columns(channels), _tiles(voxels)
    parts = triton.cdiv(voxels, _ROWS * tiles)
    means, squares = torch.empty((2, batch, parts, channels), device=image.device).unbind()
    _part_statistics[(parts, triton.cdiv(channels, columns), batch)](
        image,
        image if before is None else before,
        means,
        squares,
        voxels,
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=columns,
        TILES=tiles,
        ADD=before is not None,
    )
    return Moments(means, squares, _ROWS * tiles)


def normalise(
    image: torch.Tensor,
    normalisation: Normalisation,
    activation: Activation = IDENTITY,
    *,
    moments: Moments | None = None,
    after: torch.Tensor | None = None,
    overwrite: bool = False,
) -> torch.Tensor:
    """As :func:`VISTA3DCore.backends.cuda.kernels.operations.normalise`, which gets the images that do not suit."""
    if not _suits(image, after):
        return operations.normalise(image, normalisation, activation, after=after, overwrite=overwrite)
    channels, voxels = image.shape[1], image[0, 0].numel()
    scale, shift = factors(normalisation, moments or measure(image), voxels)
    result = image if overwrite else torch.empty_like(image)
    columns = _columns(channels)
    _apply[(triton.cdiv(voxels, _ROWS), triton.cdiv(channels, columns), len(image))](
        image,
        image if after is None else after,
        result,
        scale,
        shift,
        voxels,
        activation.slope,
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=columns,
        ADD=after is not None,
        GELU=activation.gelu,
    )
    return result


def _suits(image: torch.Tensor, *others: torch.Tensor | None) -> bool:
    """Whether all images lie channels-last in memory, without gaps."""
    images = [image, *(other for other in others if other is not None)]
    return all(
        one.shape == image.shape
        and one.dtype == image.dtype
        and one.is_contiguous(memory_format=torch.channels_last_3d)
        for one in images
    )


def factors(normalisation: Normalisation, moments: Moments, voxels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factor and the summand that normalise each channel, [B, C] each.

    :param voxels: of an image.
    """
    batch, parts, channels = moments.means.shape
    scale, shift = torch.empty((2, batch, channels), device=moments.means.device).unbind()
    affine = normalisation.weight is not None
    _merge_statistics[(triton.cdiv(channels, _MERGED_CHANNELS), batch)](
        moments.means,
        moments.squares,
        normalisation.weight if affine else scale,
        normalisation.bias if affine else scale,
        scale,
        shift,
        voxels,
        parts,
        moments.voxels,
        normalisation.epsilon,
        CHANNELS=channels,
        PARTS=min(triton.next_power_of_2(parts), _MOST_PARTS),
        COLUMNS=_MERGED_CHANNELS,
        AFFINE=affine,
    )
    return scale, shift


def _columns(channels: int) -> int:
    """Channels of a tile, a power of two: one that divides the channels where it is not too narrow to be read fast."""
    divisor = channels & -channels
    if divisor >= 32:
        return min(divisor, _MOST_CHANNELS)
    return min(triton.next_power_of_2(channels), _MOST_CHANNELS)


def _tiles(voxels: int) -> int:
    """Tiles of a part: one, or as many as it takes for the parts to be merged at once."""
    return triton.next_power_of_2(triton.cdiv(voxels, _ROWS * _MOST_PARTS))
