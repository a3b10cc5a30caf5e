"""Keeps one engine process alive: starts it, shakes hands, looks after its health, starts it again when it ends."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from VISTA3DCore.engine.client import Event, ProgressEvent, Response
from VISTA3DCore.engine.connection import Connection, Handler
from VISTA3DCore.engine.protocol import InitializeParams, InitializeResult, Params, WorkerGoneError
from VISTA3DCore.engine.transports import Transport
from VISTA3DCore.errors import VistaError

STOPPED, STARTING, READY, WAITING, FAILED, CLOSED = "stopped", "starting", "ready", "waiting", "failed", "closed"

CallLater = Callable[[float, Callable[[], None]], Any]


@dataclass(frozen=True)
class Patience:
    """Times in seconds.

    :param first_pause: before the first restart; doubles up to ``longest_pause``.
    :param restarts: failures in a row after which nothing is tried any more until the next request.
    :param handshake: how long a process may take to start (torch from a cold network drive takes minutes).
    :param health: between two looks at a process; after ``missed`` looks without an answer it is restarted.
    """

    first_pause: float = 0.2
    longest_pause: float = 10.0
    restarts: int = 8
    handshake: float = 300.0
    health: float = 15.0
    missed: int = 4

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return min(self.first_pause * 2 ** (failures - 1), self.longest_pause)


class Agenda:
    """A lock, and what is to be done once it is released.

    State changes under the lock; calls to others (handlers, transports) follow without it, so that they may call back
    or wait for other threads.
    """

    def __init__(self) -> None:
        self._lock, self._due = threading.RLock(), list[Callable[[], None]]()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            yield
            due, self._due = self._due, []
        with contextlib.ExitStack() as stack:  # all of them, even if one raises
            for call in reversed(due):
                stack.callback(call)

    def add(self, function: Callable[..., None], *arguments: Any) -> None:
        """Note a call; the lock is held."""
        self._due.append(partial(function, *arguments))


class Keeper:
    """The life of the engine process. Everything here happens under the agenda's lock.

    :param start: makes a transport for each new process.
    :param hello: the parameters of ``initialize``.
    :param owner: is told (under the lock) ``_on_up()`` when a process has shaken hands, ``_on_down()`` when it is gone,
        and ``_on_given_up(error)`` when no other one will be started. Has ``on_report``, ``on_state``, ``on_notice``.
    """

    def __init__(
        self,
        agenda: Agenda,
        start: Callable[[], Transport],
        hello: InitializeParams,
        owner: Any,
        call_later: CallLater,
        patience: Patience,
    ) -> None:
        self.state, self.info, self.connection = STOPPED, None, None
        # Each process has a number, so that news of a former one are known as such.
        self.life = 0
        self._agenda, self._start, self._hello, self._owner = agenda, start, hello, owner
        self._call_later, self._timers, self._patience = call_later, dict[str, Any](), patience
        self._failures, self._reported, self._missed, self._asked, self._greeted = 0, False, 0, False, 0

    info: InitializeResult | None
    connection: Connection | None

    def wake(self) -> None:
        """Start a process, unless there is one or will be one soon."""
        if self.state in (STOPPED, FAILED):
            self._begin()

    def ready(self) -> None:
        """All that was open is open again."""
        self._set_state(READY)
        self._reported = False

    def succeeded(self) -> None:
        """The process proved to work: the next failure is a first one."""
        self._failures = 0

    def close(self) -> None:
        """End the process for good."""
        self._set_state(CLOSED)
        self.life += 1
        for kind in list(self._timers):
            self._stop_timer(kind)
        if self.connection is not None:
            self._agenda.add(self.connection.close)

    def send(self, method: str, params: Params | None, handler: Handler = lambda _event: None) -> None:
        """Send a request that is not the user's."""
        if self.connection is not None:
            self._agenda.add(_submit_quietly, self.connection, method, params, handler)

    # Starting

    def _begin(self) -> None:
        self._set_state(STARTING)
        self.life += 1
        self._later("handshake", self._patience.handshake, partial(self._on_late, self.life))
        self._agenda.add(self._launch, self.life)

    def _launch(self, life: int) -> None:
        try:
            connection = Connection(self._start(), self._tell_notice, partial(self._lost, life))
            with self._agenda():
                self.connection = connection if life == self.life else self.connection
            connection.start()
            if life != self.life:
                connection.kill()
                return
            connection.submit("initialize", self._hello, partial(self._on_initialized, life))
        except VistaError as error:
            self._lost(life, error)
        except Exception as error:
            self._lost(life, WorkerGoneError(f"The engine process cannot be started ({error})."))

    def _on_initialized(self, life: int, event: Event) -> None:
        with self._agenda():
            if life != self.life or isinstance(event, ProgressEvent):
                return
            self._stop_timer("handshake")
            self._greeted = life
            if isinstance(event, Response):
                self.info = event.result
                self._missed, self._asked = 0, False
                self._later("health", self._patience.health, partial(self._check, life))
                self._owner._on_up()
            elif not isinstance(event.error, WorkerGoneError):  # else the end of the connection is told next
                self._give_up(event.error)

    def _on_late(self, life: int) -> None:
        # Not every kind of timer can be stopped (QTimer.singleShot cannot), so it may be about a greeting that came.
        if life != self._greeted:
            self._lost(
                life, WorkerGoneError(f"The engine process did not start within {self._patience.handshake:g} s.")
            )

    # Ending

    def _lost(self, life: int, error: VistaError) -> None:
        """The process ended, could not be started, or does not answer."""
        with self._agenda():
            if life != self.life:
                return
            self._forget()
            self._report(error)
            self._failures += 1
            if self._failures > self._patience.restarts:
                self._give_up(error)
                return
            self._set_state(WAITING)
            self._later("restart", self._patience.pause(self._failures), partial(self._restart, self.life))

    def _restart(self, life: int) -> None:
        with self._agenda():
            if life == self.life and self.state == WAITING:
                self._begin()

    def _give_up(self, error: VistaError) -> None:
        self._forget()
        self._report(error)
        self._failures, self._reported = 0, False
        self._set_state(FAILED)
        self._owner._on_given_up(error)

    def _forget(self) -> None:
        self.life += 1
        self._stop_timer("handshake")
        self._stop_timer("health")
        connection, self.connection = self.connection, None
        if connection is not None:
            self._agenda.add(connection.kill)
        self._owner._on_down()

    def _report(self, error: VistaError) -> None:
        if not self._reported:
            self._reported = True
            self._agenda.add(self._owner.on_report, str(error))

    # Health

    def _check(self, life: int) -> None:
        with self._agenda():
            if life != self.life:
                return
            self._missed = self._missed + 1 if self._asked else 0
            if self._missed >= self._patience.missed:
                seconds = self._patience.health * self._patience.missed
                silent = WorkerGoneError(f"The engine process did not answer for {seconds:g} s.")
                self._agenda.add(self._lost, life, silent)
                return
            if not self._asked:
                self._asked = True
                self.send("status", None, partial(self._on_status, life))
            self._later("health", self._patience.health, partial(self._check, life))

    def _on_status(self, life: int, event: Event) -> None:
        with self._agenda():
            if life == self.life and isinstance(event, Response):
                self._asked = False
                if self.state == READY:
                    self.succeeded()

    # Small things

    def _tell_notice(self, message: str) -> None:
        self._owner.on_notice(message)

    def _set_state(self, state: str) -> None:
        self.state = state
        self._agenda.add(self._owner.on_state, state)

    def _later(self, kind: str, seconds: float, function: Callable[[], None]) -> None:
        self._stop_timer(kind)
        self._timers[kind] = self._call_later(seconds, function)

    def _stop_timer(self, kind: str) -> None:
        timer = self._timers.pop(kind, None)
        if hasattr(timer, "cancel"):
            timer.cancel()


def after(seconds: float, function: Callable[[], None]) -> threading.Timer:
    """Call a function later, from a thread."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


def _submit_quietly(connection: Connection, method: str, params: Params | None, handler: Handler) -> None:
    with contextlib.suppress(VistaError):  # a lost connection tells by itself
        connection.submit(method, params, handler)
