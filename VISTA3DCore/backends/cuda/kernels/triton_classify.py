"""Class scores and their argmax in one pass: the scores, 117 for each voxel, never reach the memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_ROWS = 128
_CLASSES = 32
_FEW = 16
_WARPS = 8
_SPLIT_FROM = (8, 0)
"""The first capability whose matrix units multiply rounded float32; before, scores come from ordinary arithmetic."""


@triton.jit
def _classify(
    features,
    matrix,
    values,
    labels,
    masks,
    voxels,
    columns_there,
    depth,
    row_stride,
    column_stride,
    depth_stride,
    competing,
    classes,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CLASSES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Label one tile of voxels: a running maximum over tiles of classes, then the masks.

    Voxels lie on a grid of rows, columns and depth, each with its own stride.
    """
    number = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    place = number // (columns_there * depth) * row_stride
    place += number // depth % columns_there * column_stride + number % depth * depth_stride
    columns = tl.arange(0, COLUMNS)
    known, inside = columns < CHANNELS, number < voxels
    tile = tl.load(features + place[:, None] + columns[None, :], mask=inside[:, None] & known[None, :], other=0.0)
    best = tl.zeros((ROWS,), dtype=tl.float32)
    label = tl.zeros((ROWS,), dtype=tl.int32)
    for start in range(0, classes, CLASSES):
        ones = start + tl.arange(0, CLASSES)
        vectors = tl.load(
            matrix + ones[None, :] * CHANNELS + columns[:, None],
            mask=(ones < classes)[None, :] & known[:, None],
            other=0.0,
        )
        scores = tl.dot(tile, vectors, input_precision=PRECISION)
        rival = tl.where((ones < competing)[None, :], scores, float("-inf"))
        highest, winner = tl.max(rival, axis=1), start + tl.argmax(rival, axis=1)
        # Only a larger score wins, so the first of equal ones stays, and none does that is not positive.
        wins = highest > best
        label = tl.where(wins, tl.load(values + winner, mask=wins, other=0), label)
        best = tl.where(wins, highest, best)
        other = (ones >= competing) & (ones < classes)
        target = (ones - competing)[None, :].to(tl.int64) * voxels + number[:, None]
        tl.store(masks + target, (scores > 0).to(tl.int8), mask=inside[:, None] & other[None, :])
    tl.store(labels + number, label.to(tl.int16), mask=inside)


def classify(features: torch.Tensor, matrix: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`VISTA3DCore.backends.cuda.kernels.operations.classify`."""
    if features.stride(-1) != 1:
        features = features.contiguous()
    shape, channels = features.shape[:-1], features.shape[-1]
    grid = features.view(*[1] * (4 - features.ndim), *features.shape)
    labels = torch.empty(shape, dtype=torch.int16, device=features.device)
    masks = torch.empty((len(matrix) - len(values), *shape), dtype=torch.int8, device=features.device)
    _classify[(triton.cdiv(labels.numel(), _ROWS),)](
        features,
        matrix.contiguous(),
        values if len(values) else labels,
        labels,
        masks if masks.numel() else labels,
        labels.numel(),
        *grid.shape[1:3],
        *grid.stride()[:3],
        len(values),
        len(matrix),
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=max(16, triton.next_power_of_2(channels)),
        CLASSES=_CLASSES if len(matrix) > _FEW else _FEW,
        PRECISION=_precision(features.device),
        num_warps=_WARPS,
    )
    return labels, masks.view(torch.bool)


def _precision(device: torch.device) -> str:
    """Return how float32 is multiplied: by three products of rounded halves, which lose nothing that would matter."""
    split = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _SPLIT_FROM
    return "tf32x3" if split else "ieee"
