"""What moves the bytes between a client and an engine process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BufferedReader
from queue import SimpleQueue
from typing import IO, Any, Protocol

from VISTA3DCore.child_processes import WorkingFolder, child_environment
from VISTA3DCore.engine.environment import clean_environment, worker_command
from VISTA3DCore.engine.errors import WorkerGoneError
from VISTA3DCore.engine.framing import FrameReader, encode

_CHUNK = 1 << 16
_LOG_LINES = 200
_LONGEST_LINE = 4096


class Transport(Protocol):
    """A stream of bytes in each direction. The callbacks are set before :meth:`start`.

    ``on_bytes(data)`` gets whatever arrives; ``on_closed(reason)`` is called once, after the last byte, with a sentence
    for people. Neither is called by two threads at once.
    """

    on_bytes: Callable[[bytes], None]
    on_closed: Callable[[str], None]

    def start(self) -> None:
        """Start the engine process and read from it.

        :raises WorkerGoneError: if it cannot be started; then neither callback is ever called.
        """

    def write(self, data: bytes) -> None:
        """Send bytes; never blocks, and does nothing once the stream is closed."""

    def kill(self) -> None:
        """End the engine process at once; harmless if it has ended."""

    def close(self) -> None:
        """Let the engine process end by itself, and see to it that it does."""


class ChildProcess:
    """An engine process as a child of this one. Works on Linux, macOS and Windows.

    Three threads move the bytes: one reads frames, one writes them (a hung process cannot block the caller), one reads
    the log.

    :param command: by default the engine under this interpreter, see :func:`worker_command`.
    :param environment: by default this process's without what Slicer sets.
    :param log: called for each line of the engine's log, from a thread.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.on_bytes: Callable[[bytes], None] = lambda _data: None
        self.on_closed: Callable[[str], None] = lambda _reason: None
        self._command = list(command or worker_command())
        self._environment = child_environment(clean_environment() if environment is None else environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: WorkingFolder | None = None
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._killed = False

    @property
    def pid(self) -> int | None:
        """The engine's process id, None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def log_tail(self) -> list[str]:
        """The last lines of the engine's log."""
        return list(self._lines)

    def start(self) -> None:
        """See :class:`Transport`."""
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            self._folder = WorkingFolder()
            process = subprocess.Popen(
                self._command, cwd=self._folder.path, env=self._environment, **options, **_detached()
            )
        except (OSError, ValueError) as error:
            self._remove_folder()
            reason = getattr(error, "strerror", None) or error
            raise WorkerGoneError(
                f"The engine process cannot be started with '{self._command[0]}' ({reason})."
            ) from error
        self._process = process
        for target, pipe in (
            (self._read_log, process.stderr),
            (self._write, process.stdin),
            (self._read, process.stdout),
        ):
            thread = threading.Thread(
                target=target, args=(process, pipe), name=f"vista3d{target.__name__}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        self._outbox.put(data)

    def kill(self) -> None:
        """See :class:`Transport`."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def close(self, patience_s: float = 5.0) -> None:
        """Close the engine's input, which makes it end; kill it after ``patience_s`` seconds. Waits for the end."""
        if self._process is None:
            return
        self._killed = True
        self._outbox.put(None)
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(patience_s)

    def _read(self, process: subprocess.Popen[bytes], pipe: BufferedReader) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                while data := pipe.read1(_CHUNK):
                    self.on_bytes(data)
        finally:
            self._finish(process)

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        """Reap the process, whose output has ended, and report that."""
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._outbox.put(None)
        self._threads[0].join(1.0)  # the log's last line says why; a grandchild may hold its pipe open
        for pipe in (process.stdout, process.stderr):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()
        self._remove_folder()
        self.on_closed(self._reason(process.returncode))

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.close()

    def _write(self, _process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
        # A process that has ended closes the pipe; the reader reports it.
        with contextlib.suppress(OSError, ValueError):
            while (data := self._outbox.get()) is not None:
                pipe.write(data)
                pipe.flush()
        with contextlib.suppress(OSError, ValueError):
            pipe.close()

    def _read_log(self, _process: subprocess.Popen[bytes], pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := pipe.readline(_LONGEST_LINE):
                text = line.decode("utf-8", "replace").rstrip()
                self._lines.append(text)
                if self._log is not None:
                    self._log(text)

    def _reason(self, code: int) -> str:
        if self._killed:
            return "The engine process was stopped."
        details = [_ending(code)]
        if code > 0:
            details += [line.strip() for line in self._lines if line.strip()][-1:]
        return f"The engine process ended unexpectedly ({': '.join(details)})."


class InMemory:
    """No process at all, for tests: messages go to a function, and its answers come back at once.

    :param respond: gets each message of the client and returns the messages that answer it.
    """

    def __init__(self, respond: Callable[[dict[str, Any]], Iterable[dict[str, Any]]] = lambda _message: ()) -> None:
        self.on_bytes: Callable[[bytes], None] = lambda _data: None
        self.on_closed: Callable[[str], None] = lambda _reason: None
        self.sent: list[dict[str, Any]] = []
        self.started = self.closed = False
        self._respond, self._reader = respond, FrameReader()

    def start(self) -> None:
        """See :class:`Transport`."""
        self.started = True

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        for message in self._reader.feed(data) if not self.closed else ():
            self.sent.append(message)
            for answer in self._respond(message):
                self.deliver(answer)

    def deliver(self, message: dict[str, Any] | bytes) -> None:
        """Let a message, or bytes, arrive at the client."""
        self.on_bytes(message if isinstance(message, bytes) else encode(message))

    def lose(self, reason: str = "The connection was lost.") -> None:
        """Let the stream end."""
        if not self.closed:
            self.closed = True
            self.on_closed(reason)

    def kill(self) -> None:
        """See :class:`Transport`."""
        self.lose("The engine process was stopped.")

    def close(self) -> None:
        """See :class:`Transport`."""
        self.kill()


def _detached() -> dict[str, Any]:
    """Return the options that keep the engine out of the terminal's process group.

    Ctrl+C then reaches the client alone, which cancels in good order; and Windows opens no console window.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _ending(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0 or os.name == "nt":
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"
