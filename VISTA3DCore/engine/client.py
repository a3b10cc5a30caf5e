"""The client's half of the protocol as a state machine: requests to bytes, bytes to events.

It has no threads, sockets, pipes or clocks; whoever uses it moves the bytes (a thread in scripts, the signals of a
``QProcess`` in Slicer). Needs numpy and the standard library alone.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import VISTA3DCore
from VISTA3DCore.engine.framing import FrameReader, encode
from VISTA3DCore.engine.protocol import (
    CANCEL,
    METHODS,
    NOTICE,
    PROGRESS,
    PROTOCOL_VERSION,
    ArrayRef,
    CancelParams,
    ClickParams,
    ClientInfo,
    CloseParams,
    FramingError,
    HitParams,
    InitializeParams,
    LoadParams,
    NoParams,
    NoticeParams,
    Notification,
    OpenParams,
    Params,
    PartialInfo,
    ProbeParams,
    ProgressParams,
    ProtocolError,
    Reply,
    Result,
    SegmentParams,
    SuggestParams,
    UncertaintyParams,
    WarmParams,
    WorkerGoneError,
    exception_from,
    notification_message,
    read_message,
    request_message,
)
from VISTA3DCore.errors import UnknownStructureError, VistaError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import to_region
from VISTA3DCore.models.registry import REGISTRY

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.imaging.geometry import Region

    Target = str | int | Structure | None

Sent = tuple[int, bytes]


@dataclass(frozen=True)
class Response:
    """A request succeeded; ``result`` has the type that ``METHODS`` says, None for null."""

    id: int
    result: Result | None


@dataclass(frozen=True)
class Failure:
    """A request failed; no further event has its id."""

    id: int
    error: VistaError


@dataclass(frozen=True)
class ProgressEvent:
    """How far a request is; see :class:`VISTA3DCore.progress.ProgressUpdate`.

    :param partial: what is known of the result, where the request wished that; its files are the client's.
    """

    id: int
    fraction: float
    stage: str
    message: str
    remaining_s: float | None
    partial: PartialInfo | None = None


@dataclass(frozen=True)
class Notice:
    """A sentence for people."""

    message: str


@dataclass(frozen=True)
class Broken:
    """The connection is over: the last event. All open requests have failed before it."""

    error: VistaError


Event = Response | Failure | ProgressEvent | Notice | Broken


class EngineClient:
    """One connection with one engine process."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._pending: dict[int, str] = {}
        self._last = 0
        self._broken: VistaError | None = None

    @property
    def has_pending(self) -> bool:
        """Whether requests are not answered yet."""
        return bool(self._pending)

    @property
    def broken(self) -> VistaError | None:
        """Why the connection is over, or None."""
        return self._broken

    def request(self, method: str, params: Params | None = None) -> Sent:
        """Return the id of a new request and the bytes to send.

        :raises ProtocolError: if it cannot be written; :raises WorkerGoneError: if the connection is over.
        """
        if self._broken is not None:
            raise WorkerGoneError(str(self._broken))
        data = encode(request_message(self._last + 1, method, params or NoParams()))
        self._last += 1
        self._pending[self._last] = method
        return self._last, data

    def cancel(self, id: int) -> bytes:  # noqa: A002 - as the protocol calls it
        """Return the bytes that ask to stop a request; it is answered all the same."""
        return self.notify(CANCEL, CancelParams(id))

    def notify(self, method: str, params: Params | None = None) -> bytes:
        """Return the bytes of a notification."""
        return encode(notification_message(method, params or NoParams()))

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the engine and return what they tell, in order; never raises.

        A violation of the protocol ends the connection: all open requests fail, and the last event is :class:`Broken`.
        """
        if self._broken is not None:
            return []
        violation = None
        try:
            messages = self._reader.feed(data)
        except FramingError as error:
            messages, violation = error.messages, error
        events: list[Event] = []
        try:
            for message in messages:
                events += self._handle(message)
        except ProtocolError as error:
            violation = error
        return events if violation is None else events + self._break(violation)

    def connection_lost(self, reason: str) -> list[Event]:
        """Return the events of a lost connection: each open request fails once.

        :param reason: a sentence for people.
        """
        return [] if self._broken is not None else self._end(WorkerGoneError(reason))

    # Requests from the types of the engine

    def initialize(
        self, shared_directory: str | os.PathLike[str], name: str, version: str = VISTA3DCore.__version__
    ) -> Sent:
        """Ask for ``initialize``; must be the first request."""
        return self.request("initialize", initialize_params(shared_directory, name, version))

    def load(self, model: str, device: str = "auto", **options: str) -> Sent:
        """Ask for ``load``; options are the further fields of :class:`LoadParams`."""
        return self.request("load", LoadParams(model_on_wire(model), device, **options))

    def probe(self, model: str, device: str = "auto", **options: str) -> Sent:
        """Ask for ``probe``; options are the further fields of :class:`ProbeParams`."""
        return self.request("probe", ProbeParams(model_on_wire(model), device, **options))

    def open(
        self,
        volume: ArrayRef,
        model: str,
        name: str = "",
        modality: str | None = None,
        device: str = "auto",
        **options: str,
    ) -> Sent:
        """Ask for ``open``; options are the further fields of :class:`OpenParams`."""
        return self.request("open", OpenParams(volume, model_on_wire(model), name, modality, device, **options))

    def segment(self, session: str, structures: Any, **options: Any) -> Sent:
        """Ask for ``segment``; see :func:`segment_params`."""
        return self.request("segment", segment_params(session, structures, **options))

    def click(self, session: str, structure: Target, clicks: Iterable[Click], **options: Any) -> Sent:
        """Ask for ``click``; options are the further fields of :class:`ClickParams`."""
        return self.request("click", ClickParams(session, plain_target(structure), tuple(clicks), **options))

    def warm(self, session: str, position: Sequence[float], policy: str = "reuse") -> Sent:
        """Ask for ``warm``."""
        return self.request("warm", WarmParams(session, Click(tuple(position)).position, policy))

    def hit(self, session: str, structure: str | int | Structure, position: Sequence[float]) -> Sent:
        """Ask for ``hit``."""
        return self.request("hit", HitParams(session, plain_target(structure), Click(tuple(position)).position))

    def suggest(self, session: str, structure: Target, clicks: Iterable[Click] = (), **options: Any) -> Sent:
        """Ask for ``suggest``; options are the further fields of :class:`SuggestParams`."""
        return self.request("suggest", SuggestParams(session, plain_target(structure), tuple(clicks), **options))

    def uncertainty(
        self, session: str, structure: Target, clicks: Iterable[Click] = (), base: ArrayRef | None = None
    ) -> Sent:
        """Ask for ``uncertainty``."""
        return self.request("uncertainty", UncertaintyParams(session, plain_target(structure), tuple(clicks), base))

    def close(self, session: str) -> Sent:
        """Ask for ``close``."""
        return self.request("close", CloseParams(session))

    def status(self) -> Sent:
        """Ask for ``status``."""
        return self.request("status")

    def shutdown(self) -> Sent:
        """Ask for ``shutdown``."""
        return self.request("shutdown")

    # Events

    def _handle(self, message: dict[str, Any]) -> list[Event]:
        """:raises ProtocolError: if the message breaks the protocol."""
        parsed = read_message(message)
        if isinstance(parsed, Reply):
            return self._answer(parsed)
        if isinstance(parsed, Notification):
            return self._told(parsed)
        raise ProtocolError(f"The engine sent a request ('{parsed.method[:100]}'), which only clients do.")

    def _answer(self, reply: Reply) -> list[Event]:
        if reply.id is None and reply.error is not None:
            # The engine could not even read the id: it has lost track of our frames and hangs up.
            raise ProtocolError(f"The engine could not read a request: {exception_from(reply.error)}")
        method = self._pending.pop(reply.id, None)
        if method is None:
            return []  # nobody waits for it
        if reply.error is not None:
            return [Failure(reply.id, exception_from(reply.error))]
        try:
            return [Response(reply.id, _read_result(method, reply.result))]
        except VistaError as error:
            return [Failure(reply.id, ProtocolError(f"The engine's answer to '{method}' is not valid: {error}"))]

    def _told(self, notification: Notification) -> list[Event]:
        if notification.method == PROGRESS:
            params = ProgressParams.from_json(notification.params)
            known = type(params.id) is int and params.id in self._pending
            return [ProgressEvent(**vars(params))] if known else []
        if notification.method == NOTICE:
            return [Notice(NoticeParams.from_json(notification.params).message)]
        return []  # as JSON-RPC demands

    def _break(self, violation: ProtocolError) -> list[Event]:
        return self._end(WorkerGoneError(f"The engine process sent something that is not of the protocol: {violation}"))

    def _end(self, error: VistaError) -> list[Event]:
        self._broken = error
        # Each gets an exception of its own: it may be raised in a thread of its own.
        failures = [Failure(identity, type(error)(str(error))) for identity in self._pending]
        self._pending.clear()
        return [*failures, Broken(error)]


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
    :param compute: False for an engine that only keeps house.
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
    try:
        return int(operator.index(getattr(structure, "index", structure)))
    except TypeError as error:
        raise UnknownStructureError(f"'{structure}' is neither the name nor the number of a structure.") from error


def plain_structures(structures: Any) -> tuple[str | int, ...]:
    """Return names, indices and structures, one or several, as messages name them."""
    several = isinstance(structures, Iterable) and not isinstance(structures, str)
    return tuple(plain_target(one) for one in (structures if several else (structures,)))


def plain_region(roi: Region | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return a region as six numbers, minimum R A S and maximum R A S in mm.

    :raises InputError: if it is no region.
    """
    region = to_region(roi)
    return None if region is None else tuple(map(float, (*region.minimum, *region.maximum)))


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
