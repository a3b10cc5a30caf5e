"""Class scores and their argmax in one pass: the scores, 117 for each voxel, never reach the memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_ROWS = 128
_CLASSES = 32


@triton.jit
def _classify(
    features,
    matrix,
    values,
    labels,
    masks,
    voxels,
    competing,
    classes,
    row_stride,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CLASSES: tl.constexpr,
):
    """Label one tile of voxels: a running maximum over tiles of classes, then the masks."""
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    known, inside = columns < CHANNELS, rows < voxels
    tile = tl.load(
        features + rows[:, None] * row_stride + columns[None, :], mask=inside[:, None] & known[None, :], other=0.0
    )
    best = tl.zeros((ROWS,), dtype=tl.float32)
    label = tl.zeros((ROWS,), dtype=tl.int32)
    for start in range(0, classes, CLASSES):
        number = start + tl.arange(0, CLASSES)
        vectors = tl.load(
            matrix + number[None, :] * CHANNELS + columns[:, None],
            mask=(number < classes)[None, :] & known[:, None],
            other=0.0,
        )
        scores = tl.dot(tile, vectors, input_precision="ieee")
        rival = tl.where((number < competing)[None, :], scores, float("-inf"))
        highest, winner = tl.max(rival, axis=1), start + tl.argmax(rival, axis=1)
        # Only a larger score wins, so the first of equal ones stays, and none does that is not positive.
        wins = highest > best
        label = tl.where(wins, tl.load(values + winner, mask=wins, other=0), label)
        best = tl.where(wins, highest, best)
        other = (number >= competing) & (number < classes)
        place = (number - competing)[None, :].to(tl.int64) * voxels + rows[:, None]
        tl.store(masks + place, (scores > 0).to(tl.int8), mask=inside[:, None] & other[None, :])
    tl.store(labels + rows, label.to(tl.int16), mask=inside)


def classify(features: torch.Tensor, matrix: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`VISTA3DCore.network.backends.kernels.operations.classify`."""
    if features.stride(1) != 1:
        features = features.contiguous()
    voxels, channels = features.shape
    labels = torch.empty(voxels, dtype=torch.int16, device=features.device)
    masks = torch.empty((len(matrix) - len(values), voxels), dtype=torch.int8, device=features.device)
    _classify[(triton.cdiv(voxels, _ROWS),)](
        features,
        matrix.contiguous(),
        values if len(values) else labels,
        labels,
        masks if masks.numel() else labels,
        voxels,
        len(values),
        len(matrix),
        features.stride(0),
        CHANNELS=channels,
        ROWS=_ROWS,
        COLUMNS=max(16, triton.next_power_of_2(channels)),
        CLASSES=_CLASSES,
    )
    return labels, masks.view(torch.bool)
