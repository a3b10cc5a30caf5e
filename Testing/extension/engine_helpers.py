"""A real engine process whose events arrive on the test's thread, as Qt's event loop would bring them."""

from __future__ import annotations

import heapq
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from VISTA3DCore.engine.environment import clean_environment
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DSegmentLib.logic.engine import Engine

PATIENCE_S = 120.0
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VISTA3D_HOME": str(Path(tempfile.gettempdir()) / "vista3d-test-without-models"),
}


class EventLoop:
    """What Qt's event loop does for the extension: calls functions on this thread, at once or later."""

    def __init__(self) -> None:
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def post(self, function: Callable[[], None]) -> None:
        """Call a function soon; may be called from any thread."""
        self._posted.put(function)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after some seconds."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), function))

    def run_until(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Handle events until something is the case, or fail."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            self.run_once(0.01)

    def run_for(self, seconds: float) -> None:
        """Handle events for some time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.run_once(0.005)

    def run_once(self, wait_s: float) -> None:
        """Handle one event that has arrived or is due, or wait for one for a while."""
        if self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
            return
        if self._timers:
            wait_s = max(0.0, min(wait_s, self._timers[0][0] - time.monotonic()))
        with suppress(Empty):
            self._posted.get(timeout=wait_s)()


class MarshalledProcess:
    """An engine process as a transport whose callbacks come on the thread that runs the event loop."""

    def __init__(
        self, loop: EventLoop, environment: dict[str, str] | None = None, command: list[str] | None = None
    ) -> None:
        self.on_bytes: Callable[[bytes], None] = lambda _data: None
        self.on_closed: Callable[[str], None] = lambda _reason: None
        self._loop = loop
        self.process = ChildProcess(command, environment)
        self.process.on_bytes = lambda data: loop.post(lambda: self.on_bytes(data))
        self.process.on_closed = lambda reason: loop.post(lambda: self.on_closed(reason))

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def start(self) -> None:
        self.process.start()

    def write(self, data: bytes) -> None:
        self.process.write(data)

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.close()


class EngineUnderTest:
    """An :class:`Engine`, its event loop and its processes.

    :param environment: further variables for the processes, which are off the network and have one thread and no models
        but the bundled one.
    :param command: starts another process than the usual one.
    :param options: of the engine.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, command: list[str] | None = None, **options: Any
    ) -> None:
        self.loop = EventLoop()
        self.processes: list[MarshalledProcess] = []
        self.command = command
        self.environment = {**clean_environment(), **QUIET, **(environment or {})}
        self.engine = Engine(self._start, self.loop.call_later, "test", **options)

    def _start(self) -> MarshalledProcess:
        self.processes.append(MarshalledProcess(self.loop, self.environment, self.command))
        return self.processes[-1]

    def kill(self) -> None:
        """End the present process as a crash would."""
        os.kill(self.processes[-1].pid, 9)

    def files(self) -> list[str]:
        """Return the names of the files in the shared directory."""
        return sorted(path.name for path in self.engine.shared.path.iterdir())


@contextmanager
def running_engine(
    environment: Mapping[str, str] | None = None, command: list[str] | None = None, **options: Any
) -> Iterator[EngineUnderTest]:
    """Hand out an engine, see :class:`EngineUnderTest`; its process and files are gone afterwards."""
    under_test = EngineUnderTest(environment, command, **options)
    try:
        yield under_test
    finally:
        under_test.engine.close()
