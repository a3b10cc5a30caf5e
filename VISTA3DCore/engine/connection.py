"""One engine process in use: a transport, the protocol, and somebody to tell about each request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from VISTA3DCore.engine.client import Broken, EngineClient, Event, Failure, Notice, Response
from VISTA3DCore.engine.protocol import EXIT, Params, WorkerGoneError
from VISTA3DCore.engine.transports import Transport
from VISTA3DCore.errors import VistaError

Handler = Callable[[Event], None]


class Connection:
    """Sends requests over a transport and hands the events of each to its handler.

    May be used by several threads. Handlers are called in the transport's thread (in Slicer: the main one), in order,
    without a lock held; the last event of a request is a :class:`Response` or a :class:`Failure`.

    :param on_notice: gets sentences for people. :param on_broken: is told once when the connection is over, after all
        open requests have failed.
    """

    def __init__(
        self,
        transport: Transport,
        on_notice: Callable[[str], None] = lambda _message: None,
        on_broken: Callable[[VistaError], None] = lambda _error: None,
    ) -> None:
        self._transport, self._on_notice, self._on_broken = transport, on_notice, on_broken
        self._client, self._handlers = EngineClient(), dict[int, Handler]()
        self._lock = threading.RLock()
        transport.on_bytes, transport.on_closed = self._receive, self._lost

    def start(self) -> None:
        """:raises WorkerGoneError: if the engine process cannot be started."""
        self._transport.start()

    def submit(self, method: str, params: Params | None, handler: Handler) -> int:
        """Send a request and return its id; the handler may be called before this returns.

        :raises WorkerGoneError: if the connection is over. :raises ProtocolError: if it cannot be written.
        """
        with self._lock:
            identity, data = self._client.request(method, params)
            self._handlers[identity] = handler
        self._transport.write(data)
        return identity

    def cancel(self, identity: int) -> None:
        """Ask to stop a request, if it is still open; it is answered all the same."""
        with self._lock:
            if identity not in self._handlers:
                return
            data = self._client.cancel(identity)
        self._transport.write(data)

    def kill(self) -> None:
        """End the engine process at once."""
        self._transport.kill()

    def close(self) -> None:
        """Let the engine process end. Open requests fail."""
        with contextlib.suppress(WorkerGoneError):
            self._transport.write(self._client.notify(EXIT))
        self._transport.close()
        self._lost("The engine process was stopped.")

    def _receive(self, data: bytes) -> None:
        with self._lock:
            events = self._with_handlers(self._client.receive(data))
        self._dispatch(events)

    def _lost(self, reason: str) -> None:
        with self._lock:
            events = self._with_handlers(self._client.connection_lost(reason))
        self._dispatch(events)

    def _with_handlers(self, events: list[Event]) -> list[tuple[Event, Handler | None]]:
        return [(event, self._handler(event)) for event in events]

    def _handler(self, event: Event) -> Handler | None:
        if isinstance(event, (Notice, Broken)):
            return None
        if isinstance(event, (Response, Failure)):
            return self._handlers.pop(event.id, None)
        return self._handlers.get(event.id)

    def _dispatch(self, events: list[tuple[Event, Handler | None]]) -> None:
        for event, handler in events:
            if isinstance(event, Notice):
                self._on_notice(event.message)
            elif isinstance(event, Broken):
                # Whoever broke the protocol cannot be trusted to end by itself.
                self._transport.kill()
                self._on_broken(event.error)
            elif handler is not None:
                handler(event)
