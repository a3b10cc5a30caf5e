"""Errors for people: every message is one or two sentences that say what is wrong and what to do.

The graphical interface and the command line show the message as it is. ``code`` is stable and meant for programs,
``exit_code`` is what the command line returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class VistaError(Exception):
    """Base of every error that the engine raises on purpose."""

    code = "error"
    exit_code = 1


class InputError(VistaError):
    """An image, its geometry or a parameter cannot be used."""

    code = "input"
    exit_code = 3


class UnknownStructureError(InputError):
    """A structure name, index or group is unknown or unusable; the message carries the closest suggestions."""

    code = "unknown-structure"
    exit_code = 2


class ModelError(VistaError):
    """A model is missing, damaged, of the wrong kind, or lacks what was asked of it."""

    code = "model"
    exit_code = 4


class LicenseNotAcceptedError(ModelError):
    """The model's licence must be read and accepted before the download."""

    code = "licence"


class OfflineError(ModelError):
    """The model is not on this computer and it may not, or cannot, be downloaded."""

    code = "offline"


class DeviceError(VistaError):
    """The computing device is not there or too small."""

    code = "device"
    exit_code = 5


class MissingPackageError(DeviceError):
    """A package that only this task needs is not installed."""

    code = "missing-package"


class NotEnoughMemoryError(DeviceError):
    """Memory ran out, and every way of doing with less was tried."""

    code = "not-enough-memory"


class OutputError(VistaError):
    """A result cannot be written; nothing was left behind."""

    code = "output"
    exit_code = 6


class TrainingError(VistaError):
    """Training went wrong and stopped; the last good state is kept."""

    code = "training"


class Cancelled(VistaError):  # noqa: N818 - a decision of the user, not an error
    """The user stopped the work; nothing was changed."""

    code = "cancelled"
    exit_code = 130

    def __init__(self, message: str = "Canceled; nothing was changed.") -> None:
        super().__init__(message)


class SlowerWarning(UserWarning):
    """The work goes on, but slower than asked for: something to tell at once, not with the result."""


_RUNTIME_PACKAGES = ("torch", "monai")


@contextmanager
def runtime_errors() -> Iterator[None]:
    """Say in a sentence that the network's runtime is missing or broken.

    :raises DeviceError: instead of an ImportError that names torch or monai.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _RUNTIME_PACKAGES:
            raise
        if isinstance(error, ModuleNotFoundError):
            how = "install the engine's runtime with: pip install torch monai."
            raise DeviceError(f"{name} is not installed; {how}") from error
        raise DeviceError(f"{name} is installed but cannot be loaded ({error}); reinstall it.") from error
