"""A client whose engine process is always there: started ahead of its first use, and again when it ends."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.client import (
    EngineClient,
    Event,
    Failure,
    Handler,
    ProgressEvent,
    Response,
    initialize_params,
)
from VISTA3DCore.engine.protocol import (
    CloseParams,
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
from VISTA3DCore.engine.supervisor import (
    CLOSED,
    READY,
    CallLater,
    ProcessSupervisor,
    RestartPolicy,
    call_in_thread,
)
from VISTA3DCore.engine.transports import Transport
from VISTA3DCore.errors import Cancelled, VistaError

_KEPT_NAMES = 256


@dataclass(eq=False)
class _Job:
    """A request of the user.

    :param params: of the type that ``METHODS`` names.
    :param used: the engine's id of the session when it was sent.
    :param sent: where it was sent, and as what.
    """

    id: int
    method: str
    params: Any
    handler: Handler
    used: str | None = None
    sent: tuple[EngineClient, int] | None = None
    cancelled: bool = False
    retried: bool = False


@dataclass(eq=False)
class _Volume:
    """A volume that the user has open.

    :param current: the session's id in the present process; None while it is not open there.
    :param error: why it cannot be opened again.
    :param crashes: how often the process ended while it opened this volume again.
    :param waiting: requests to send once it is open again.
    """

    params: OpenParams
    current: str | None
    error: VistaError | None = None
    crashes: int = 0
    waiting: list[_Job] = field(default_factory=list)


class SupervisedClient(ProcessSupervisor):
    """Keep one engine process running, and everything open in it; see :class:`EngineClient` for its requests.

    When the process ends, the requests that it was working on fail once with :class:`WorkerGoneError`, ``on_report``
    receives the error once, and a new process is started in which the model is loaded and all volumes are opened again.
    Requests made meanwhile wait. Session ids stay valid. The files of opened volumes belong to this client, which
    deletes them when the session is closed.

    :param start: makes a transport for each new process.
    :param shared: where arrays travel; made and removed here by default.
    :param compute: False for a process that only manages models, see ``initialize``.
    :param call_later, on_report, on_state: see :class:`ProcessSupervisor`.
    """

    def __init__(
        self,
        start: Callable[[], Transport],
        *,
        shared: SharedDirectory | None = None,
        name: str = "vista3d",
        call_later: CallLater = call_in_thread,
        on_report: Callable[[VistaError], object] = lambda _error: None,
        on_state: Callable[[str], object] = lambda _state: None,
        policy: RestartPolicy | None = None,
        compute: bool = True,
    ) -> None:
        self.shared, self._owns_shared = shared or SharedDirectory(), shared is None
        hello = initialize_params(self.shared.path, name, compute=compute)
        super().__init__(start, hello, call_later, policy or RestartPolicy(), on_report, on_state)
        self._jobs: dict[int, _Job] = {}
        self._queue: deque[_Job] = deque()
        self._last_id = 0
        self._volumes: dict[str, _Volume] = {}
        self._opened = 0
        self._model: LoadParams | None = None
        self._announced: deque[str] = deque(maxlen=_KEPT_NAMES)
        # What is still to be opened again in a new process (None: the model), and what is being opened.
        self._steps: deque[str | None] = deque()
        self._reopening: str | None = None

    def __enter__(self) -> SupervisedClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, method: str, params: Params | None, handler: Handler) -> int:
        """Send a request, now or when the process is ready, and return its id; see :meth:`EngineClient.submit`."""
        with self._deferred():
            self._last_id += 1
            job = self._jobs[self._last_id] = _Job(self._last_id, method, params, handler)
            if method in ("initialize", "shutdown"):
                self._fail(job, ProtocolError(f"'{method}' is the supervisor's business."))
            elif self._state == CLOSED:
                self._fail(job, WorkerGoneError("The engine process was stopped."))
            elif method == "close":
                self._close_volume(job)
            elif self._state == READY:
                self._send(job)
            else:
                self._queue.append(job)
                self._wake()
        return job.id

    def cancel(self, identity: int) -> None:
        """Ask to stop a request, if it is still open."""
        with self._deferred():
            job = self._jobs.get(identity)
            if job is None:
                return
            job.cancelled = True
            if job in self._queue:
                self._queue.remove(job)
                self._fail(job, Cancelled())
            elif job.sent is not None:
                self._deferred.add(job.sent[0].cancel, job.sent[1])

    def close(self) -> None:
        """End the process and remove the shared arrays; open requests fail."""
        with self._deferred():
            if self._state == CLOSED:
                return
            self._end_for_good()
            stopped = WorkerGoneError("The engine process was stopped.")
            self._fail_all(self._queue, stopped)
            for volume in self._volumes.values():
                self._fail_all(volume.waiting, stopped)
            if self._owns_shared:
                self._deferred.add(self.shared.close)

    # What the process does

    def _on_up(self) -> None:
        self._steps = deque([] if self._model is None else [None])
        self._steps += [session for session, volume in self._volumes.items() if volume.error is None]
        self._reopen_next()

    def _on_down(self) -> None:
        # Results that were announced may not have been read yet.
        self._deferred.add(self.shared.sweep, frozenset(self._announced))
        if self._reopening in self._volumes:
            _blame(self._volumes[self._reopening])
        self._reopening = None
        for volume in self._volumes.values():
            volume.current = None
            self._fail_all(volume.waiting, WorkerGoneError("The engine process ended."))

    def _on_given_up(self, error: VistaError) -> None:
        self._fail_all(self._queue, error)

    # Opening everything again

    def _reopen_next(self) -> None:
        self._reopening = None
        while self._steps:
            session = self._steps.popleft()
            on_opened = partial(self._on_reopened_in_turn, self._life, session)
            if session is None:
                self._send_internal("load", self._model, on_opened)
                return
            if session in self._volumes:
                self._reopening = session
                self._send_internal("open", self._volumes[session].params, on_opened)
                return
        self._declare_ready()
        queue = list(self._queue)
        self._queue.clear()
        for job in queue:
            self._send(job)

    def _on_reopened_in_turn(self, life: int, session: str | None, event: Event) -> None:
        with self._deferred():
            gone = isinstance(event, Failure) and isinstance(event.error, WorkerGoneError)
            if life != self._life or isinstance(event, ProgressEvent) or gone:
                return
            if session is not None:  # a model that does not load any more will show when it is used
                self._note_opened(session, event)
            self._reopen_next()

    def _note_opened(self, session: str, event: Response | Failure) -> None:
        """Note what became of a volume that was opened again."""
        volume = self._volumes.get(session)
        if volume is None:
            if isinstance(event, Response):
                self._send_internal("close", CloseParams(event.result.session))
        elif isinstance(event, Response):
            volume.current, volume.crashes = event.result.session, 0
        else:
            volume.error = event.error

    def _retry(self, job: _Job) -> None:
        """Open a volume again that the engine released because memory ran low, then repeat the request."""
        job.retried, job.sent = True, None
        session = job.params.session
        volume = self._volumes[session]
        if volume.current != job.used:
            self._send(job)
            return
        volume.waiting.append(job)
        if len(volume.waiting) == 1:
            self._send_internal("open", volume.params, partial(self._on_reopened, self._life, session))

    def _on_reopened(self, life: int, session: str, event: Event) -> None:
        with self._deferred():
            if life != self._life or isinstance(event, ProgressEvent):
                return
            volume = self._volumes.get(session)
            if volume is None or isinstance(event, Response):
                self._note_opened(session, event)
            if volume is None:
                return
            waiting, volume.waiting = volume.waiting, []
            for job in waiting:
                if isinstance(event, Failure):
                    self._fail(job, event.error)
                else:
                    self._send(job)

    # Requests of the user

    def _send(self, job: _Job) -> None:
        params, session = job.params, getattr(job.params, "session", None)
        if session is not None:
            volume = self._volumes.get(session)
            if volume is None or volume.error is not None:
                self._fail(job, _not_open() if volume is None or volume.error is None else volume.error)
                return
            job.used = volume.current
            params = replace(params, session=volume.current)
        self._deferred.add(self._transmit, self._client, job, params)

    def _transmit(self, client: EngineClient, job: _Job, params: Params | None) -> None:
        try:
            identity = client.submit(job.method, params, partial(self._on_event, job))
        except WorkerGoneError:
            self._requeue(job, client)
            return
        except VistaError as error:
            self._on_event(job, Failure(job.id, error))
            return
        with self._deferred():
            job.sent = client, identity
            if job.cancelled:
                self._deferred.add(client.cancel, identity)

    def _requeue(self, job: _Job, client: EngineClient) -> None:
        """Keep a request for the next process, because the last one ended before it received it."""
        with self._deferred():
            if job.method == "close":
                self._finish(job, Response(job.id, None))
            elif self._state == CLOSED:
                self._fail(job, WorkerGoneError("The engine process was stopped."))
            elif self._state == READY and self._client is not client:
                self._send(job)
            else:
                self._queue.append(job)
                self._wake()

    def _on_event(self, job: _Job, event: Event) -> None:
        with self._deferred():
            if isinstance(event, ProgressEvent | Response):
                self._announced += [ref.file for ref in arrays_in(event)]
            if isinstance(event, ProgressEvent):
                self._deferred.add(job.handler, replace(event, id=job.id))
            elif isinstance(event, Response):
                self._note_success()
                self._finish(job, Response(job.id, self._translate_result(job, event.result)))
            elif isinstance(event.error, UnknownSessionError) and self._can_retry(job):
                self._retry(job)
            else:
                self._fail(job, event.error)

    def _translate_result(self, job: _Job, result: Result | None) -> Result | None:
        """Note what a result means for the next process, and replace the engine's ids by those that the user knows."""
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
        return job.used is not None and not job.retried and self._state == READY and job.params.session in self._volumes

    def _close_volume(self, job: _Job) -> None:
        """Forget a volume at once; the present process frees it, if it has it."""
        volume = self._volumes.pop(job.params.session, None)
        if volume is None:
            self._fail(job, _not_open())
            return
        self._fail_all(volume.waiting, _not_open())
        self._deferred.add(self.shared.delete, volume.params.volume.file)
        if volume.current is None or self._client is None:
            self._finish(job, Response(job.id, None))
        else:
            self._deferred.add(self._transmit, self._client, job, CloseParams(volume.current))

    def _finish(self, job: _Job, event: Response | Failure) -> None:
        if self._jobs.pop(job.id, None) is not None:
            self._deferred.add(job.handler, event)

    def _fail(self, job: _Job, error: VistaError) -> None:
        # An exception of its own for each: it may be raised in a thread of its own.
        self._finish(job, Failure(job.id, copy.copy(error)))

    def _fail_all(self, jobs: list[_Job] | deque[_Job], error: VistaError) -> None:
        for job in jobs:
            self._fail(job, error)
        jobs.clear()


def _blame(volume: _Volume) -> None:
    """Count that the process ended while it opened this volume again; after the second time it stays closed."""
    volume.crashes += 1
    if volume.crashes > 1:
        volume.error = WorkerGoneError(
            f"The engine process ended twice while it opened the volume '{volume.params.name}' again; "
            "close other programs, then open it once more."
        )


def _not_open() -> UnknownSessionError:
    return UnknownSessionError("The volume is not open in the engine; open it again.")
