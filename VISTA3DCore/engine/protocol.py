"""Protocol version 1: JSON-RPC 2.0 between a client and the engine process; see Documentation/protocol.md.

This is the one place to import from. It holds the methods, the envelopes, the notifications and the messages about
models and this computer; those about volumes are in :mod:`VISTA3DCore.engine.messages`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from VISTA3DCore.engine.errors import (  # noqa: F401 - others import them from here
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
from VISTA3DCore.engine.messages import (  # noqa: F401 - others import them from here
    ArrayRef,
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
    Message,
    ModelInfo,
    OpenParams,
    OpenResult,
    Params,
    PartialInfo,
    Result,
    SegmentParams,
    SegmentResult,
    SuggestionInfo,
    SuggestParams,
    SuggestResult,
    UncertaintyParams,
    UncertaintyResult,
    WarmParams,
    WarmResult,
    arrays_in,
)

PROTOCOL_VERSION = 1

# Notifications


@dataclass(frozen=True, eq=False, repr=False)
class ProgressParams(Params):
    """How far the request ``id`` is: fraction in 0..1; ``partial`` where it was asked for and is due."""

    id: Id
    fraction: float
    stage: str
    message: str = ""
    remaining_s: float | None = None
    partial: PartialInfo | None = None


@dataclass(frozen=True, eq=False, repr=False)
class NoticeParams(Params):
    """A sentence for people that belongs to no result."""

    message: str


@dataclass(frozen=True, eq=False, repr=False)
class CancelParams(Params):
    """Which request to stop."""

    id: Id


# Messages about the engine, its models and this computer


@dataclass(frozen=True, eq=False, repr=False)
class NoParams(Params):
    """Nothing."""


@dataclass(frozen=True, eq=False, repr=False)
class StatusResult(Result):
    """``queue``: requests that wait; ``busy``: the method that runs now."""

    sessions: tuple[str, ...]
    memory: Memory
    queue: int
    busy: str | None


@dataclass(frozen=True, eq=False, repr=False)
class ModelDetails(Message):
    """What is known of a model; ``state`` and ``detail`` as :class:`VISTA3DCore.models.store.ModelStatus` says.

    ``size``: bytes on this computer; ``download_size``: bytes to fetch, about; ``path``: None while it is not here;
    ``claimed``: how many structures it claims to segment well, None where nothing is recorded; ``cleanup``: whether
    specks are removed from its automatic results by default, False from engines that do not report it.
    """

    name: str
    title: str
    state: str
    detail: str
    size: int
    download_size: int
    path: str | None
    licence: str
    licence_url: str
    bundled: bool
    revision: str
    label_set: str
    claimed: int | None = None
    cleanup: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ModelsResult(Result):
    """``folder``: where models are kept."""

    models: tuple[ModelDetails, ...]
    folder: str


@dataclass(frozen=True, eq=False, repr=False)
class ModelParams(Params):
    """One model, by name."""

    model: str


@dataclass(frozen=True, eq=False, repr=False)
class ProbeParams(Params):
    """How fast a model runs: one window of it is computed. Any other request goes first."""

    model: str
    device: str = "auto"
    runtime: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True, eq=False, repr=False)
class ProbeResult(Result):
    """``window_ms``: of one window; ``window``, ``spacing``, ``device``: as :class:`OpenResult` has them."""

    window_ms: float
    window: tuple[int, int, int]
    spacing: tuple[float, float, float]
    device: str


@dataclass(frozen=True, eq=False, repr=False)
class LicenceResult(Result):
    """``text``: the whole license."""

    title: str
    url: str
    text: str


@dataclass(frozen=True, eq=False, repr=False)
class DownloadParams(Params):
    """``accept_licence``: the user has read the licence and agrees."""

    model: str
    accept_licence: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ImportParams(Params):
    """``path``: of the weights file; ``model``: which one it is, if the file does not say so itself."""

    path: str
    model: str | None = None
    accept_licence: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class ModelResult(Result):
    """What is known of the model now."""

    model: ModelDetails


@dataclass(frozen=True, eq=False, repr=False)
class DiagnoseResult(Result):
    """See :func:`VISTA3DCore.engine.diagnosis.diagnose`; ``problems`` are sentences for people."""

    system: dict[str, Any]
    torch: dict[str, Any] | None
    nvidia: tuple[dict[str, Any], ...]
    packages: dict[str, Any]
    models: dict[str, str]
    problems: tuple[str, ...]


# Methods


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

    :raises ProtocolError: if it is none; :func:`identity_of` returns which request to answer with the error.
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
