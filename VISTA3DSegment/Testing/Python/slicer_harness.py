# SPDX-License-Identifier: Apache-2.0
"""What tests inside a running Slicer need: waiting, watching for stalls, pictures, and a line for each test.

Only tests wait like this; the extension itself never does.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import qt
import slicer

#: The longest time, ms, for which the window may not answer.
STALL_MS = float(os.environ.get("VISTA3D_TEST_STALL_MS", "100"))
PATIENCE_S = float(os.environ.get("VISTA3D_TEST_PATIENCE_S", "300"))

_BEAT_MS = 5
_tests: dict[str, Callable[[], str | None]] = {}


def test(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """Register a test. It may return what its line shall tell."""
    _tests[function.__name__] = function
    return function


def run_tests(names: tuple[str, ...] = ()) -> list[str]:
    """Run the tests, or those with the given names; print a line for each and return the names of the failed ones."""
    chosen = [name for name in _tests if not names or name in names]
    failed = [name for name in chosen if not _passes(name)]
    _say(f"{len(chosen) - len(failed)} of {len(chosen)} tests passed" + "".join(f"; {name} failed" for name in failed))
    return failed


def _passes(name: str) -> bool:
    start = time.perf_counter()
    errors = LoggedErrors()
    try:
        told = _tests[name]()
        errors.check()
    except Exception as error:
        _say(f"FAIL {name} {time.perf_counter() - start:.2f} s: {error}")
        traceback.print_exc()
        screenshot(f"failed_{name}")
        return False
    _say(f"ok   {name} {time.perf_counter() - start:.2f} s" + (f": {told}" if told else ""))
    return True


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    """Let Slicer work until something is the case.

    :raises AssertionError: if it is not in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        settle_once()


def settle(seconds: float = 0.2) -> None:
    """Let Slicer work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        settle_once()


def settle_once() -> None:
    """Let Slicer handle what is there."""
    slicer.app.processEvents()
    time.sleep(0.001)


class Heartbeat:
    """Measures for how long the window did not answer while it is on."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._timer = qt.QTimer()
        self._timer.setInterval(_BEAT_MS)
        self._timer.connect("timeout()", self._beat)
        self._last = 0.0

    def __enter__(self) -> Heartbeat:
        settle_once()
        self._last = time.perf_counter()
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.stop()
        self._beat()

    def check(self) -> str:
        """Return the longest stall in words.

        :raises AssertionError: if it was too long.
        """
        assert self.longest_ms <= STALL_MS, f"the window did not answer for {self.longest_ms:.0f} ms"
        return f"longest stall {self.longest_ms:.0f} ms"

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest_ms = max(self.longest_ms, 1000 * (now - self._last))
        self._last = now


#: What an editor logs that is used without a node.
_EDITOR_ERRORS = ("Invalid segment editor parameter set node", "need to set segment editor")


class LoggedErrors:
    """Exceptions that Slicer caught, and errors of the Segment Editor, in its log since this was made."""

    def __init__(self) -> None:
        self._model = slicer.app.errorLogModel()
        self._start = self._model.logEntryCount()

    def check(self) -> None:
        """:raises AssertionError: if there are any that name the extension, or an editor without a node."""
        entries = [self._model.logEntryDescription(row) for row in range(self._start, self._model.logEntryCount())]
        ours = [
            one
            for one in entries
            if "Traceback" in one
            or ("VISTA3D" in one and "Error" in one)
            or any(error in one for error in _EDITOR_ERRORS)
        ]
        assert not ours, "logged: " + ours[0].strip().splitlines()[-1]


def screenshot(name: str, widget: qt.QWidget | None = None) -> None:
    """Put a picture of a widget, or of the whole window, into the folder ``VISTA3D_SCREENSHOTS``, if that is set."""
    folder = os.environ.get("VISTA3D_SCREENSHOTS")
    shown = widget or slicer.util.mainWindow()
    if not folder or shown is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    settle()
    shown.grab().save(str(Path(folder) / f"{name}.png"))


@contextmanager
def collecting(*signals: object) -> Iterator[list[tuple]]:
    """Collect what signals tell."""
    told: list[tuple] = []

    def listener(*arguments: object) -> None:
        told.append(arguments)

    for signal in signals:
        signal.connect(listener)
    try:
        yield told
    finally:
        for signal in signals:
            signal.disconnect(listener)
