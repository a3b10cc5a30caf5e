"""Errors on the wire: a JSON-RPC code, a stable word and one sentence; they come back as the same class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from VISTA3DCore.errors import VistaError


class ProtocolError(VistaError):
    """The other side broke the protocol; also the base of the more exact ones."""

    code = "invalid-request"


class FramingError(ProtocolError):
    """Bytes that are no frame. The connection cannot be used any more.

    :ivar messages: the complete messages that came before the bad bytes in the same call.
    """

    code = "parse"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.messages: list[dict[str, Any]] = []


class UnknownMethodError(ProtocolError):
    """There is no such request."""

    code = "unknown-method"


class InvalidParamsError(ProtocolError):
    """A field is missing, unknown or of the wrong type; the sentence names it."""

    code = "invalid-params"


class UnsupportedVersionError(ProtocolError):
    """Client and engine speak different versions of the protocol."""

    code = "unsupported-version"


class NotInitializedError(ProtocolError):
    """The first request must be ``initialize``."""

    code = "not-initialized"


class UnknownSessionError(VistaError):
    """The session was closed, or never opened."""

    code = "unknown-session"


class InternalError(VistaError):
    """A defect of the engine."""

    code = "internal"


class WorkerGoneError(VistaError):
    """The engine process ended, could not be started or does not answer; raised on the client's side only."""

    code = "worker-gone"


#: The JSON-RPC code of each ``VistaError.code``. Numbers are never used twice and never change.
ERROR_CODES = {
    "parse": -32700,
    "invalid-request": -32600,
    "unknown-method": -32601,
    "invalid-params": -32602,
    "internal": -32603,
    "error": -32000,
    "input": -32001,
    "unknown-structure": -32002,
    "model": -32003,
    "licence": -32004,
    "offline": -32005,
    "device": -32006,
    "output": -32007,
    "cancelled": -32008,
    "unsupported-version": -32010,
    "not-initialized": -32011,
    "unknown-session": -32012,
    "worker-gone": -32013,
    "missing-package": -32014,
    "not-enough-memory": -32015,
    "training": -32016,
}

_WORDS = {number: word for word, number in ERROR_CODES.items()}


def _with_subclasses(kind: type[VistaError]) -> Iterator[type[VistaError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _with_subclasses(one)


# Those of this module and of the errors that everything shares; what another module derives comes back as its base.
_CLASSES: dict[str, type[VistaError]] = {
    one.code: one for one in _with_subclasses(VistaError) if one.__module__ in (VistaError.__module__, __name__)
}


def error_from(exception: BaseException) -> dict[str, Any]:
    """Return the JSON-RPC error object of an exception; whatever is no :class:`VistaError` is an internal error."""
    if not isinstance(exception, VistaError):
        about = f"{type(exception).__name__}: {exception}".splitlines()[0][:300]
        exception = InternalError(f"The engine failed unexpectedly ({about}); see its log for details.")
    word = next(one.code for one in type(exception).__mro__ if getattr(one, "code", None) in ERROR_CODES)
    return {
        "code": ERROR_CODES[word],
        "message": str(exception),
        "data": {"code": word, "exit_code": exception.exit_code},
    }


def exception_from(error: Any) -> VistaError:
    """Return the exception that a JSON-RPC error object stands for, with the same sentence; never raises."""
    error = error if isinstance(error, dict) else {}
    data = error.get("data")
    word = data.get("code") if isinstance(data, dict) else None
    if not isinstance(word, str) or word not in _CLASSES:
        number = error.get("code")
        word = _WORDS.get(number, "error") if isinstance(number, int) else "error"
    message = error.get("message")
    return _CLASSES[word](message if isinstance(message, str) and message else "The engine reported an error.")
