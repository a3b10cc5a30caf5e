# SPDX-License-Identifier: Apache-2.0
"""The engine process as the front end sees it: requests with callbacks, and signals of how it is.

Everything happens on the main thread: the transport brings bytes by signals of ``QProcess``, time comes from
``QTimer.singleShot``. Nothing waits here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from VISTA3DCore.engine.client import Failure, ProgressEvent, Response
from VISTA3DCore.engine.protocol import ArrayRef, Params, Result, WorkerGoneError, arrays_in
from VISTA3DCore.engine.supervised_client import SupervisedClient
from VISTA3DCore.errors import VistaError

from .signals import Signal
from .stepping import Stepping
from .wording import in_panel_words, panel_sentence

if TYPE_CHECKING:
    import numpy as np

    from VISTA3DCore.engine.arrays import SharedDirectory
    from VISTA3DCore.engine.client import Event
    from VISTA3DCore.engine.protocol import PartialInfo, SegmentResult
    from VISTA3DCore.engine.supervisor import RestartPolicy
    from VISTA3DCore.engine.transports import Transport

OnResult = Callable[[Result | None], Any]
OnError = Callable[[VistaError], Any]
OnProgress = Callable[[ProgressEvent], Any]


class Pending(Protocol):
    """Something that was asked for and is answered once, by ``on_result`` or by ``on_error``."""

    @property
    def done(self) -> bool:
        """Whether no callback will come any more."""

    def cancel(self) -> None:
        """Ask to stop it. One answer still comes: ``on_error`` with :class:`Cancelled`, or a result that was faster."""

    def drop(self) -> None:
        """Ask to stop it and hear nothing of it from this moment on; files of a late result are deleted."""


class Request:
    """One request to the engine, see :class:`Pending`. Callbacks never come before ``Engine.request`` has returned."""

    def __init__(self, engine: Engine, on_result: OnResult, on_error: OnError, on_progress: OnProgress | None) -> None:
        self._engine = engine
        self._on_result, self._on_error, self._on_progress = on_result, on_error, on_progress
        self._supervisor: SupervisedClient | None = None
        self._identity: int | None = None
        self._done = False

    @property
    def done(self) -> bool:
        """See :class:`Pending`."""
        return self._done

    def cancel(self) -> None:
        """See :class:`Pending`."""
        if self._identity is not None and not self._done:
            self._supervisor.cancel(self._identity)

    def drop(self) -> None:
        """See :class:`Pending`."""
        done, self._done = self._done, True
        if not done and self._identity is not None:
            self._supervisor.cancel(self._identity)  # which may answer at once

    def _submit(self, supervisor: SupervisedClient, method: str, params: Params | None) -> None:
        self._supervisor = supervisor
        self._identity = supervisor.submit(method, params, self._arrived)

    def _arrived(self, event: Event) -> None:
        if self._identity is None:  # the caller does not know the request yet
            self._engine.call_later(0.0, partial(self._heard, event))
        else:
            self._heard(event)

    def _heard(self, event: Event) -> None:
        if self._done:
            self._engine._discard(event)
        elif isinstance(event, ProgressEvent):
            if self._on_progress is None:
                self._engine._discard(event)
            else:
                self._on_progress(event)
        else:
            self._done = True
            answered = self._on_result if isinstance(event, Response) else self._on_error
            answered(event.result if isinstance(event, Response) else in_panel_words(event.error))


class Engine:
    """One engine process, started ahead of or at its first use and again whenever it ends.

    :param start_transport: makes a transport for each new process.
    :param call_later: calls a function on the main thread after some seconds.
    :param name: who asks, for the engine's log.
    :param policy: when a process is restarted, for tests.
    :param compute: False for a process that only keeps house: it never loads the network's runtime.

    Signals: ``state_changed(str)`` as :class:`SupervisedClient` names the states; ``noticed(sentence)`` what people
    should know; ``reported(sentence)`` once per failure of the process; ``stopped()`` all sessions are gone for good.
    """

    def __init__(
        self,
        start_transport: Callable[[], Transport],
        call_later: Callable[[float, Callable[[], None]], Any],
        name: str = "slicer",
        policy: RestartPolicy | None = None,
        compute: bool = True,
    ) -> None:
        self.state_changed, self.noticed, self.reported, self.stopped = Signal(), Signal(), Signal(), Signal()
        self.call_later = call_later
        self._start_transport, self._name = start_transport, name
        self._policy, self._compute = policy, compute
        self._supervisor: SupervisedClient | None = None
        self._requests: set[Request] = set()
        self._closed = False

    @property
    def state(self) -> str:
        """``stopped``, ``starting``, ``ready``, ``waiting`` (for the next start), ``failed`` or ``closed``."""
        if self._closed:
            return "closed"
        return "stopped" if self._supervisor is None else self._supervisor.state

    @property
    def info(self) -> Any:
        """What the process said of itself (``InitializeResult``), None before it has."""
        return None if self._supervisor is None else self._supervisor.info

    @property
    def shared(self) -> SharedDirectory:
        """The folder in which arrays travel.

        :raises VistaError: if it cannot be made.
        """
        return self._running().shared

    def start(self) -> None:
        """Start the process if it is not running; returns at once. Failures are ``reported``."""
        try:
            self._running().start()
        except VistaError as error:
            self._report(error)

    def stop(self) -> None:
        """End the process; open requests fail. The next request starts a new one, e.g. with another interpreter."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close()
            self.stopped()

    def close(self) -> None:
        """End the process for good; no callback and no signal comes any more."""
        self._closed = True
        for request in list(self._requests):
            request.drop()
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.close()

    def request(
        self,
        method: str,
        params: Params | None,
        on_result: OnResult,
        on_error: OnError,
        on_progress: OnProgress | None = None,
    ) -> Request:
        """Send a request, now or as soon as the process is ready; it is answered by exactly one callback.

        After :meth:`close` there is no callback at all.

        :param on_error: gets a :class:`VistaError` whose text is for people.
        """
        request = Request(self, on_result, on_error, on_progress)
        if self._closed:
            request.drop()
            return request
        self._requests = {one for one in self._requests if not one.done} | {request}
        try:
            request._submit(self._running(), method, params)
        except VistaError as error:
            self.call_later(0.0, partial(request._heard, Failure(0, error)))
        return request

    def put_array(self, array: np.ndarray, affine: np.ndarray | None = None) -> ArrayRef:
        """Write a small array for the engine; see :meth:`SharedDirectory.put`.

        :param affine: 4x4, voxel index -> RAS mm.
        :raises VistaError: if it cannot be written, e.g. because the disk is full.
        """
        return self.shared.put(array, affine)

    def hand_over(
        self,
        array: np.ndarray,
        affine: np.ndarray | None,
        on_done: Callable[[ArrayRef], Any],
        on_error: OnError,
    ) -> Pending:
        """Write a large array for the engine without holding up the event loop.

        :param affine: 4x4, voxel index -> RAS mm.
        :raises VistaError: if the folder for arrays cannot be made.
        """
        return Stepping(self.shared.put_in_steps(array, affine), self._unless_over, on_done, on_error)

    def take_array(self, ref: ArrayRef) -> np.ndarray:
        """Return an array of a result, and delete its file; see :meth:`SharedDirectory.take`.

        :raises VistaError: if it is not there.
        """
        return self.shared.take(ref)

    def take_labels(self, found: SegmentResult | PartialInfo) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return labels and masks (by index) of a result, and delete their files, even if one of them is damaged.

        :raises VistaError: as :meth:`take_array`.
        """
        try:
            masks = {int(index): self.take_array(ref) for index, ref in found.masks.items()}
            return self.take_array(found.labels), masks
        finally:
            for ref in arrays_in(found):
                self.delete_array(ref)

    def delete_array(self, ref: ArrayRef) -> None:
        """Delete the file of an array."""
        if self._supervisor is not None:
            self._supervisor.shared.delete(ref.file)

    def _running(self) -> SupervisedClient:
        """:raises VistaError: if the folder for arrays cannot be made, or the engine was closed."""
        if self._closed:
            raise WorkerGoneError("The engine process was stopped.")
        if self._supervisor is None:
            self._supervisor = SupervisedClient(
                self._start_transport,
                name=self._name,
                call_later=self.call_later,
                on_report=self._report,
                on_state=self._unless_closed(self.state_changed),
                policy=self._policy,
                compute=self._compute,
            )
            self._supervisor.on_notice = self._unless_closed(self.noticed)
        return self._supervisor

    def _unless_over(self, seconds: float, function: Callable[[], None]) -> None:
        self.call_later(seconds, lambda: None if self._closed else function())

    def _unless_closed(self, signal: Signal) -> Callable[[str], None]:
        return lambda text: None if self._closed else signal(text)

    def _report(self, error: VistaError) -> None:
        if not self._closed:
            self.reported(panel_sentence(error))

    def _discard(self, event: Event) -> None:
        """Delete the files of a result that nobody waits for."""
        for ref in arrays_in(event):
            self.delete_array(ref)
