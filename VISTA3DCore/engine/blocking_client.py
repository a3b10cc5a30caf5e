"""The engine process as plain function calls, for scripts: same arguments, results and errors as in-process."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from VISTA3DCore.anatomy.catalogue import Catalogue, catalogue
from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.client import (
    EngineClient,
    Event,
    Failure,
    ProgressEvent,
    Response,
    initialize_params,
    model_on_wire,
)
from VISTA3DCore.engine.protocol import (
    InitializeResult,
    LoadParams,
    LoadResult,
    OpenParams,
    Params,
    ProtocolError,
    WorkerGoneError,
    arrays_in,
)
from VISTA3DCore.engine.remote_session import RemoteSession, emit_notes
from VISTA3DCore.engine.supervised_client import SupervisedClient
from VISTA3DCore.engine.transports import Transport
from VISTA3DCore.errors import Cancelled, SlowerWarning
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.inference.session import ProgressLike

# How soon a request to cancel, or Ctrl+C on Windows, is noticed while nothing arrives.
_POLL_S = 0.05
#: How long the engine may take to start: importing torch from a cold network drive takes minutes.
START_TIMEOUT_S = 300.0
_SHUTDOWN_TIMEOUT_S = 10.0


class BlockingClient:
    """An engine process; a context manager.

    :param engine: a transport that is not started yet, or a :class:`SupervisedClient`, which restarts the process when
        it ends.
    :param name: who asks, for the log.
    :raises WorkerGoneError: if the process cannot be started. :raises VistaError: if it refuses.
    """

    def __init__(self, engine: Transport | SupervisedClient, name: str = "vista3d-python") -> None:
        self._notices: deque[str] = deque()
        self._engine: EngineClient | SupervisedClient
        if isinstance(engine, SupervisedClient):
            self._engine, self.shared = engine, engine.shared
            engine.on_notice = self._notices.append
            engine.start()
            return
        self._engine = EngineClient(engine, on_notice=self._notices.append)
        self.shared = SharedDirectory()
        try:
            self._engine.start()
            self._info: InitializeResult = self.call(
                "initialize", initialize_params(self.shared.path, name), timeout=START_TIMEOUT_S
            )
        except BaseException:
            self._engine.close()
            self.shared.close()
            raise

    @property
    def info(self) -> InitializeResult | None:
        """What the engine process said of itself; None while a supervised one is not ready."""
        return self._engine.info if isinstance(self._engine, SupervisedClient) else self._info

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine process and remove the shared arrays."""
        if isinstance(self._engine, EngineClient):
            with contextlib.suppress(WorkerGoneError):
                self.call("shutdown", timeout=_SHUTDOWN_TIMEOUT_S)
        self._engine.close()
        self.shared.close()

    def call(
        self,
        method: str,
        params: Params | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
        on_partial: Callable[[ProgressEvent], object] | None = None,
    ) -> Any:
        """Send a request and wait for its result, which has the type that ``METHODS`` names.

        :param progress: is updated from this thread; if it is cancelled, so is the request.
        :param on_partial: gets, in this thread, the events that carry partial results, and deletes their files.
        :param timeout: seconds; None waits as long as the engine process lives.
        :raises VistaError: what the engine raised, or WorkerGoneError.
        """
        pending = _PendingCall(self.shared, Progress.of(progress), self._emit_notices, on_partial)
        identity = self._engine.submit(method, params, pending)
        try:
            answer = pending.wait(timeout, lambda: self._engine.cancel(identity))
        except BaseException:
            pending.abandon()
            self._engine.cancel(identity)
            raise
        self._emit_notices()
        if isinstance(answer, Failure):
            raise answer.error
        return answer.result

    def load(
        self,
        model: str = "vista3d-ct",
        device: str = "auto",
        progress: ProgressLike = None,
        runtime: str = "auto",
        precision: str = "auto",
    ) -> LoadResult:
        """Load a model, as :meth:`Segmenter.from_pretrained` does."""
        return self.call("load", LoadParams(model_on_wire(model), str(device), runtime, precision), progress)

    def open(
        self,
        volume: Volume,
        model: str = "vista3d-ct",
        device: str = "auto",
        progress: ProgressLike = None,
        runtime: str = "auto",
        precision: str = "auto",
        grid: str = "stored",
    ) -> RemoteSession:
        """Open a volume, as :meth:`Segmenter.open` does; its notes become warnings.

        :raises VistaError: as the engine does.
        """
        progress = Progress.of(progress)
        loaded = self.load(model, device, progress.part(0.0, 0.3), runtime, precision)
        ref = self.shared.put(volume.array, volume.affine)
        names = model_on_wire(model), volume.name, volume.modality, str(device)
        params = OpenParams(ref, *names, runtime, precision, grid)
        opened = None
        try:
            opened = self.call("open", params, progress.part(0.3, 1.0))
        finally:
            # A supervised client needs the file to open the volume again, until the session is closed.
            if opened is None or isinstance(self._engine, EngineClient):
                self.shared.delete(ref.file)
        emit_notes(opened.notes)
        return RemoteSession(self, loaded, opened, volume.affine, volume.shape)

    def _emit_notices(self) -> None:
        """Turn the engine's notices into warnings, in the caller's thread."""
        while self._notices:
            warnings.warn(self._notices.popleft(), SlowerWarning, stacklevel=1)


class RemoteSegmenter:
    """A model in an engine process: what the commands need of a :class:`VISTA3DCore.inference.segmenter.Segmenter`.

    :param options: ``model`` (name or file), ``device``, ``runtime`` and ``precision``.
    :raises VistaError: as :meth:`Segmenter.from_pretrained`.
    """

    def __init__(self, client: BlockingClient, options: dict[str, str], progress: Progress) -> None:
        self._client, self._options = client, options
        loaded = client.load(**options, progress=progress)
        self.catalogue: Catalogue = catalogue(loaded.label_set)
        self.trained, self.provenance = loaded.trained or loaded.available, loaded.provenance
        self.device, self.device_reason = loaded.device, loaded.device_reason
        self.runtime, self.precision, self.runtime_reason = loaded.runtime, loaded.precision, loaded.runtime_reason

    def open(self, volume: Volume, progress: Progress, grid: str = "stored") -> RemoteSession:
        """Open a volume; see :meth:`Segmenter.open`."""
        return self._client.open(volume, **self._options, progress=progress, grid=grid)


class _PendingCall:
    """The handler of one request, whose caller waits for it."""

    def __init__(
        self,
        shared: SharedDirectory,
        progress: Progress,
        emit_notices: Callable[[], None],
        on_partial: Callable[[ProgressEvent], object] | None,
    ) -> None:
        self._shared, self._progress, self._emit_notices = shared, progress, emit_notices
        self._on_partial = on_partial or self._delete
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._abandoned = False

    def __call__(self, event: Event) -> None:
        self._events.put(event)
        if self._abandoned:
            self._discard()

    def wait(self, timeout: float | None, cancel: Callable[[], None]) -> Response | Failure:
        """Return the last event.

        :raises WorkerGoneError: if there is none in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        cancel_sent = False
        while True:
            with contextlib.suppress(Empty):
                event = self._events.get(timeout=_POLL_S)
                if isinstance(event, (Response, Failure)):
                    return event
                self._update(event)
            self._emit_notices()
            if self._progress.cancelled and not cancel_sent:
                cancel_sent = True
                cancel()
            if deadline is not None and time.monotonic() > deadline:
                raise WorkerGoneError(f"The engine process did not answer within {timeout:g} s.")

    def abandon(self) -> None:
        """Stop waiting; the files of a late result are deleted."""
        self._abandoned = True
        self._discard()

    def _update(self, event: ProgressEvent) -> None:
        if event.partial is not None:
            self._on_partial(event)
        with contextlib.suppress(Cancelled):
            self._progress.update(event.fraction, event.stage, event.message)

    def _discard(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._delete(self._events.get_nowait())

    def _delete(self, event: Event) -> None:
        for ref in arrays_in(event):
            with contextlib.suppress(ProtocolError):
                self._shared.delete(ref.file)
