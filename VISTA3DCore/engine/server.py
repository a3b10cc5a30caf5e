"""The engine process: one thread reads, one computes, and every answer goes through one lock.

The reader (the main thread) answers at once what needs no computing (``status``, a cancel, an error of the protocol),
so a cancel is seen while the network runs. Everything else waits for the inference thread: torch keeps its caches per
thread, and results must not depend on what else is being computed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from VISTA3DCore.engine.framing import FrameReader, encode
from VISTA3DCore.engine.handlers import Handlers
from VISTA3DCore.engine.jobs import Job, JobQueue
from VISTA3DCore.engine.lifetime import Parent, sweep
from VISTA3DCore.engine.protocol import (
    CANCEL,
    EXIT,
    NOTICE,
    PROGRESS,
    PROTOCOL_VERSION,
    CancelParams,
    FramingError,
    Id,
    InitializeParams,
    InternalError,
    NoticeParams,
    Notification,
    NotInitializedError,
    PartialInfo,
    ProgressParams,
    ProtocolError,
    Request,
    Result,
    StatusResult,
    UnsupportedVersionError,
    error_message,
    identity_of,
    notification_message,
    read_message,
    result_message,
)
from VISTA3DCore.errors import Cancelled, VistaError
from VISTA3DCore.progress import ProgressUpdate

log = logging.getLogger("vista3d.worker")

# At most 20 reports of progress a second.
REPORT_INTERVAL_S = 0.05

DONE, BROKEN = 0, 1
"""Exit codes: asked to end, or left by the client; and a client that breaks the protocol."""


class Outbox:
    """Sends messages, one at a time, from any thread.

    :param write: takes the bytes of a frame; it may block, and raises OSError once the client is gone.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write, self._lock = write, threading.Lock()
        self._closed = False
        self._reported = -REPORT_INTERVAL_S
        self._latest = ProgressUpdate(0.0, "")

    def send(self, message: dict[str, Any], last: bool = False) -> None:
        """Send a message; silent once the client is gone, because the reader notices that, too.

        :param last: send nothing after it.
        """
        try:
            data = encode(message)
        except FramingError as error:
            log.exception("an answer cannot be sent")
            data = encode(error_message(message.get("id"), InternalError(str(error))))
        with self._lock:
            if self._closed:
                return
            try:
                self._write(data)
            except OSError as error:
                log.warning("the client no longer listens (%s)", error)
                last = True
            self._closed = last

    def notify(self, sentence: str) -> None:
        """Tell people something that belongs to no result."""
        self.send(notification_message(NOTICE, NoticeParams(sentence)))

    def report(self, identity: Id, update: ProgressUpdate) -> None:
        """Send how far a request is, unless a report has just been sent."""
        self._latest, now = update, time.monotonic()
        if now - self._reported >= REPORT_INTERVAL_S:
            self._reported = now
            self.report_partial(identity, None)

    def report_partial(self, identity: Id, partial: PartialInfo | None) -> None:
        """Send what is known of a request's result together with how far it is."""
        latest = self._latest
        params = ProgressParams(identity, latest.fraction, latest.stage, latest.message, latest.remaining_s, partial)
        self.send(notification_message(PROGRESS, params))

    def close(self) -> None:
        """Send nothing any more."""
        with self._lock:
            self._closed = True


class Server:
    """Serves one client.

    :param read: returns the next bytes from the client, b"" at the end; blocks.
    :param write: see :class:`Outbox`.
    :param end: ends this process with an exit code, whatever its threads are doing.
    """

    def __init__(self, read: Callable[[], bytes], write: Callable[[bytes], None], end: Callable[[int], Any]) -> None:
        self._read, self._end = read, end
        self._outbox = Outbox(write)
        self._handlers = Handlers(self._outbox.notify)
        self._jobs = JobQueue()
        self._parent = Parent(None)
        self._greeted = False
        self._exit_code: int | None = None

    def serve(self) -> int:
        """Read and answer until the client says goodbye, breaks the protocol or is gone; return the exit code."""
        threading.Thread(target=self._work, name="inference", daemon=True).start()
        frames = FrameReader()
        while self._exit_code is None:
            data = self._read()
            if not data:
                self._left_alone()
                return DONE
            try:
                self._receive_all(frames.feed(data))
            except FramingError as error:
                self._receive_all(error.messages)
                self._give_up(error)
        self._outbox.close()
        self._jobs.close()
        return self._exit_code

    def _give_up(self, error: FramingError) -> None:
        """End, because the client's frames cannot be told apart any more; after its goodbye that does not matter."""
        if self._exit_code is None:
            log.error("the client's bytes cannot be understood: %s", error)
            self._outbox.send(error_message(None, error), last=True)
            self._exit_code = BROKEN

    def _receive_all(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if self._exit_code is None:
                self._receive(message)

    def _receive(self, message: dict[str, Any]) -> None:
        try:
            received = read_message(message)
            if isinstance(received, Request):
                self._accept(received)
            elif isinstance(received, Notification):
                self._on_notification(received)
        except Exception as error:
            if not isinstance(error, VistaError):
                log.exception("a message failed")
            if "method" not in message or "id" in message:  # notifications are never answered
                self._outbox.send(error_message(identity_of(message), error))

    def _accept(self, request: Request) -> None:
        """Answer a request at once, or hand it to the inference thread."""
        if self._jobs.has(request.id):
            raise ProtocolError(f"The id {request.id!r} belongs to a request that was not answered yet.")
        params = request.parsed()
        if request.method == "initialize":
            assert isinstance(params, InitializeParams)
            self._greet(params)
        elif not self._greeted:
            raise NotInitializedError(f"'{request.method[:100]}' was asked for before 'initialize'.")
        if request.method == "status":
            self._outbox.send(result_message(request.id, self._status()))
        elif request.method == "shutdown":
            self._shut_down(request.id)
        else:
            background = request.method in ("warm", "probe")
            self._jobs.put(Job.reporting(request.id, request.method, params, background, self._outbox.report))

    def _greet(self, params: InitializeParams) -> None:
        """Check what must be right before anything else, and begin to watch the parent."""
        if params.protocol_version != PROTOCOL_VERSION:
            raise UnsupportedVersionError(
                f"The client speaks version {params.protocol_version} of the protocol, this engine version "
                f"{PROTOCOL_VERSION}; install the same version of both."
            )
        if self._greeted:
            raise ProtocolError("'initialize' was asked for twice.")
        self._handlers.use_directory(params.shared_directory)
        self._greeted = True
        log.info("serving %s %s, process %s", params.client.name, params.client.version, params.parent_pid)
        self._parent = Parent(params.parent_pid)
        if params.parent_pid is not None:
            self._parent.watch(self._orphaned)

    def _on_notification(self, notification: Notification) -> None:
        if notification.method == CANCEL:
            job = self._jobs.cancel(CancelParams.from_json(notification.params).id)
            if job is not None:
                self._outbox.send(error_message(job.id, Cancelled()))
        elif notification.method == EXIT:
            self._exit_code = DONE

    def _status(self) -> Result:
        running = self._jobs.running
        return StatusResult(
            self._handlers.sessions, self._handlers.memory(), len(self._jobs), running.method if running else None
        )

    def _shut_down(self, identity: Id) -> None:
        for job in self._jobs.close():
            self._outbox.send(error_message(job.id, Cancelled()))
        self._outbox.send(result_message(identity, None), last=True)
        self._exit_code = DONE

    def _work(self) -> None:
        while (job := self._jobs.take()) is not None:
            message = self._answer(job)
            if self._jobs.finish():
                self._outbox.send(message)
            del job, message

    def _answer(self, job: Job) -> dict[str, Any]:
        started = time.monotonic()
        try:
            report_partial = partial(self._outbox.report_partial, job.id)
            result = self._handlers.call(job.method, job.params, job.progress, report_partial)
            answer = result_message(job.id, result)
        except BaseException as error:  # nothing that a request does may end the thread
            if not isinstance(error, VistaError):
                log.exception("'%s' failed", job.method)
            answer = error_message(job.id, error)
        log.info("%s %s: %.1f ms", job.method, job.id, 1000 * (time.monotonic() - started))
        return answer

    def _left_alone(self) -> None:
        """The pipe has ended: stop, and if the client died, remove what it left."""
        self._outbox.close()
        self._jobs.close()
        log.info("the client has closed the connection")
        if self._parent.gone_soon():
            self._sweep()

    def _orphaned(self) -> None:
        log.info("the client's process is gone")
        self._sweep()
        self._end(DONE)

    def _sweep(self) -> None:
        if self._handlers.directory is not None:
            sweep(self._handlers.directory)
