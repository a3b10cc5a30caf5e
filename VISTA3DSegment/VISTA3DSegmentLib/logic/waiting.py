# SPDX-License-Identifier: Apache-2.0
"""What is needed to wait for signals: the first that comes, and progress for a script in the meantime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from VISTA3DCore.errors import Cancelled, VistaError

from .signals import Signal

#: Gets a fraction from 0 to 1 and a text for people; ``False`` as its answer stops the work.
OnProgress = Callable[[float, str], Any]


class Outcome:
    """Waits for the first of some signals: its name, and what it told."""

    def __init__(self, **signals: Signal) -> None:
        self.name, self.arguments = "", ()
        self._listeners = {signal: self._listener(name) for name, signal in signals.items()}

    def __enter__(self) -> Outcome:
        for signal, listener in self._listeners.items():
            signal.connect(listener)
        return self

    def __exit__(self, *_error: object) -> None:
        for signal, listener in self._listeners.items():
            signal.disconnect(listener)

    def result(self, good: str) -> tuple[Any, ...]:
        """Return what the good signal told.

        :raises VistaError: what another one told.
        """
        if self.name == good:
            return self.arguments
        if not self.arguments:
            raise Cancelled
        (told,) = self.arguments
        raise told if isinstance(told, VistaError) else VistaError(told)

    def _listener(self, name: str) -> Callable[..., None]:
        def listen(*arguments: Any) -> None:
            if not self.name:
                self.name, self.arguments = name, arguments

        return listen


class Reporting:
    """Hands progress to a script; what its function raises, or a wish to stop, comes out of :meth:`check`."""

    def __init__(self, progressed: Signal, function: OnProgress | None) -> None:
        self._progressed, self._function = progressed, function
        self._error: BaseException | None = None

    def __enter__(self) -> Reporting:
        self._progressed.connect(self._report)
        return self

    def __exit__(self, *_error: object) -> None:
        self._progressed.disconnect(self._report)

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _report(self, fraction: float, text: str, _remaining_s: float | None = None) -> None:
        if self._function is None or self._error is not None:
            return
        try:
            if self._function(fraction, text) is False:
                self._error = Cancelled()
        except Exception as error:
            self._error = error
