"""A client whose bytes a test moves: what it wants to send is returned, and what it makes of bytes as well."""

from __future__ import annotations

from dataclasses import dataclass

from VISTA3DCore.engine.client import EngineClient, Event
from VISTA3DCore.engine.framing import encode
from VISTA3DCore.engine.protocol import EXIT, NoParams, Params, notification_message
from VISTA3DCore.errors import VistaError

FAREWELL = encode(notification_message(EXIT, NoParams()))


@dataclass(frozen=True)
class Notice:
    """``on_notice`` was called."""

    message: str


@dataclass(frozen=True)
class Lost:
    """``on_lost`` was called."""

    error: VistaError


class _Recorder:
    """A transport that moves nothing."""

    def __init__(self) -> None:
        self.written = b""
        self.killed = 0

    def start(self) -> None: ...

    def write(self, data: bytes) -> None:
        self.written += data

    def kill(self) -> None:
        self.killed += 1

    def close(self) -> None: ...


class ManualClient:
    """An :class:`EngineClient`, byte by byte."""

    def __init__(self) -> None:
        self._events: list[Event | Notice | Lost] = []
        self.transport = _Recorder()
        self.client = EngineClient(
            self.transport,
            on_notice=lambda message: self._events.append(Notice(message)),
            on_lost=lambda error: self._events.append(Lost(error)),
        )

    @property
    def has_pending(self) -> bool:
        return self.client.has_pending

    def request(self, method: str, params: Params | None = None) -> tuple[int, bytes]:
        """Return the id of a new request and the bytes that it takes."""
        identity = self.client.submit(method, params, self._events.append)
        return identity, self._take_written()

    def cancel(self, identity: int) -> bytes:
        self.client.cancel(identity)
        return self._take_written()

    def receive(self, data: bytes) -> list[Event | Notice | Lost]:
        """Return what the client makes of bytes, in order."""
        self.transport.on_bytes(data)
        return self._take_events()

    def lose(self, reason: str) -> list[Event | Notice | Lost]:
        """Return what the client makes of the end of the connection."""
        self.transport.on_closed(reason)
        return self._take_events()

    def _take_written(self) -> bytes:
        written, self.transport.written = self.transport.written, b""
        return written

    def _take_events(self) -> list[Event | Notice | Lost]:
        events = list(self._events)
        self._events.clear()
        return events
