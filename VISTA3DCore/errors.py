"""Errors for people and for programs.

Every error says in one or two sentences what is wrong and what to do. The command line shows them as they are; another
front end words the hint itself, see :meth:`VistaError.sentence`. ``code`` is stable and meant for programs,
``exit_code`` is what the command line returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from VISTA3DCore.hints import HINTS


class VistaError(Exception):
    """Base of every error that the engine raises on purpose.

    Every subclass is known by its ``code`` (its own, or one made from its name), and crosses the engine's wire as
    itself.

    :param problem: what is wrong: whole sentences, or with a hint one without the period. ``{name}`` stands for a fact.
    :param hint: what to do about it, a key of :data:`VISTA3DCore.hints.HINTS`.
    :param facts: JSON values that problem and hint speak of, e.g. ``{"model": "mini"}``.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    #: The number of the error in JSON-RPC; subclasses without one of their own share their base's.
    number: ClassVar[int] = -32000
    by_code: ClassVar[dict[str, type[VistaError]]] = {}

    def __init__(self, problem: str = "", *, hint: str | None = None, facts: Mapping[str, Any] | None = None) -> None:
        self.problem, self.hint, self.facts = problem, hint, dict(facts or {})
        super().__init__(self.sentence(HINTS))

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=.)(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()
        known = VistaError.by_code.get(cls.code, cls)
        # A module that is loaded again defines its classes again.
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"The code '{cls.code}' of {cls.__qualname__} belongs to {known.__qualname__}.")
        VistaError.by_code[cls.code] = cls

    def sentence(self, hints: Mapping[str, str], facts: Mapping[str, Any] | None = None) -> str:
        """Return the problem and what to do about it, as one front end says it.

        :param hints: words for every hint; they follow the problem as they are, punctuation included.
        :param facts: the front end's own words for some facts.
        """
        named = {**self.facts, **(facts or {})}
        template = self.problem if self.hint is None else self.problem + hints.get(self.hint, ".")
        return re.sub(r"\{(\w+)\}", lambda found: _text(named[found[1]]) if found[1] in named else found[0], template)


VistaError.by_code[VistaError.code] = VistaError


def _text(fact: Any) -> str:
    return ", ".join(map(str, fact)) if isinstance(fact, list | tuple) else str(fact)


class InputError(VistaError):
    """An image, its geometry or a parameter cannot be used."""

    code = "input"
    number = -32001
    exit_code = 3


class UnknownStructureError(InputError):
    """A structure name, index or group is unknown or unusable; the message carries the closest suggestions."""

    code = "unknown-structure"
    number = -32002
    exit_code = 2


class ModelError(VistaError):
    """A model is missing, damaged, of the wrong kind, or lacks what was asked of it."""

    code = "model"
    number = -32003
    exit_code = 4


class LicenseNotAcceptedError(ModelError):
    """The model's license must be read and accepted before the download."""

    code = "licence"
    number = -32004


class OfflineError(ModelError):
    """The model is not on this computer and it may not, or cannot, be downloaded."""

    code = "offline"
    number = -32005


class DeviceError(VistaError):
    """The computing device is missing or too small."""

    code = "device"
    number = -32006
    exit_code = 5


class MissingPackageError(DeviceError):
    """A package that only this task needs is not installed."""

    code = "missing-package"
    number = -32014


class NotEnoughMemoryError(DeviceError):
    """Memory ran out, and every way to use less of it was tried."""

    code = "not-enough-memory"
    number = -32015


class OutputError(VistaError):
    """A result cannot be written; nothing was left behind."""

    code = "output"
    number = -32007
    exit_code = 6


class TrainingError(VistaError):
    """Training went wrong and stopped; the last good state is kept."""

    code = "training"
    number = -32016


class Cancelled(VistaError):  # noqa: N818 - a decision of the user, not an error
    """The user stopped the work; nothing was changed."""

    code = "cancelled"
    number = -32008
    exit_code = 130

    def __init__(self, problem: str = "Canceled; nothing was changed.", **details: Any) -> None:
        super().__init__(problem, **details)


class SlowerWarning(UserWarning):
    """The work continues, but slower than asked for: to be reported at once, not with the result."""


_RUNTIME_PACKAGES = ("torch", "monai")


@contextmanager
def runtime_errors() -> Iterator[None]:
    """Turn the import error of a missing or broken runtime into a sentence.

    :raises DeviceError: instead of an ImportError that names torch or monai.
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _RUNTIME_PACKAGES:
            raise
        if isinstance(error, ModuleNotFoundError):
            raise DeviceError(f"{name} is not installed", hint="install-runtime") from error
        raise DeviceError(f"{name} is installed but cannot be loaded ({error}); reinstall it.") from error
