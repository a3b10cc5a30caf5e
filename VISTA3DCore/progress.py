"""The one way in which long calls report how far they are and learn that they should stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from VISTA3DCore.errors import Cancelled


@dataclass(frozen=True)
class ProgressUpdate:
    """A snapshot: fraction in [0, 1], stage (a few words), message, remaining seconds (None while unknown)."""

    fraction: float
    stage: str
    message: str = ""
    remaining_s: float | None = None


class Progress:
    """Reports to a callback and carries the wish to cancel.

    A long call invokes :meth:`update` between its steps (for inference: between windows) and so stops within one
    step of :meth:`cancel`.

    :param on_update: called with a :class:`ProgressUpdate`; it may call :meth:`cancel`.
    """

    def __init__(self, on_update: Callable[[ProgressUpdate], None] | None = None) -> None:
        self._on_update = on_update
        self._cancelled = False
        self._started: float | None = None

    @classmethod
    def of(cls, progress: Progress | Callable[[ProgressUpdate], None] | None) -> Progress:
        """Accept what callers pass as ``progress=``: a Progress, a callback, or None."""
        return progress if isinstance(progress, Progress) else cls(progress)

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Ask the running call to stop; safe from any thread and from the callback."""
        self._cancelled = True

    def check(self) -> None:
        """:raises Cancelled: if somebody asked to stop."""
        if self.cancelled:
            raise Cancelled()

    def update(self, fraction: float, stage: str, message: str = "") -> None:
        """Report a state and stop here if asked to.

        :raises Cancelled: if somebody asked to stop.
        """
        now = time.monotonic()
        self._started = now if self._started is None else self._started
        if self._on_update is not None:
            remaining = self._remaining(fraction, now - self._started)
            self._on_update(ProgressUpdate(min(max(fraction, 0.0), 1.0), stage, message, remaining))
        self.check()

    def part(self, start: float, stop: float) -> Progress:
        """Return a Progress whose 0..1 is the range start..stop of this one; cancelling is shared."""
        return _Part(self, start, stop)

    @staticmethod
    def _remaining(fraction: float, elapsed: float) -> float | None:
        return elapsed * (1.0 - fraction) / fraction if 0.02 < fraction <= 1.0 else None


class _Part(Progress):
    """A slice of another Progress."""

    def __init__(self, whole: Progress, start: float, stop: float) -> None:
        super().__init__()
        self._whole, self._start, self._stop = whole, start, stop

    @property
    def cancelled(self) -> bool:
        return self._whole.cancelled

    def cancel(self) -> None:
        self._whole.cancel()

    def update(self, fraction: float, stage: str, message: str = "") -> None:
        self._whole.update(self._start + (self._stop - self._start) * fraction, stage, message)
