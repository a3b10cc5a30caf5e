"""Which device to compute on, and combinations of software that are known to go wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from VISTA3DCore.backends.cuda.cudnn import cudnn_problems
from VISTA3DCore.errors import DeviceError, SlowerWarning


@dataclass(frozen=True)
class DeviceChoice:
    """A device and, for people, why it was chosen."""

    device: torch.device
    reason: str


def choose_device(name: str | torch.device = "auto") -> DeviceChoice:
    """Return the device to use.

    :param name: ``auto`` (cuda, else mps, else cpu), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    :raises DeviceError: if it is not there, or does not work; with ``auto``, the CPU is used then, with a
        ``SlowerWarning``.
    """
    if str(name) != "auto":
        return DeviceChoice(_present(str(name)), "as asked for")
    problem = None
    if torch.cuda.is_available():
        problem = _problem(torch.device("cuda"))
        if problem is None:
            return DeviceChoice(torch.device("cuda"), f"{torch.cuda.get_device_name()} is available")
    if torch.backends.mps.is_available():
        return DeviceChoice(torch.device("mps"), "no CUDA device, but Apple's GPU is available")
    if problem is not None:
        reason = f"the GPU cannot be used ({problem})"
        warnings.warn(f"{reason[0].upper()}{reason[1:]}; the CPU is used instead.", SlowerWarning, stacklevel=2)
        return DeviceChoice(torch.device("cpu"), reason)
    build = f"the installed torch {torch.__version__} is built without CUDA"
    missing = "torch finds no CUDA device" if torch.version.cuda else build
    return DeviceChoice(torch.device("cpu"), f"no GPU can be used: {missing}")


def _present(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        unknown = "There is no kind of device called '{name}'"
        raise DeviceError(unknown, hint="choose-device-kind", facts={"name": name}) from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    count = counts.get(device.type, 0)
    facts = {"device": name, "subject": f"The device '{name}'"}
    if count == 0:
        raise DeviceError("{subject} is not available", hint="choose-device", facts=facts)
    if (device.index or 0) >= count:
        last = f"{device.type}:{count - 1}"
        raise DeviceError("{subject} is not available; the last one is '{last}'.", facts={**facts, "last": last})
    if device.type != "cpu" and (problem := _problem(device)) is not None:
        broken = "{subject} does not work here ({reason})"
        raise DeviceError(broken, hint="choose-device", facts={**facts, "reason": problem})
    return device


def _problem(device: torch.device) -> str | None:
    """Return why nothing can be computed on a device, e.g. because torch was not built for it, or None."""
    try:
        torch.ones(8, device=device).sum().item()
    except Exception as error:  # drivers have errors of many kinds
        return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return None


def known_problems() -> list[str]:
    """Return a sentence for each known-bad combination of torch and cuDNN that is installed here."""
    if not torch.cuda.is_available():
        return []
    return cudnn_problems(torch.__version__, torch.backends.cudnn.version() or 0)


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; on the CPU and on MPS, whose memory is the host's, available RAM."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
