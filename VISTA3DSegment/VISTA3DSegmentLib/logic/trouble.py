# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the engine, for as long as it is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .signals import Signal

if TYPE_CHECKING:
    from .engine import Engine


class EngineTrouble:
    """Follows the reports of an engine until it has worked again.

    A process that ended is replaced within seconds. That alone does not end the trouble: people must have time to read
    what happened, and what they asked for was not done. A process that could not be started at all is another matter.

    Signals: ``began(sentence)`` for each report; ``ended()``: the engine has done something since, or runs at last.

    :param worked: signals that tell that the engine has done what it was asked for.
    """

    def __init__(self, engine: Engine, *worked: Signal) -> None:
        self.began, self.ended = Signal(), Signal()
        self._open = self._failed = False
        self._pairs = [(engine.reported, self._on_report), (engine.state_changed, self._on_state)]
        self._pairs += [(signal, self._on_worked) for signal in worked]
        for signal, listener in self._pairs:
            signal.connect(listener)

    def close(self) -> None:
        """Follow nothing any more."""
        for signal, listener in self._pairs:
            signal.disconnect(listener)

    def _on_report(self, sentence: str) -> None:
        self._open = True
        self.began(sentence)

    def _on_state(self, state: str) -> None:
        if state == "failed":
            self._failed = True
        elif state == "ready" and self._failed:
            self._on_worked()

    def _on_worked(self, *_arguments: object) -> None:
        was_open, self._open, self._failed = self._open, False, False
        if was_open:
            self.ended()
