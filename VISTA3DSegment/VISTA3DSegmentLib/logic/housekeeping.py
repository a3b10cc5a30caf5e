# SPDX-License-Identifier: Apache-2.0
"""The engine process that manages models and looks at the computer; it ends when nobody needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from VISTA3DCore.errors import VistaError
    from VISTA3DCore.worker.protocol import Params, Result

    from .engine import Engine, OnError, OnProgress, OnResult, Pending

# How long it stays for the next request.
_IDLE_S = 20.0


class Housekeeping:
    """Requests to a process that never computes, so that a download holds up no click.

    :param engine: made with ``compute=False``; other uses of it would be cut off.
    :param idle_s: seconds without a request after which the process ends.
    """

    def __init__(self, engine: Engine, idle_s: float = _IDLE_S) -> None:
        self._engine, self._idle_s = engine, idle_s
        self._open = self._count = 0

    def request(
        self,
        method: str,
        params: Params | None,
        on_result: OnResult,
        on_error: OnError,
        on_progress: OnProgress | None = None,
    ) -> Pending:
        """Send a request; see :meth:`Engine.request`. Do not ``drop`` it: cancel it."""
        self._open += 1
        self._count += 1

        def result(answer: Result | None) -> None:
            self._answered()
            on_result(answer)

        def failed(error: VistaError) -> None:
            self._answered()
            on_error(error)

        return self._engine.request(method, params, result, failed, on_progress)

    def _answered(self) -> None:
        self._open -= 1
        count = self._count
        self._engine.call_later(self._idle_s, lambda: self._end(count))

    def _end(self, count: int) -> None:
        if self._open == 0 and self._count == count:
            self._engine.stop()
