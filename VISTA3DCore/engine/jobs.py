"""The requests that wait for the inference thread, and the one that it works on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from VISTA3DCore.progress import Progress, ProgressUpdate

RequestId = int | str


@dataclass(eq=False)
class Job:
    """One request.

    :param background: whether any other request overtakes it.
    """

    id: RequestId
    method: str
    params: Any
    background: bool = False
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def reporting(
        cls,
        id_: RequestId,
        method: str,
        params: Any,
        background: bool,
        report: Callable[[RequestId, ProgressUpdate], None],
    ) -> Job:
        """Return a job whose progress goes to ``report`` together with its id."""
        return cls(id_, method, params, background, Progress(lambda update: report(id_, update)))


class JobQueue:
    """Jobs in order of arrival, those of the background behind all others. For one thread that takes and one that puts.

    A job of the background (``warm``, ``probe``) is one window, the smallest piece of work that there is, so once it
    runs nothing is gained by interrupting it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._background: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return len(self._waiting) + len(self._background)

    @property
    def running(self) -> Job | None:
        """The job that is being worked on."""
        return self._running

    def put(self, job: Job) -> None:
        """Add a job."""
        with self._changed:
            (self._background if job.background else self._waiting).append(job)
            self._changed.notify()

    def take(self) -> Job | None:
        """Wait for the next job, which is the running one from here on; None once there will be no more."""
        with self._changed:
            while not self._closed and not self._waiting and not self._background:
                self._changed.wait()
            if self._closed:
                return None
            self._running = (self._waiting or self._background).popleft()
            return self._running

    def finish(self) -> bool:
        """Say that the running job is done; return whether it is still to be answered."""
        with self._changed:
            job, self._running = self._running, None
            return job is not None

    def has(self, id_: RequestId) -> bool:
        """Return whether a job of this id waits or runs."""
        with self._changed:
            return any(job.id == id_ for job in self._all())

    def cancel(self, id_: RequestId) -> Job | None:
        """Ask the running job to stop, or take a waiting one out and return it."""
        with self._changed:
            if self._running is not None and self._running.id == id_:
                self._running.progress.cancel()
                return None
            for jobs in (self._waiting, self._background):
                for job in jobs:
                    if job.id == id_:
                        jobs.remove(job)
                        return job
        return None

    def close(self) -> list[Job]:
        """Ask the running job to stop, and return all that were not answered yet; the caller answers them."""
        with self._changed:
            jobs, self._closed = self._all(), True
            self._changed.notify()
            if self._running is not None:
                self._running.progress.cancel()
            self._waiting.clear()
            self._background.clear()
            self._running = None
            return jobs

    def _all(self) -> list[Job]:
        return [job for job in (self._running, *self._waiting, *self._background) if job is not None]
