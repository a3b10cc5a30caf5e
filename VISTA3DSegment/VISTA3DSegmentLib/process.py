# SPDX-License-Identifier: Apache-2.0
"""The engine process as a child of Slicer: bytes are moved by signals of ``QProcess``, no thread is involved.

A Python thread hardly runs while Slicer's event loop idles, so :class:`VISTA3DCore.engine.transports.ChildProcess`,
which has three, is not for here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import qt

from VISTA3DCore.child_processes import WorkingFolder, child_environment
from VISTA3DCore.engine.environment import clean_environment, worker_command
from VISTA3DCore.engine.errors import WorkerGoneError

_LOG_LINES = 200
_PATIENCE_MS = 5000
# The signal by which Linux and macOS end a process.
_KILLED = 9
# What runs on after nobody needs it any more: an object that Python forgets would take its process with it.
_closing: set[QProcessTransport] = set()


def wait_for_ends(patience_ms: int = 2000) -> None:
    """See the processes that were closed end, or end them; only for the application's own end, because it waits."""
    for one in list(_closing):
        one.wait_for_end(patience_ms)


class QProcessTransport:
    """A :class:`VISTA3DCore.engine.transports.Transport` over ``qt.QProcess``.

    :param command: by default the engine under this interpreter, see :func:`worker_command`.
    :param environment: by default this process's without what Slicer sets.
    :param log: called for each line of the engine's log.
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
        self._folder: WorkingFolder | None = None
        self._log, self._lines, self._rest = log, deque(maxlen=_LOG_LINES), b""
        self._process: qt.QProcess | None = None
        self._killed = self._over = False

    @property
    def log_tail(self) -> list[str]:
        """The last lines of the engine's log."""
        return list(self._lines)

    def start(self) -> None:
        """See ``Transport``; returns at once. A program that cannot be started is told by ``on_closed``."""
        if self._process is not None:
            raise WorkerGoneError("The engine process was started already.")
        try:
            self._folder = WorkingFolder()
        except OSError as error:
            raise WorkerGoneError(f"The engine process cannot be started: {error.strerror or error}.") from error
        environment = qt.QProcessEnvironment()
        for name, value in self._environment.items():
            environment.insert(name, value)
        process = self._process = qt.QProcess()
        process.setProcessEnvironment(environment)
        process.setWorkingDirectory(str(self._folder.path))
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("readyReadStandardError()", self._read_log)
        process.connect("finished(int,QProcess::ExitStatus)", self._on_finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._on_error)
        process.start(self._command[0], self._command[1:])

    def write(self, data: bytes) -> None:
        """See ``Transport``."""
        if self._process is not None and not self._over:
            self._process.write(qt.QByteArray(data))

    def kill(self) -> None:
        """See ``Transport``."""
        self._killed = True
        if self._process is not None and not self._over:
            self._process.kill()

    def close(self) -> None:
        """Close the engine's input, which makes it end; kill it if it has not after some seconds. Waits for nothing."""
        self._killed = True
        if self._process is None or self._over:
            return
        _closing.add(self)
        self._process.closeWriteChannel()
        qt.QTimer.singleShot(_PATIENCE_MS, self.kill)

    def wait_for_end(self, patience_ms: int) -> None:
        """Wait until the process has ended, for some milliseconds; then kill it."""
        if not self._over and not self._process.waitForFinished(patience_ms):
            self._process.kill()
            self._process.waitForFinished(patience_ms)

    def _read(self) -> None:
        data = self._process.readAllStandardOutput().data()
        if data:
            self.on_bytes(bytes(data))

    def _read_log(self) -> None:
        # The pipe is emptied whatever becomes of the lines: a full one would stop the engine.
        *lines, self._rest = (self._rest + bytes(self._process.readAllStandardError().data())).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            self._lines.append(text)
            if self._log is not None:
                self._log(text)

    def _on_finished(self, code: int, status: int) -> None:
        self._read()
        self._read_log()
        self._end(self._reason(int(code), status == qt.QProcess.CrashExit))

    def _on_error(self, error: int) -> None:
        # After all other errors ``finished`` follows.
        if error == qt.QProcess.FailedToStart:
            self._end(f"The engine process cannot be started with '{self._command[0]}'.")

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        _closing.discard(self)
        self._folder.close()
        self.on_closed(reason)

    def _reason(self, code: int, crashed: bool) -> str:
        if self._killed:
            return "The engine process was stopped."
        if crashed:
            hint = ", as happens when memory runs out" if code == _KILLED else f" (signal or code {code})"
            return f"The engine process was ended by the system{hint}; it starts again by itself."
        last = [line.strip() for line in self._lines if line.strip()][-1:]
        return f"The engine process ended unexpectedly ({': '.join([f'exit code {code}', *last])})."
