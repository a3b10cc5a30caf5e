# SPDX-License-Identifier: Apache-2.0
"""The button that turns from Segment into Cancel, and the progress below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from .ui import plain_tip

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..logic.automatic import AutomaticRun

_STEPS = 1000
_MINUTE_S = 60.0


class RunControls:
    """Shows how the automatic run is, and lets the user start and stop it.

    :param button: the one button.
    :param bar: progress; hidden while nothing runs.
    :param run: the automatic run.
    :param on_start: called when the user wants to start.
    """

    def __init__(
        self, button: qt.QPushButton, bar: qt.QProgressBar, run: AutomaticRun, on_start: Callable[[], None]
    ) -> None:
        self._button, self._bar, self._run, self._on_start = button, bar, run, on_start
        self._reason: str | None = None
        button.connect("clicked(bool)", lambda _checked: self._on_clicked())
        self._signals = {
            run.started: self._on_started,
            run.progressed: self._on_progress,
            run.finished: self._on_ended,
            run.failed: self._on_ended,
            run.cancelled: self._on_ended,
        }
        for signal, listener in self._signals.items():
            signal.connect(listener)
        self._refresh()

    def cleanup(self) -> None:
        """Listen to the run no more; it goes on."""
        for signal, listener in self._signals.items():
            signal.disconnect(listener)

    def forbid(self, reason: str | None) -> None:
        """Keep the user from starting, with a reason as the button's tool tip; None allows it."""
        self._reason = reason
        self._refresh()

    def _on_clicked(self) -> None:
        if self._run.running:
            self._run.cancel()
        else:
            self._on_start()

    def _on_started(self) -> None:
        self._bar.maximum = 0  # busy, until there is something to tell
        self._bar.setFormat(_("Starting"))
        self._refresh()

    def _on_progress(self, fraction: float, text: str, remaining_s: float | None) -> None:
        self._bar.maximum = _STEPS
        self._bar.value = round(_STEPS * fraction)
        self._bar.setFormat(progress_in_words(text, remaining_s))

    def _on_ended(self, *_arguments: object) -> None:
        self._refresh()

    def _refresh(self) -> None:
        running = self._run.running
        self._bar.setVisible(running)
        self._button.text = _("Cancel") if running else _("Segment")
        self._button.enabled = running or self._reason is None
        tip = self._reason or _("Segment the chosen structures. The window stays usable meanwhile.")
        self._button.toolTip = plain_tip(_("Stop; nothing is changed.") if running else tip)


def progress_in_words(text: str, remaining_s: float | None) -> str:
    """Return what the bar says; a percent sign in it would be a placeholder."""
    left = "" if remaining_s is None else f" \N{MIDDLE DOT} {duration(remaining_s)}"
    return (text + left).replace("%", "%%")


def duration(seconds: float) -> str:
    """Return a remaining time in words, no more exact than it can be known."""
    if seconds < 10:
        return _("a few seconds left")
    if seconds < 1.5 * _MINUTE_S:
        return _("about {count} s left").format(count=5 * round(seconds / 5))
    return _("about {count} min left").format(count=round(seconds / _MINUTE_S))
