"""An engine process that is always there: started ahead of its first use, and again when it ends.

The supervisor waits for nothing and reads no clock: bytes come from a transport, time from ``call_later``. So it runs
on threads in scripts, and in Slicer on the main thread with ``QProcess`` and ``QTimer.singleShot``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.client import Event, Failure, ProgressEvent, Response, initialize_params
from VISTA3DCore.engine.connection import Connection, Handler
from VISTA3DCore.engine.keeper import CLOSED, READY, Agenda, CallLater, Keeper, Patience, after
from VISTA3DCore.engine.protocol import (
    CloseParams,
    InitializeResult,
    LoadParams,
    OpenParams,
    OpenResult,
    Params,
    ProtocolError,
    Result,
    StatusResult,
    UnknownSessionError,
    WorkerGoneError,
    arrays_in,
)
from VISTA3DCore.engine.transports import Transport
from VISTA3DCore.errors import Cancelled, VistaError

_KEPT_NAMES = 256


@dataclass(eq=False)
class _Job:
    """A request of the user.

    :param used: the engine's id of the session when it was sent.
    :param sent: where it was sent, and as what.
    """

    id: int
    method: str
    params: Params | None
    handler: Handler
    used: str | None = None
    sent: tuple[Connection, int] | None = None
    cancelled: bool = False
    retried: bool = False


@dataclass(eq=False)
class _Volume:
    """A volume that the user has open.

    :param current: the session's id in the present process; None while it is not open there.
    :param error: why it cannot be opened again.
    :param crashes: how often the process ended while it opened this volume again.
    :param waiting: requests that go on once it is open again.
    """

    params: OpenParams
    current: str | None
    error: VistaError | None = None
    crashes: int = 0
    waiting: list[_Job] = field(default_factory=list)


class Supervisor:
    """Keeps one engine process running, and everything open in it.

    When the process ends, the requests that it was working on fail once with :class:`WorkerGoneError`, ``on_report``
    gets one sentence, and a new process is started in which the model is loaded and all volumes are opened again.
    Requests made meanwhile wait. Session ids stay valid. The files of opened volumes belong to the supervisor, which
    deletes them when the session is closed.

    :param start: makes a transport for each new process.
    :param shared: where arrays travel; made and removed here by default.
    :param call_later: calls a function after some seconds; what it returns may have ``cancel()``.
    :param compute: False for a process that only keeps house, see ``initialize``.
    :param on_report: told once per failure, in a sentence.
    :param on_state: told ``starting``, ``ready``, ``waiting`` (for the next start), ``failed`` (until the next request)
        and ``closed``.
    """

    def __init__(
        self,
        start: Callable[[], Transport],
        *,
        shared: SharedDirectory | None = None,
        name: str = "vista3d",
        call_later: CallLater = after,
        on_report: Callable[[str], None] = lambda _sentence: None,
        on_state: Callable[[str], None] = lambda _state: None,
        patience: Patience | None = None,
        compute: bool = True,
    ) -> None:
        self.on_report, self.on_state = on_report, on_state
        self.on_notice: Callable[[str], None] = lambda _message: None
        self.shared, self._owns = shared or SharedDirectory(), shared is None
        self._agenda = Agenda()
        hello = initialize_params(self.shared.path, name, compute=compute)
        self._keeper = Keeper(self._agenda, start, hello, self, call_later, patience or Patience())
        self._jobs, self._queue, self._last = dict[int, _Job](), deque[_Job](), 0
        self._volumes, self._opened = dict[str, _Volume](), 0
        self._model: LoadParams | None = None
        self._announced = deque[str](maxlen=_KEPT_NAMES)
        # What is still to be opened again in a new process (None: the model), and what is being opened.
        self._steps, self._replaying = deque[str | None](), None

    _replaying: str | None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def state(self) -> str:
        """See ``on_state``; ``stopped`` before the first start."""
        return self._keeper.state

    @property
    def info(self) -> InitializeResult | None:
        """What the last process said of itself."""
        return self._keeper.info

    def start(self) -> None:
        """Start the process if it is not running; returns at once."""
        with self._agenda():
            self._keeper.wake()

    def submit(self, method: str, params: Params | None, handler: Handler) -> int:
        """Send a request, now or when the process is ready, and return its id; see :meth:`Connection.submit`."""
        with self._agenda():
            self._last += 1
            job = self._jobs[self._last] = _Job(self._last, method, params, handler)
            if method in ("initialize", "shutdown"):
                self._fail(job, ProtocolError(f"'{method}' is the supervisor's business."))
            elif self.state == CLOSED:
                self._fail(job, WorkerGoneError("The engine process was stopped."))
            elif method == "close":
                self._close_volume(job)
            elif self.state == READY:
                self._send(job)
            else:
                self._queue.append(job)
                self._keeper.wake()
        return job.id

    def cancel(self, identity: int) -> None:
        """Ask to stop a request, if it is still open."""
        with self._agenda():
            job = self._jobs.get(identity)
            if job is None:
                return
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)
                self._fail(job, Cancelled())
            elif job.sent is not None:
                self._agenda.add(job.sent[0].cancel, job.sent[1])

    def close(self) -> None:
        """End the process and remove the shared arrays; open requests fail."""
        with self._agenda():
            if self.state == CLOSED:
                return
            self._keeper.close()
            stopped = WorkerGoneError("The engine process was stopped.")
            self._fail_all(self._queue, stopped)
            for volume in self._volumes.values():
                self._fail_all(volume.waiting, stopped)
            if self._owns:
                self._agenda.add(self.shared.close)

    # What the keeper tells

    def _on_up(self) -> None:
        self._steps = deque([] if self._model is None else [None])
        self._steps += [session for session, volume in self._volumes.items() if volume.error is None]
        self._replay_next()

    def _on_down(self) -> None:
        # Results that were announced may not have been read yet.
        self._agenda.add(self.shared.sweep, frozenset(self._announced))
        if self._replaying in self._volumes:
            _blame(self._volumes[self._replaying])
        self._replaying = None
        for volume in self._volumes.values():
            volume.current = None
            self._fail_all(volume.waiting, WorkerGoneError("The engine process ended."))

    def _on_given_up(self, error: VistaError) -> None:
        self._fail_all(self._queue, error)

    # Opening everything again

    def _replay_next(self) -> None:
        self._replaying = None
        while self._steps:
            session = self._steps.popleft()
            heard = partial(self._on_replayed, self._keeper.life, session)
            if session is None:
                self._keeper.send("load", self._model, heard)
                return
            if session in self._volumes:
                self._replaying = session
                self._keeper.send("open", self._volumes[session].params, heard)
                return
        self._keeper.ready()
        queue = list(self._queue)
        self._queue.clear()
        for job in queue:
            self._send(job)

    def _on_replayed(self, life: int, session: str | None, event: Event) -> None:
        with self._agenda():
            gone = isinstance(event, Failure) and isinstance(event.error, WorkerGoneError)
            if life != self._keeper.life or isinstance(event, ProgressEvent) or gone:
                return
            if session is not None:  # a model that does not load any more will show when it is used
                self._take_opened(session, event)
            self._replay_next()

    def _take_opened(self, session: str, event: Response | Failure) -> None:
        """Note what became of a volume that was opened again."""
        volume = self._volumes.get(session)
        if volume is None:
            if isinstance(event, Response):
                self._keeper.send("close", CloseParams(event.result.session))
        elif isinstance(event, Response):
            volume.current, volume.crashes = event.result.session, 0
        else:
            volume.error = event.error

    def _retry(self, job: _Job) -> None:
        """The engine has let go of a volume because memory got short: open it again, then repeat the request."""
        job.retried, job.sent = True, None
        session = job.params.session
        volume = self._volumes[session]
        if volume.current != job.used:
            self._send(job)
            return
        volume.waiting.append(job)
        if len(volume.waiting) == 1:
            self._keeper.send("open", volume.params, partial(self._on_reopened, self._keeper.life, session))

    def _on_reopened(self, life: int, session: str, event: Event) -> None:
        with self._agenda():
            if life != self._keeper.life or isinstance(event, ProgressEvent):
                return
            volume = self._volumes.get(session)
            if volume is None or isinstance(event, Response):
                self._take_opened(session, event)
            waiting = [] if volume is None else list(volume.waiting)
            if isinstance(event, Failure):
                self._fail_all([] if volume is None else volume.waiting, event.error)
                return
            for job in waiting:
                volume.waiting.remove(job)
                self._send(job)

    # Requests of the user

    def _send(self, job: _Job) -> None:
        params, session = job.params, getattr(job.params, "session", None)
        if session is not None:
            volume = self._volumes.get(session)
            if volume is None or volume.error is not None:
                self._fail(job, _not_open() if volume is None else volume.error)
                return
            job.used = volume.current
            params = replace(params, session=volume.current)
        self._agenda.add(self._transmit, self._keeper.connection, job, params)

    def _transmit(self, connection: Connection, job: _Job, params: Params | None) -> None:
        try:
            identity = connection.submit(job.method, params, partial(self._on_event, job))
        except WorkerGoneError:
            self._requeue(job, connection)
            return
        except VistaError as error:
            self._on_event(job, Failure(job.id, error))
            return
        with self._agenda():
            job.sent = connection, identity
            if job.cancelled:
                self._agenda.add(connection.cancel, identity)

    def _requeue(self, job: _Job, connection: Connection) -> None:
        """The process ended before it got the request, which the next one may have instead."""
        with self._agenda():
            if job.method == "close":
                self._finish(job, Response(job.id, None))
            elif self.state == CLOSED:
                self._fail(job, WorkerGoneError("The engine process was stopped."))
            elif self.state == READY and self._keeper.connection is not connection:
                self._send(job)
            else:
                self._queue.append(job)
                self._keeper.wake()

    def _on_event(self, job: _Job, event: Event) -> None:
        with self._agenda():
            if isinstance(event, ProgressEvent | Response):
                self._announced += [ref.file for ref in arrays_in(event)]
            if isinstance(event, ProgressEvent):
                self._agenda.add(job.handler, replace(event, id=job.id))
            elif isinstance(event, Response):
                self._keeper.succeeded()
                self._finish(job, Response(job.id, self._translated(job, event.result)))
            elif isinstance(event.error, UnknownSessionError) and self._can_retry(job):
                self._retry(job)
            else:
                self._fail(job, event.error)

    def _translated(self, job: _Job, result: Result | None) -> Result | None:
        """Note what a result means for the next process, and put in the ids that the user knows."""
        if job.method == "load":
            self._model = job.params
        if isinstance(result, OpenResult):
            self._opened += 1
            session = f"volume-{self._opened}"
            self._volumes[session] = _Volume(job.params, result.session)
            return replace(result, session=session)
        if isinstance(result, StatusResult):
            names = {volume.current: session for session, volume in self._volumes.items()}
            return replace(result, sessions=tuple(names[one] for one in result.sessions if one in names))
        return result

    def _can_retry(self, job: _Job) -> bool:
        return job.used is not None and not job.retried and self.state == READY and job.params.session in self._volumes

    def _close_volume(self, job: _Job) -> None:
        """Forget a volume at once; the present process frees it, if it has it."""
        volume = self._volumes.pop(job.params.session, None)
        if volume is None:
            self._fail(job, _not_open())
            return
        self._fail_all(volume.waiting, _not_open())
        self._agenda.add(self.shared.delete, volume.params.volume.file)
        if volume.current is None or self._keeper.connection is None:
            self._finish(job, Response(job.id, None))
        else:
            self._agenda.add(self._transmit, self._keeper.connection, job, CloseParams(volume.current))

    def _finish(self, job: _Job, event: Response | Failure) -> None:
        if self._jobs.pop(job.id, None) is not None:
            self._agenda.add(job.handler, event)

    def _fail(self, job: _Job, error: VistaError) -> None:
        # An exception of its own for each: it may be raised in a thread of its own.
        self._finish(job, Failure(job.id, type(error)(str(error))))

    def _fail_all(self, jobs: list[_Job] | deque[_Job], error: VistaError) -> None:
        for job in jobs:
            self._fail(job, error)
        jobs.clear()


def _blame(volume: _Volume) -> None:
    """The process ended while it opened this volume again; after the second time nobody tries any more."""
    volume.crashes += 1
    if volume.crashes > 1:
        volume.error = WorkerGoneError(
            f"The engine process ended twice while it opened the volume '{volume.params.name}' again; "
            "close other programs, then open it once more."
        )


def _not_open() -> UnknownSessionError:
    return UnknownSessionError("The volume is not open in the engine; open it again.")
