"""A progress bar for long work, and Ctrl+C that stops it cleanly."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

from VISTA3DCore.cli.console import err, say
from VISTA3DCore.progress import Progress, ProgressUpdate

PATIENCE_S = 2.0


class Reporter:
    """Shows a bar on standard error once the work has taken two seconds; lines instead, where nobody watches.

    A context manager. While it is open, the first Ctrl+C asks :attr:`progress` to cancel, the second one interrupts.

    :param quiet: show nothing; Ctrl+C works all the same.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.progress = Progress(self._on_update)
        self._quiet = quiet
        self._bar = Bar(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), _TimeLeft(),
            console=err, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("Starting", total=1.0, left=None)
        self._timer = threading.Timer(PATIENCE_S, self._show)
        self._timer.daemon = True
        self._stage = ""
        self._estimate = _Estimate(0.0)
        self._shown = False
        self._previous_handler: Any = None

    def __enter__(self) -> Reporter:
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)
        if not self._quiet:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)
        if self._shown and err.is_terminal:
            self._bar.stop()

    def _show(self) -> None:
        self._shown = True
        if err.is_terminal:
            self._bar.start()
        elif self._stage:
            say(f"{self._stage} ...")

    def _on_update(self, update: ProgressUpdate) -> None:
        if update.stage != self._stage:
            self._stage = update.stage
            self._estimate = _Estimate(update.fraction)
            if self._shown and not err.is_terminal:
                say(f"{update.stage} ...")
        description = f"{update.stage}: {update.message}" if update.message else update.stage
        left = self._estimate.remaining(update.fraction)
        self._bar.update(self._task, completed=update.fraction, description=description, left=left)

    def _on_interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self.progress.cancelled:
            raise KeyboardInterrupt
        self.progress.cancel()
        self._bar.update(self._task, description="Stopping", left=None)


class _Estimate:
    """Remaining time judged by the present stage alone: loading a model says nothing about the windows that follow."""

    def __init__(self, fraction: float) -> None:
        self._fraction, self._started = fraction, time.monotonic()

    def remaining(self, fraction: float) -> float | None:
        """Return seconds until 1.0, None while too little is done to tell."""
        done, elapsed = fraction - self._fraction, time.monotonic() - self._started
        return elapsed * (1.0 - fraction) / done if done > 0.02 and elapsed > 1.0 else None


class _TimeLeft(ProgressColumn):
    """The estimate, in words."""

    def render(self, task: Task) -> Text:
        return Text("" if task.fields["left"] is None else f"about {duration(task.fields['left'])} left", style="cyan")


def duration(seconds: float) -> str:
    """Return a time as people say it: seconds, minutes, or hours and minutes."""
    if seconds < 59.5:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
