"""Which form of the kernels a device gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
from typing import TypeVar

import torch

from VISTA3DCore.network.backends.kernels import operations
from VISTA3DCore.network.backends.kernels.operations import RELU, Convolution, Entry, Moments, Normalisation

_WRONG = "they do not agree with PyTorch"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kernels:
    """One form of the operations.

    :param name: ``triton`` or ``torch``.
    :param reason: why this one, for people.
    :param fused: convolves with what lies around it; returns None where it cannot, or where that is no faster.
    """

    name: str
    reason: str
    measure: Callable[..., Moments | None] = operations.measure
    normalise: Callable[..., torch.Tensor] = operations.normalise
    collapse: Callable[..., torch.Tensor] = operations.collapse
    normalise_rows: Callable[..., torch.Tensor] = operations.normalise_rows
    classify: Callable[..., tuple[torch.Tensor, torch.Tensor]] = operations.classify
    fused: Callable[..., tuple[torch.Tensor, Moments] | None] | None = None

    def convolve(
        self,
        image: torch.Tensor,
        convolution: Convolution,
        entry: Entry | None = None,
        after: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Moments | None]:
        """Return convolution(activation(norm(image))) + after and, where they come in passing, its moments.

        :param image: [B, C, x, y, z]. :param entry: normalisation and activation, or None for neither.
        :param after: a residual of the result's shape, or None.
        """
        found = self.fused(image, convolution, entry, after) if self.fused else None
        if found is not None:
            return found
        if entry is not None:
            image = self.normalise(
                image, entry.normalisation, entry.activation, moments=entry.moments, overwrite=entry.overwrite
            )
        result = convolution(image)
        return result if after is None else result.add_(after), None


@cache
def kernels_for(device: torch.device) -> Kernels:
    """Return the fused kernels on a CUDA device where they run and are right, else plain PyTorch."""
    if device.type != "cuda":
        return Kernels("torch", "fused kernels are for CUDA devices")
    try:
        kernels = triton_kernels()
        _try_out(kernels, device)
    except Exception as error:  # a compiler, a driver or a file may be missing: whatever it is, do without
        return Kernels("torch", f"Triton's kernels cannot be used here ({_first_line(error)})")
    try:
        _try_out_on_chip(kernels, device)
    except Exception as error:
        reason = f"{kernels.reason}, but not CUDA's own ({_first_line(error)})"
        return replace(kernels, reason=reason, fused=partial(kernels.fused, on_chip=False))
    return kernels


def triton_kernels() -> Kernels:
    """Return Triton's kernels.

    :raises ImportError: if Triton is not installed.
    """
    from VISTA3DCore.network.backends.kernels import (
        convolution,
        triton_classify,
        triton_collapse,
        triton_normalise,
        triton_rows,
    )

    return Kernels(
        "triton",
        "fused kernels run",
        measure=_there(triton_normalise.measure),
        normalise=_there(triton_normalise.normalise),
        collapse=_there(triton_collapse.collapse),
        normalise_rows=_there(triton_rows.normalise_rows),
        classify=_there(triton_classify.classify),
        fused=_there(convolution.convolve_fused),
    )


def _there(operation: Callable[..., Result]) -> Callable[..., Result]:
    """Let an operation run on the device of its first argument; Triton takes the current one."""

    @wraps(operation)
    def run(tensor: torch.Tensor, *arguments: object, **options: object) -> Result:
        with torch.cuda.device_of(tensor):
            return operation(tensor, *arguments, **options)

    return run


@torch.inference_mode()
def _try_out(kernels: Kernels, device: torch.device) -> None:
    """Compile and run the kernels that every window needs.

    Those of clicks, and gathered convolutions, have their trial when the runtime starts (``cuda_start.py``).

    :raises RuntimeError: if one does not give what its twin gives.
    """
    image = torch.linspace(-3, 5, 16 * 512, device=device).sin_().view(1, 8, 8, 8, 16).permute(0, 4, 1, 2, 3)
    arguments = Normalisation(), RELU
    normalised = kernels.normalise(image, *arguments)
    features, values = image[0].flatten(1).T, torch.arange(1, 4, dtype=torch.int32, device=device)
    labels = kernels.classify(features, features[:5].contiguous(), values)[0]
    expected = operations.classify(features, features[:5], values)[0]
    close = torch.allclose(normalised, operations.normalise(image, *arguments), atol=1e-4)
    if not close or (labels == expected).float().mean() < 0.99:
        raise RuntimeError(_WRONG)


@torch.inference_mode()
def _try_out_on_chip(kernels: Kernels, device: torch.device) -> None:
    """As :func:`_try_out`, for the kernel that holds all weights on the chip, where the device has room for it.

    :raises RuntimeError: if it does not give what its twin gives.
    """
    from VISTA3DCore.network.backends.kernels import cuda_convolve

    numbers = torch.linspace(-3, 5, 48 * 3 * 8 * 32, device=device).sin_().half()
    image = numbers.view(1, 3, 8, 32, 48).permute(0, 4, 1, 2, 3)
    weight = (torch.linspace(0, 9, 48 * 48 * 27, device=device).square_().sin_() / 36).half().view(48, 48, 3, 3, 3)
    convolution = Convolution(weight, None, (1, 1, 1), (1, 1, 1))
    if not cuda_convolve.suits(image, convolution):
        return
    entry = Entry(Normalisation(), RELU)
    found, _ = kernels.convolve(image, convolution, entry, after=image)
    expected = convolution(operations.normalise(image, Normalisation(), RELU)).add_(image)
    if not torch.allclose(found, expected, atol=2e-2):
        raise RuntimeError(_WRONG)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
