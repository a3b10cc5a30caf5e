"""Protocol version 1: JSON-RPC 2.0 between a client and the engine process; see Documentation/protocol.md.

This is the one place to import from: it holds the methods and envelopes, and hands on the messages and errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from VISTA3DCore.engine.errors import (
    ERROR_CODES,
    FramingError,
    InternalError,
    InvalidParamsError,
    NotInitializedError,
    ProtocolError,
    UnknownMethodError,
    UnknownSessionError,
    UnsupportedVersionError,
    WorkerGoneError,
    error_from,
    exception_from,
)
from VISTA3DCore.engine.messages import (
    ArrayRef,
    CancelParams,
    ClaimInfo,
    ClaimsInfo,
    ClickAnswer,
    ClickParams,
    ClientInfo,
    CloseParams,
    HitParams,
    HitResult,
    Id,
    InitializeParams,
    InitializeResult,
    LoadParams,
    LoadResult,
    Memory,
    ModelInfo,
    NoParams,
    NoticeParams,
    OpenParams,
    OpenResult,
    Params,
    PartialInfo,
    ProgressParams,
    Result,
    SegmentParams,
    SegmentResult,
    StatusResult,
    SuggestionInfo,
    SuggestParams,
    SuggestResult,
    UncertaintyParams,
    UncertaintyResult,
    WarmParams,
    WarmResult,
    arrays_in,
)
from VISTA3DCore.engine.model_messages import (
    DiagnoseResult,
    DownloadParams,
    ImportParams,
    LicenceResult,
    ModelDetails,
    ModelParams,
    ModelResult,
    ModelsResult,
    ProbeParams,
    ProbeResult,
)

__all__ = [
    "CANCEL",
    "ERROR_CODES",
    "EXIT",
    "METHODS",
    "NOTICE",
    "NOTIFICATIONS",
    "PROGRESS",
    "PROTOCOL_VERSION",
    "ArrayRef",
    "CancelParams",
    "ClaimInfo",
    "ClaimsInfo",
    "ClickAnswer",
    "ClickParams",
    "ClientInfo",
    "CloseParams",
    "DiagnoseResult",
    "DownloadParams",
    "FramingError",
    "HitParams",
    "HitResult",
    "Id",
    "ImportParams",
    "InitializeParams",
    "InitializeResult",
    "InternalError",
    "InvalidParamsError",
    "LicenceResult",
    "LoadParams",
    "LoadResult",
    "Memory",
    "Method",
    "ModelDetails",
    "ModelInfo",
    "ModelParams",
    "ModelResult",
    "ModelsResult",
    "NoParams",
    "NotInitializedError",
    "NoticeParams",
    "Notification",
    "OpenParams",
    "OpenResult",
    "Params",
    "PartialInfo",
    "ProbeParams",
    "ProbeResult",
    "ProgressParams",
    "ProtocolError",
    "Reply",
    "Request",
    "Result",
    "SegmentParams",
    "SegmentResult",
    "StatusResult",
    "SuggestParams",
    "SuggestResult",
    "SuggestionInfo",
    "UncertaintyParams",
    "UncertaintyResult",
    "UnknownMethodError",
    "UnknownSessionError",
    "UnsupportedVersionError",
    "WarmParams",
    "WarmResult",
    "WorkerGoneError",
    "arrays_in",
    "error_from",
    "error_message",
    "exception_from",
    "identity_of",
    "notification_message",
    "read_message",
    "request_message",
    "result_message",
]

PROTOCOL_VERSION = 1


class Method(NamedTuple):
    """Types of one request; ``result`` None: the result is null."""

    params: type[Params]
    result: type[Result] | None


METHODS: dict[str, Method] = {
    "initialize": Method(InitializeParams, InitializeResult),
    "load": Method(LoadParams, LoadResult),
    "probe": Method(ProbeParams, ProbeResult),
    "open": Method(OpenParams, OpenResult),
    "segment": Method(SegmentParams, SegmentResult),
    "click": Method(ClickParams, ClickAnswer),
    "warm": Method(WarmParams, WarmResult),
    "hit": Method(HitParams, HitResult),
    "suggest": Method(SuggestParams, SuggestResult),
    "uncertainty": Method(UncertaintyParams, UncertaintyResult),
    "close": Method(CloseParams, None),
    "models": Method(NoParams, ModelsResult),
    "licence": Method(ModelParams, LicenceResult),
    "download": Method(DownloadParams, ModelResult),
    "import": Method(ImportParams, ModelResult),
    "verify": Method(ModelParams, ModelResult),
    "delete": Method(ModelParams, None),
    "diagnose": Method(NoParams, DiagnoseResult),
    "status": Method(NoParams, StatusResult),
    "shutdown": Method(NoParams, None),
}
PROGRESS, NOTICE, CANCEL, EXIT = "$/progress", "$/notice", "$/cancelRequest", "exit"
NOTIFICATIONS: dict[str, type[Params]] = {
    PROGRESS: ProgressParams,
    NOTICE: NoticeParams,
    CANCEL: CancelParams,
    EXIT: NoParams,
}


@dataclass(frozen=True)
class Request:
    """A message with ``id`` and ``method``."""

    id: Id
    method: str
    params: dict[str, Any] = field(default_factory=dict)

    def parsed(self) -> Params:
        """:raises UnknownMethodError, InvalidParamsError: if it is none of ours."""
        if self.method not in METHODS:
            raise UnknownMethodError(f"There is no method '{self.method[:100]}'; known are: {', '.join(METHODS)}.")
        return METHODS[self.method].params.from_json(self.params)


@dataclass(frozen=True)
class Notification:
    """A message with ``method`` alone."""

    method: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A message that answers a request: a result, or an error object. ``id`` is None if it could not be read."""

    id: Id | None
    result: Any = None
    error: dict[str, Any] | None = None


def read_message(message: dict[str, Any]) -> Request | Notification | Reply:
    """Return what a JSON-RPC message is.

    :raises ProtocolError: if it is none; :func:`identity_of` tells which request to answer with the error.
    """
    if message.get("jsonrpc") != "2.0":
        raise ProtocolError("A message is not JSON-RPC 2.0.")
    return _read_call(message) if "method" in message else _read_reply(message)


def identity_of(message: dict[str, Any]) -> Id | None:
    """Return the id of a message that may be malformed, or None."""
    identity = message.get("id")
    return identity if type(identity) in (int, str) else None


def _read_call(message: dict[str, Any]) -> Request | Notification:
    method, params = message["method"], message.get("params", {})
    if not isinstance(method, str):
        raise ProtocolError("The 'method' of a message is not a string.")
    if not isinstance(params, dict):
        raise InvalidParamsError("The 'params' of a message must be an object.")
    if "id" not in message:
        return Notification(method, params)
    return Request(_read_id(message["id"]), method, params)


def _read_reply(message: dict[str, Any]) -> Reply:
    if "id" not in message or ("result" in message) == ("error" in message):
        raise ProtocolError("A message is neither a request nor a notification nor a response.")
    identity = message["id"] if message["id"] is None else _read_id(message["id"])
    if "result" in message:
        return Reply(identity, message["result"])
    if not isinstance(message["error"], dict):
        raise ProtocolError("The 'error' of a response is not an object.")
    return Reply(identity, error=message["error"])


def _read_id(value: Any) -> Id:
    if type(value) not in (int, str):
        raise ProtocolError("The 'id' of a message is neither an integer nor a string.")
    return value


def request_message(identity: Id, method: str, params: Params) -> dict[str, Any]:
    """Return a request."""
    return {"jsonrpc": "2.0", "id": identity, "method": method, "params": params.to_json()}


def notification_message(method: str, params: Params) -> dict[str, Any]:
    """Return a notification."""
    return {"jsonrpc": "2.0", "method": method, "params": params.to_json()}


def result_message(identity: Id, result: Result | None) -> dict[str, Any]:
    """Return the response to a request that succeeded."""
    return {"jsonrpc": "2.0", "id": identity, "result": None if result is None else result.to_json()}


def error_message(identity: Id | None, exception: BaseException) -> dict[str, Any]:
    """Return the response to a request that failed; ``identity`` is None if the request could not be read."""
    return {"jsonrpc": "2.0", "id": identity, "error": error_from(exception)}
