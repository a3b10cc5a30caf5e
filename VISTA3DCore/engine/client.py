"""One client of one engine process: requests to bytes, bytes to events, and each event to its request's handler.

It has no threads, sockets, pipes or clocks; a transport moves the bytes (threads in scripts, the signals of a
``QProcess`` in Slicer). Needs numpy and the standard library alone.
"""

from __future__ import annotations

import contextlib
import copy
import operator
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import VISTA3DCore
from VISTA3DCore.engine.framing import FrameReader, encode
from VISTA3DCore.engine.messages import Corners
from VISTA3DCore.engine.protocol import (
    CANCEL,
    EXIT,
    METHODS,
    NOTICE,
    PROGRESS,
    PROTOCOL_VERSION,
    CancelParams,
    ClientInfo,
    FramingError,
    InitializeParams,
    NoParams,
    NoticeParams,
    Notification,
    Params,
    PartialInfo,
    ProgressParams,
    ProtocolError,
    Reply,
    Result,
    SegmentParams,
    WorkerGoneError,
    exception_from,
    notification_message,
    read_message,
    request_message,
)
from VISTA3DCore.errors import UnknownStructureError, VistaError
from VISTA3DCore.imaging.geometry import to_region
from VISTA3DCore.models.registry import REGISTRY

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.engine.transports import Transport
    from VISTA3DCore.imaging.geometry import Region

    Target = str | int | Structure | None


@dataclass(frozen=True)
class Response:
    """A request succeeded; ``result`` has the type that ``METHODS`` names, None for null."""

    id: int
    result: Any


@dataclass(frozen=True)
class Failure:
    """A request failed; no further event has its id."""

    id: int
    error: VistaError


@dataclass(frozen=True)
class ProgressEvent:
    """How far a request is; see :class:`VISTA3DCore.progress.ProgressUpdate`.

    :param partial: the partial result, where the request asked for it; its files belong to the client.
    """

    id: int
    fraction: float
    stage: str
    message: str
    remaining_s: float | None
    partial: PartialInfo | None = None


Event = Response | Failure | ProgressEvent
Handler = Callable[[Event], object]


class _OpenRequest(NamedTuple):
    method: str
    handler: Handler


class EngineClient:
    """Sends requests over a transport and passes the events of each to its handler.

    Several threads may use it. Handlers run in the transport's thread (in Slicer: the main one), in order, without a
    lock held; the last event of a request is a :class:`Response` or a :class:`Failure`.

    :param on_notice: receives sentences for people.
    :param on_lost: is called once when the connection is over, after all open requests have failed.
    """

    def __init__(
        self,
        transport: Transport,
        on_notice: Callable[[str], object] = lambda _message: None,
        on_lost: Callable[[VistaError], object] = lambda _error: None,
    ) -> None:
        self._transport, self._on_notice, self._on_lost = transport, on_notice, on_lost
        self._reader = FrameReader()
        self._open: dict[int, _OpenRequest] = {}
        self._last_id = 0
        self._lost: VistaError | None = None
        self._lock = threading.RLock()
        transport.on_bytes, transport.on_closed = self._receive, self._disconnect

    @property
    def has_pending(self) -> bool:
        """Whether some requests are not answered yet."""
        return bool(self._open)

    def start(self) -> None:
        """Start the engine process.

        :raises WorkerGoneError: if it cannot be started.
        """
        self._transport.start()

    def submit(self, method: str, params: Params | None, handler: Handler) -> int:
        """Send a request and return its id; the handler may be called before this returns.

        :raises WorkerGoneError: if the connection is over. :raises ProtocolError: if it cannot be encoded.
        """
        with self._lock:
            if self._lost is not None:
                raise WorkerGoneError(str(self._lost))
            data = encode(request_message(self._last_id + 1, method, params or NoParams()))
            self._last_id += 1
            identity = self._last_id
            self._open[identity] = _OpenRequest(method, handler)
        self._transport.write(data)
        return identity

    def cancel(self, identity: int) -> None:
        """Ask to stop a request if it is still open; it is answered all the same."""
        with self._lock:
            if identity not in self._open:
                return
        self._transport.write(encode(notification_message(CANCEL, CancelParams(identity))))

    def kill(self) -> None:
        """End the engine process at once."""
        self._transport.kill()

    def close(self) -> None:
        """Let the engine process end. Open requests fail."""
        with contextlib.suppress(WorkerGoneError):
            self._transport.write(encode(notification_message(EXIT, NoParams())))
        self._transport.close()
        self._disconnect("The engine process was stopped.")

    # What arrives: it is read under the lock, and handlers are called without it.

    def _receive(self, data: bytes) -> None:
        with self._lock:
            calls = self._read(data)
        for call in calls:
            call()

    def _disconnect(self, reason: str) -> None:
        with self._lock:
            calls = self._end(WorkerGoneError(reason))
        for call in calls:
            call()

    def _read(self, data: bytes) -> list[Callable[[], object]]:
        """Return the calls that bytes from the engine lead to; a violation of the protocol ends the connection."""
        if self._lost is not None:
            return []
        violation: ProtocolError | None = None
        try:
            messages = self._reader.feed(data)
        except FramingError as error:
            messages, violation = error.messages, error
        calls: list[Callable[[], object]] = []
        try:
            for message in messages:
                calls += self._handle(message)
        except ProtocolError as error:
            violation = error
        if violation is not None:
            sentence = f"The engine process sent something that is not of the protocol: {violation}"
            calls += self._end(WorkerGoneError(sentence))
        return calls

    def _handle(self, message: dict[str, Any]) -> list[Callable[[], object]]:
        """:raises ProtocolError: if the message breaks the protocol."""
        parsed = read_message(message)
        if isinstance(parsed, Reply):
            return self._handle_reply(parsed)
        if isinstance(parsed, Notification):
            return self._handle_notification(parsed)
        raise ProtocolError(f"The engine sent a request ('{parsed.method[:100]}'), which only clients do.")

    def _handle_reply(self, reply: Reply) -> list[Callable[[], object]]:
        if reply.id is None and reply.error is not None:
            # The engine could not even read the id: it has lost track of our frames and hangs up.
            raise ProtocolError(f"The engine could not read a request: {exception_from(reply.error)}")
        request = self._open.pop(reply.id, None) if isinstance(reply.id, int) else None
        if request is None:
            return []
        return [partial(request.handler, _event_of(reply, request.method))]

    def _handle_notification(self, notification: Notification) -> list[Callable[[], object]]:
        if notification.method == PROGRESS:
            params = ProgressParams.from_json(notification.params)
            request = self._open.get(params.id) if isinstance(params.id, int) else None
            return [] if request is None else [partial(request.handler, ProgressEvent(**vars(params)))]
        if notification.method == NOTICE:
            return [partial(self._on_notice, NoticeParams.from_json(notification.params).message)]
        return []  # JSON-RPC: unknown notifications are ignored

    def _end(self, error: VistaError) -> list[Callable[[], object]]:
        if self._lost is not None:
            return []
        self._lost = error
        # Each gets an exception of its own, which may be raised in a thread of its own.
        calls: list[Callable[[], object]] = [
            partial(request.handler, Failure(identity, copy.copy(error))) for identity, request in self._open.items()
        ]
        self._open.clear()
        # A process that broke the protocol cannot be trusted to end by itself.
        return [*calls, self._transport.kill, partial(self._on_lost, error)]


def _event_of(reply: Reply, method: str) -> Response | Failure:
    assert isinstance(reply.id, int)
    if reply.error is not None:
        return Failure(reply.id, exception_from(reply.error))
    try:
        return Response(reply.id, _read_result(method, reply.result))
    except VistaError as error:
        return Failure(reply.id, ProtocolError(f"The engine's answer to '{method}' is not valid: {error}"))


def _read_result(method: str, result: Any) -> Result | None:
    """:raises VistaError: if it is not of the method's type."""
    kind = METHODS[method].result if method in METHODS else None
    return None if kind is None else kind.from_json(result)


def initialize_params(
    shared_directory: str | os.PathLike[str],
    name: str,
    version: str = VISTA3DCore.__version__,
    compute: bool = True,
) -> InitializeParams:
    """Return the parameters of ``initialize`` for a client in this process.

    :param name: who asks, for the log.
    :param compute: False for an engine that only manages models.
    """
    client = ClientInfo(name, version)
    return InitializeParams(PROTOCOL_VERSION, client, os.fspath(shared_directory), os.getpid(), compute)


def model_on_wire(model: str | os.PathLike[str]) -> str:
    """Return a model as messages name it: by name, or by a path that holds in the engine's own folder, too."""
    path = Path(model).expanduser()
    is_path = str(model) not in REGISTRY and (path.is_file() or path.parent != Path())
    return str(path.absolute()) if is_path else str(model)


def plain_target(structure: Target) -> str | int | None:
    """Return a structure as messages name it: by name or index, None for a new object.

    :raises UnknownStructureError: if it is nothing of the kind.
    """
    if structure is None or isinstance(structure, str):
        return structure
    index: Any = getattr(structure, "index", structure)
    try:
        return operator.index(index)
    except TypeError as error:
        raise UnknownStructureError(f"'{structure}' is neither the name nor the number of a structure.") from error


def plain_structures(structures: Any) -> tuple[str | int, ...]:
    """Return names, indices and structures, one or several, as messages name them."""
    several = isinstance(structures, Iterable) and not isinstance(structures, str)
    return tuple(cast("str | int", plain_target(one)) for one in (structures if several else (structures,)))


def plain_region(roi: Region | Sequence[float] | None) -> Corners | None:
    """Return a region as six numbers, minimum R A S and maximum R A S in mm.

    :raises InputError: if it is no region.
    """
    region = to_region(roi)
    if region is None:
        return None
    (left, back, bottom), (right, front, top) = region.minimum, region.maximum
    return float(left), float(back), float(bottom), float(right), float(front), float(top)


def segment_params(
    session: str,
    structures: Any,
    preset: str = "bundle",
    restoration: str = "nearest",
    roi: Region | Sequence[float] | None = None,
    streaming: bool | None = None,
    **options: Any,
) -> SegmentParams:
    """Return the parameters of ``segment`` from the arguments of ``Session.segment``.

    :param options: the further fields of :class:`SegmentParams`.
    :raises InputError: if the region is none.
    """
    asked = plain_structures(structures), preset, restoration, plain_region(roi), streaming
    return SegmentParams(session, *asked, **options)
