"""Which form of the kernels a device gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import TypeVar

import torch

from VISTA3DCore.network.backends.kernels import operations
from VISTA3DCore.network.backends.kernels.operations import RELU, Normalisation

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kernels:
    """One form of the operations.

    :param name: ``triton`` or ``torch``.
    :param reason: why this one, for people.
    """

    name: str
    reason: str
    normalise: Callable[..., torch.Tensor] = operations.normalise
    classify: Callable[..., tuple[torch.Tensor, torch.Tensor]] = operations.classify


@cache
def kernels_for(device: torch.device) -> Kernels:
    """Return Triton's kernels on a CUDA device where they run and are right, else plain PyTorch."""
    if device.type != "cuda":
        return Kernels("torch", "fused kernels are for CUDA devices")
    try:
        kernels = triton_kernels()
        _try_out(kernels, device)
    except Exception as error:  # a compiler, a driver or a file may be missing: whatever it is, do without
        return Kernels("torch", f"Triton's kernels cannot be used here ({_first_line(error)})")
    return kernels


def triton_kernels() -> Kernels:
    """Return Triton's kernels.

    :raises ImportError: if Triton is not installed.
    """
    from VISTA3DCore.network.backends.kernels import triton_classify, triton_normalise

    operations_there = (_there(one) for one in (triton_normalise.normalise, triton_classify.classify))
    return Kernels("triton", "fused kernels run", *operations_there)


def _there(operation: Callable[..., Result]) -> Callable[..., Result]:
    """Let an operation run on the device of its first argument; Triton takes the current one."""

    @wraps(operation)
    def run(tensor: torch.Tensor, *arguments: object, **options: object) -> Result:
        with torch.cuda.device_of(tensor):
            return operation(tensor, *arguments, **options)

    return run


@torch.inference_mode()
def _try_out(kernels: Kernels, device: torch.device) -> None:
    """Compile and run each kernel once.

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
        raise RuntimeError("they do not agree with PyTorch")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
