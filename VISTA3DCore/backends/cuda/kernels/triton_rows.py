"""Layer normalisation of short rows; libraries give each row, of 48 numbers, a whole group of threads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import nn

_ROWS = 64


@triton.jit
def _normalise_rows(
    rows,
    more,
    added,
    weight,
    bias,
    result,
    count,
    epsilon,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Normalise one tile of rows + more + added."""
    numbers, columns = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    known = columns < CHANNELS
    inside = (numbers < count)[:, None] & known[None, :]
    place = numbers[:, None].to(tl.int64) * CHANNELS + columns[None, :]
    value = tl.load(rows + place, mask=inside, other=0.0) + tl.load(more + place, mask=inside, other=0.0)
    value += tl.load(added + columns, mask=known, other=0.0)[None, :]
    deviation = tl.where(inside, value - (tl.sum(value, axis=1) / CHANNELS)[:, None], 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(deviation * deviation, axis=1) / CHANNELS + epsilon)
    scale = tl.load(weight + columns, mask=known, other=0.0)
    shift = tl.load(bias + columns, mask=known, other=0.0)
    tl.store(result + place, deviation * factor[:, None] * scale[None, :] + shift[None, :], mask=inside)


def normalise_rows(rows: torch.Tensor, more: torch.Tensor, added: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """As :func:`VISTA3DCore.backends.cuda.kernels.operations.normalise_rows`."""
    rows, more, result = (
        rows.contiguous(),
        more.contiguous(),
        torch.empty_like(rows, memory_format=torch.contiguous_format),
    )
    count, channels = rows.shape
    _normalise_rows[(triton.cdiv(count, _ROWS),)](
        rows,
        more,
        added,
        norm.weight,
        norm.bias,
        result,
        count,
        norm.eps,
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=triton.next_power_of_2(channels),
    )
    return result
