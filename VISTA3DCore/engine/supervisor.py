"""Keep one engine process alive: start it, shake hands, check its health, start it again when it ends.

Nothing here waits or reads a clock: bytes come from a transport, time from ``call_later``. So it runs on threads in
scripts, and in Slicer on the main thread with ``QProcess`` and ``QTimer.singleShot``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from VISTA3DCore.engine.client import EngineClient, Event, Handler, ProgressEvent, Response
from VISTA3DCore.engine.protocol import InitializeParams, InitializeResult, Params, WorkerGoneError
from VISTA3DCore.engine.transports import Transport
from VISTA3DCore.errors import VistaError

STOPPED, STARTING, READY, WAITING, FAILED, CLOSED = "stopped", "starting", "ready", "waiting", "failed", "closed"

CallLater = Callable[[float, Callable[[], None]], Any]


@dataclass(frozen=True)
class RestartPolicy:
    """When a process counts as dead, and how soon the next one follows. Times in seconds.

    :param first_pause: before the first restart; doubles up to ``longest_pause``.
    :param restarts: failures in a row after which nothing is tried any more until the next request.
    :param handshake: how long a process may take to start (torch from a cold network drive takes minutes).
    :param health: between two health checks; after ``missed`` checks without an answer the process is restarted.
    """

    first_pause: float = 0.2
    longest_pause: float = 10.0
    restarts: int = 8
    handshake: float = 300.0
    health: float = 15.0
    missed: int = 4

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        return min(self.first_pause * 2.0 ** (failures - 1), self.longest_pause)


class DeferredCalls:
    """A lock, and the calls to make once it is released.

    State changes under the lock; calls to others (handlers, transports) follow without it, so that they may call back
    or wait for other threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: list[Callable[[], object]] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            yield
            calls, self._calls = self._calls, []
        with contextlib.ExitStack() as stack:  # all of them, even if one raises
            for call in reversed(calls):
                stack.callback(call)

    def add(self, function: Callable[..., object], *arguments: Any) -> None:
        """Defer a call; the lock is held."""
        self._calls.append(partial(function, *arguments))


class ProcessSupervisor:
    """Base of :class:`SupervisedClient`: the life of the engine process, whatever the requests are about.

    A subclass implements ``_on_up`` (a process has shaken hands), ``_on_down`` (it is gone) and ``_on_given_up`` (no
    other one will be started). All methods that begin with an underscore run with the lock of ``_deferred`` held,
    unless they take it themselves.

    :param start: makes a transport for each new process.
    :param hello: the parameters of ``initialize``.
    :param call_later: calls a function after some seconds; what it returns may have ``cancel()``.
    :param on_report: receives one error per failure.
    :param on_state: receives ``starting``, ``ready``, ``waiting`` (for the next start), ``failed`` (until the next
        request) and ``closed``.
    """

    def __init__(
        self,
        start: Callable[[], Transport],
        hello: InitializeParams,
        call_later: CallLater,
        policy: RestartPolicy,
        on_report: Callable[[VistaError], object],
        on_state: Callable[[str], object],
    ) -> None:
        self.on_report, self.on_state = on_report, on_state
        self.on_notice: Callable[[str], object] = lambda _message: None
        self._deferred = DeferredCalls()
        self._state = STOPPED
        self._info: InitializeResult | None = None
        self._client: EngineClient | None = None
        # Each process has a number, so that news of a former one is recognized.
        self._life = 0
        self._start_transport, self._hello, self._call_later, self._policy = start, hello, call_later, policy
        self._timers: dict[str, Any] = {}
        self._failures, self._reported = 0, False
        self._missed, self._check_open, self._greeted = 0, False, 0

    @property
    def state(self) -> str:
        """See ``on_state``; ``stopped`` before the first start."""
        return self._state

    @property
    def info(self) -> InitializeResult | None:
        """What the last process said of itself."""
        return self._info

    def start(self) -> None:
        """Start the process if it is not running; returns at once."""
        with self._deferred():
            self._wake()

    # For the subclass

    def _on_up(self) -> None:
        raise NotImplementedError

    def _on_down(self) -> None:
        raise NotImplementedError

    def _on_given_up(self, error: VistaError) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        """Start a process, unless there is one or will be one soon."""
        if self._state in (STOPPED, FAILED):
            self._begin()

    def _declare_ready(self) -> None:
        """Accept requests: everything that was open is open again."""
        self._set_state(READY)
        self._reported = False

    def _note_success(self) -> None:
        """Count the next failure as a first one: the process proved to work."""
        self._failures = 0

    def _end_for_good(self) -> None:
        self._set_state(CLOSED)
        self._life += 1
        for kind in list(self._timers):
            self._stop_timer(kind)
        if self._client is not None:
            self._deferred.add(self._client.close)

    def _send_internal(self, method: str, params: Params | None, handler: Handler = lambda _event: None) -> None:
        """Send a request that is not the user's."""
        if self._client is not None:
            self._deferred.add(_submit_quietly, self._client, method, params, handler)

    # Starting

    def _begin(self) -> None:
        self._set_state(STARTING)
        self._life += 1
        self._set_timer("handshake", self._policy.handshake, partial(self._on_late, self._life))
        self._deferred.add(self._launch, self._life)

    def _launch(self, life: int) -> None:
        try:
            client = EngineClient(self._start_transport(), self._emit_notice, partial(self._on_lost, life))
            with self._deferred():
                self._client = client if life == self._life else self._client
            client.start()
            if life != self._life:
                client.kill()
                return
            client.submit("initialize", self._hello, partial(self._on_initialized, life))
        except VistaError as error:
            self._on_lost(life, error)
        except Exception as error:
            self._on_lost(life, WorkerGoneError(f"The engine process cannot be started ({error})."))

    def _on_initialized(self, life: int, event: Event) -> None:
        with self._deferred():
            if life != self._life or isinstance(event, ProgressEvent):
                return
            self._stop_timer("handshake")
            self._greeted = life
            if isinstance(event, Response):
                self._info = event.result
                self._missed, self._check_open = 0, False
                self._set_timer("health", self._policy.health, partial(self._check_health, life))
                self._on_up()
            elif not isinstance(event.error, WorkerGoneError):  # otherwise on_lost follows
                self._give_up(event.error)

    def _on_late(self, life: int) -> None:
        # Not every kind of timer can be stopped (QTimer.singleShot cannot), so the greeting may have come.
        if life != self._greeted:
            late = f"The engine process did not start within {self._policy.handshake:g} s."
            self._on_lost(life, WorkerGoneError(late))

    # Ending

    def _on_lost(self, life: int, error: VistaError) -> None:
        """Plan a restart: the process ended, could not be started, or does not answer."""
        with self._deferred():
            if life != self._life:
                return
            self._drop_process()
            self._report(error)
            self._failures += 1
            if self._failures > self._policy.restarts:
                self._give_up(error)
                return
            self._set_state(WAITING)
            self._set_timer("restart", self._policy.pause(self._failures), partial(self._restart, self._life))

    def _restart(self, life: int) -> None:
        with self._deferred():
            if life == self._life and self._state == WAITING:
                self._begin()

    def _give_up(self, error: VistaError) -> None:
        self._drop_process()
        self._report(error)
        self._failures, self._reported = 0, False
        self._set_state(FAILED)
        self._on_given_up(error)

    def _drop_process(self) -> None:
        self._life += 1
        self._stop_timer("handshake")
        self._stop_timer("health")
        client, self._client = self._client, None
        if client is not None:
            self._deferred.add(client.kill)
        self._on_down()

    def _report(self, error: VistaError) -> None:
        if not self._reported:
            self._reported = True
            self._deferred.add(self.on_report, error)

    # Health

    def _check_health(self, life: int) -> None:
        with self._deferred():
            if life != self._life:
                return
            self._missed = self._missed + 1 if self._check_open else 0
            if self._missed >= self._policy.missed:
                seconds = self._policy.health * self._policy.missed
                silent = WorkerGoneError(f"The engine process did not answer for {seconds:g} s.")
                self._deferred.add(self._on_lost, life, silent)
                return
            if not self._check_open:
                self._check_open = True
                self._send_internal("status", None, partial(self._on_status, life))
            self._set_timer("health", self._policy.health, partial(self._check_health, life))

    def _on_status(self, life: int, event: Event) -> None:
        with self._deferred():
            if life == self._life and isinstance(event, Response):
                self._check_open = False
                if self._state == READY:
                    self._note_success()

    # Small things

    def _emit_notice(self, message: str) -> None:
        self.on_notice(message)

    def _set_state(self, state: str) -> None:
        self._state = state
        self._deferred.add(self.on_state, state)

    def _set_timer(self, kind: str, seconds: float, function: Callable[[], None]) -> None:
        self._stop_timer(kind)
        self._timers[kind] = self._call_later(seconds, function)

    def _stop_timer(self, kind: str) -> None:
        timer = self._timers.pop(kind, None)
        if hasattr(timer, "cancel"):
            timer.cancel()


def call_in_thread(seconds: float, function: Callable[[], None]) -> threading.Timer:
    """Call a function later, from a thread."""
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
    return timer


def _submit_quietly(client: EngineClient, method: str, params: Params | None, handler: Handler) -> None:
    with contextlib.suppress(VistaError):  # on_lost reports a lost connection
        client.submit(method, params, handler)
