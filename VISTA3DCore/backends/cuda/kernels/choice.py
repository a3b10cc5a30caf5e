"""Which form of the kernels a device gets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import TypeVar

import torch

from VISTA3DCore.backends.cuda.kernels import operations
from VISTA3DCore.backends.cuda.kernels.operations import Convolution, Entry, Moments
from VISTA3DCore.backends.cuda.kernels.trials import TRIALS, on_chip
from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.errors import SlowerWarning

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kernels:
    """One form of the operations.

    :param name: ``triton`` or ``torch``.
    :param reason: why this one, for people.
    :param wanting: what cannot be used although the device is of the right kind; empty if that is nothing.
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
    wanting: str = ""

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


def kernels_for(device: torch.device) -> Kernels:
    """Return the fused kernels on a CUDA device, those that run and are right, else plain PyTorch."""
    if device.type != "cuda":
        return Kernels("torch", "fused kernels are for CUDA devices")
    place = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    if place not in _CHOSEN:
        try:
            _CHOSEN[place] = sound(triton_kernels(), place)
        except Exception as error:  # a compiler, a driver or a file may be missing: whatever it is, do without
            reason = f"fused kernels cannot be used here ({_first_line(error)})"
            without = Kernels("torch", reason, wanting=reason)
            if is_out_of_memory(error):  # nothing was found out; the next one who asks may
                return without
            _CHOSEN[place] = without
    return _CHOSEN[place]


_CHOSEN: dict[torch.device, Kernels] = {}


@torch.inference_mode()
def sound(kernels: Kernels, device: torch.device) -> Kernels:
    """Return kernels of which those that fail or are wrong on a device are replaced by their twins.

    What is right may fail later, for an image of another shape: then its twin takes over, too.

    :raises RuntimeError: if memory runs out.
    """
    plain, failures = Kernels("torch", ""), []
    for name, trial in TRIALS.items():
        if (problem := _problem(trial, kernels, device)) is not None:
            kernels = replace(kernels, **{name: getattr(plain, name)})
            failures.append(f"{name}: {problem}")
    if kernels.fused is not None and (problem := _problem(on_chip, kernels, device)) is not None:
        kernels = replace(kernels, fused=partial(kernels.fused, on_chip=False))
        failures.append(f"convolve: {problem}")
    guarded = {name: _guarded(name, getattr(kernels, name), getattr(plain, name)) for name in TRIALS}
    if not failures:
        return replace(kernels, **guarded)
    wanting = f"not all fused kernels can be used here ({'; '.join(failures)})"
    return replace(kernels, reason=wanting, wanting=wanting, **guarded)


def _problem(trial: Callable[[Kernels, torch.device], None], kernels: Kernels, device: torch.device) -> str | None:
    """Return what is wrong with a kernel, or None."""
    try:
        trial(kernels, device)
    except Exception as error:  # Triton has errors of many kinds
        if is_out_of_memory(error):
            raise
        return _first_line(error)
    return None


def _guarded(name: str, operation: Callable[..., Result] | None, twin: Callable[..., Result] | None):
    """Return an operation in whose place its twin is taken from the moment when it fails, other than for memory."""
    if operation is None or operation is twin:
        return operation
    current = [operation]

    @wraps(operation)
    def run(*arguments: object, **options: object) -> Result:
        try:
            return current[0](*arguments, **options)
        except Exception as error:  # as above
            if is_out_of_memory(error) or current[0] is not operation:
                raise
            current[0] = twin or _never
            sentence = f"A fused kernel fails ({name}: {_first_line(error)}); the GPU works without it, more slowly."
        warnings.warn(sentence, SlowerWarning, stacklevel=2)
        return current[0](*arguments, **options)

    return run


def _never(*_arguments: object, **_options: object) -> None:
    """Stands for kernels that convolve: there is none for any image."""


def triton_kernels() -> Kernels:
    """Return Triton's kernels.

    :raises ImportError: if Triton is not installed.
    """
    from VISTA3DCore.backends.cuda.kernels import (
        convolution,
        triton_classify,
        triton_collapse,
        triton_normalize,
        triton_rows,
    )

    return Kernels(
        "triton",
        "fused kernels run",
        measure=_there(triton_normalize.measure),
        normalise=_there(triton_normalize.normalise),
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
