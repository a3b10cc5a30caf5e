"""Trials of the kernels: whether each gives on a device what its twin in plain PyTorch gives there.

Sizes are those of the released network where the kernels are compiled for them, so that what the trials compile is what
the network runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from VISTA3DCore.backends.cuda.kernels import operations
from VISTA3DCore.backends.cuda.kernels.operations import GELU, RELU, Convolution, Entry, Moments, Normalisation

_HALF_PRECISION = 2e-2


class Operations(Protocol):
    """One form of the operations, see :mod:`VISTA3DCore.backends.cuda.kernels.operations`."""

    measure: Callable[..., Moments | None]
    normalise: Callable[..., torch.Tensor]
    collapse: Callable[..., torch.Tensor]
    normalise_rows: Callable[..., torch.Tensor]
    classify: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    fused: Callable[..., tuple[torch.Tensor, Moments] | None] | None


class DisagreementError(Exception):
    """A kernel does not give what its twin gives."""

    def __init__(self) -> None:
        super().__init__("it does not agree with PyTorch")


def measure(kernels: Operations, device: torch.device) -> None:
    """:raises DisagreementError: as all of these; besides, whatever a compiler or a driver raises."""
    image, residual = _image(48, 8, device), _image(48, 8, device, 1)
    expected = operations.normalise(image + residual, Normalisation(), RELU)
    moments = kernels.measure(image, residual)
    _compare(kernels.normalise(image, Normalisation(), RELU, moments=moments), expected)


def normalise(kernels: Operations, device: torch.device) -> None:
    image, residual = _image(48, 8, device), _image(48, 8, device, 1)
    expected = operations.normalise(image, Normalisation(), GELU, after=residual)
    _compare(kernels.normalise(image, Normalisation(), GELU, after=residual), expected)


def collapse(kernels: Operations, device: torch.device) -> None:
    image, weight = _image(48, 8, device), _numbers((1, 48, 3, 3, 3), device).half() / 36
    expected = operations.collapse(image.clone(), weight, Normalisation(), GELU)
    _compare(kernels.collapse(image, weight, Normalisation(), GELU), expected)


def normalise_rows(kernels: Operations, device: torch.device) -> None:
    rows, more, added = (_numbers(shape, device) for shape in ((100, 48), (100, 48), (48,)))
    norm = nn.LayerNorm(48, device=device)
    _compare(kernels.normalise_rows(rows, more, added, norm), norm(rows + more + added), 1e-4)


def classify(kernels: Operations, device: torch.device) -> None:
    features, matrix = _numbers((512, 48), device), _numbers((43, 48), device).roll(7)
    values = torch.arange(1, 41, dtype=torch.int32, device=device)
    found, expected = (one(features, matrix, values) for one in (kernels.classify, operations.classify))
    if any((one != other).float().mean() > 0.01 for one, other in zip(found, expected, strict=True)):
        raise DisagreementError


def fused(kernels: Operations, device: torch.device) -> None:
    """The gathered convolutions, those that are worth it on this device."""
    for channels, side, stride in ((1, 32, 1), (96, 32, 1), (48, 64, 2)):
        weight = _numbers((48 if channels == 1 else 96, channels, 3, 3, 3), device).half() / 48
        _try_convolution(kernels, _image(channels, side, device), Convolution(weight, None, (stride,) * 3, (1, 1, 1)))


def on_chip(kernels: Operations, device: torch.device) -> None:
    """The convolution that holds all weights on the chip, where the device has room for it."""
    weight = _numbers((48, 48, 3, 3, 3), device).half() / 36
    image = _numbers((1, 4, 16, 128, 48), device).half().permute(0, 4, 1, 2, 3)
    _try_convolution(kernels, image, Convolution(weight, None, (1, 1, 1), (1, 1, 1)), Entry(Normalisation(), RELU))


TRIALS: dict[str, Callable[[Operations, torch.device], None]] = {
    "measure": measure,
    "normalise": normalise,
    "collapse": collapse,
    "normalise_rows": normalise_rows,
    "classify": classify,
    "fused": fused,
}
"""By the name of the operation."""


def _try_convolution(
    kernels: Operations, image: torch.Tensor, convolution: Convolution, entry: Entry | None = None
) -> None:
    sides = (side // stride for side, stride in zip(image.shape[2:], convolution.stride, strict=True))
    after = _numbers((1, *sides, len(convolution.weight)), image.device).half().permute(0, 4, 1, 2, 3)
    found = None if kernels.fused is None else kernels.fused(image, convolution, entry, after)
    if found is not None:
        active = image if entry is None else operations.normalise(image, entry.normalisation, RELU)
        _compare(found[0], convolution(active) + after)


def _numbers(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return numbers between -1 and 1 whose period, a prime, fits no extent of an image."""
    steps = torch.arange(torch.Size(shape).numel(), device=device).remainder_(10007)
    return steps.float().mul_(0.618034).frac_().mul_(2).sub_(1).view(shape)


def _image(channels: int, side: int, device: torch.device, shift: int = 0) -> torch.Tensor:
    """Return a channels-last image in float16."""
    rows = _numbers((1, side, side, side, channels), device).roll(shift)
    return rows.half().permute(0, 4, 1, 2, 3)


def _compare(found: torch.Tensor, expected: torch.Tensor, tolerance: float = _HALF_PRECISION) -> None:
    if not torch.allclose(found.float(), expected.float(), atol=tolerance, rtol=tolerance):
        raise DisagreementError
