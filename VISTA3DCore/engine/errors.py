"""Errors of the protocol, and errors on the wire: they arrive as the class that they left as, with hint and facts."""

from __future__ import annotations

from typing import Any

from VISTA3DCore.errors import VistaError
from VISTA3DCore.hints import HINTS


class ProtocolError(VistaError):
    """The other side broke the protocol; also the base of the more exact ones."""

    code = "invalid-request"
    number = -32600


class FramingError(ProtocolError):
    """Bytes that are no frame. The connection cannot be used any more.

    :ivar messages: the complete messages that came before the bad bytes in the same call.
    """

    code = "parse"
    number = -32700

    def __init__(self, problem: str = "", **details: Any) -> None:
        super().__init__(problem, **details)
        self.messages: list[dict[str, Any]] = []


class UnknownMethodError(ProtocolError):
    """There is no such request."""

    code = "unknown-method"
    number = -32601


class InvalidParamsError(ProtocolError):
    """A field is missing, unknown or of the wrong type; the sentence names it."""

    code = "invalid-params"
    number = -32602


class UnsupportedVersionError(ProtocolError):
    """Client and engine speak different versions of the protocol."""

    code = "unsupported-version"
    number = -32010


class NotInitializedError(ProtocolError):
    """The first request must be ``initialize``."""

    code = "not-initialized"
    number = -32011


class UnknownSessionError(VistaError):
    """The session was closed, or never opened."""

    code = "unknown-session"
    number = -32012


class InternalError(VistaError):
    """A defect of the engine."""

    code = "internal"
    number = -32603


class WorkerGoneError(VistaError):
    """The engine process ended, could not be started or does not answer; raised on the client's side only."""

    code = "worker-gone"
    number = -32013


def error_from(exception: BaseException) -> dict[str, Any]:
    """Return the JSON-RPC error object of an exception; whatever is not a :class:`VistaError` is an internal error."""
    if not isinstance(exception, VistaError):
        about = f"{type(exception).__name__}: {exception}".splitlines()[0][:300]
        exception = InternalError(f"The engine failed unexpectedly ({about}); see its log for details.")
    data: dict[str, Any] = {"code": exception.code, "exit_code": exception.exit_code}
    if exception.hint is not None or exception.facts:
        data |= {"problem": exception.problem, "hint": exception.hint, "facts": exception.facts}
    return {"code": exception.number, "message": str(exception), "data": data}


def exception_from(error: Any) -> VistaError:
    """Return the exception that a JSON-RPC error object stands for, with the same sentence; never raises.

    A class that is unknown here becomes the one that its number belongs to; an unknown hint stays in the sentence.
    """
    error = error if isinstance(error, dict) else {}
    data = error["data"] if isinstance(error.get("data"), dict) else {}
    message = error.get("message")
    sentence = message if isinstance(message, str) and message else "The engine reported an error."
    problem, hint, facts = data.get("problem"), data.get("hint"), data.get("facts")
    kind = _class_of(data.get("code"), error.get("code"))
    if isinstance(problem, str) and (hint is None or hint in HINTS) and isinstance(facts, dict):
        return kind(problem, hint=hint, facts=facts)
    return kind(sentence)


def _class_of(code: Any, number: Any) -> type[VistaError]:
    if isinstance(code, str) and code in VistaError.by_code:
        return VistaError.by_code[code]
    same = (kind for kind in VistaError.by_code.values() if type(number) is int and kind.number == number)
    return next(same, VistaError)
