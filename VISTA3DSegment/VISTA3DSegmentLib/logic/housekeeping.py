# SPDX-License-Identifier: Apache-2.0
"""The engine process that manages models and looks at the computer; it ends when nobody needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import Params, Result
    from VISTA3DCore.errors import VistaError

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
        """Send a request; see :meth:`Engine.request`."""
        self._open += 1
        self._count += 1
        counted = _Counted(self._ended)

        def result(answer: Result | None) -> None:
            counted.end()
            on_result(answer)

        def failed(error: VistaError) -> None:
            counted.end()
            on_error(error)

        counted.request = self._engine.request(method, params, result, failed, on_progress)
        return counted

    def _ended(self) -> None:
        self._open -= 1
        count = self._count
        self._engine.call_later(self._idle_s, lambda: self._end(count))

    def _end(self, count: int) -> None:
        if self._open == 0 and self._count == count:
            self._engine.stop()


class _Counted:
    """A request that the process is kept for until it is answered or dropped, see :class:`Pending`."""

    request: Pending

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end, self._ended = on_end, False

    @property
    def done(self) -> bool:
        return self.request.done

    def cancel(self) -> None:
        self.request.cancel()

    def drop(self) -> None:
        self.request.drop()
        self.end()

    def end(self) -> None:
        """Count it as open no longer."""
        ended, self._ended = self._ended, True
        if not ended:
            self._on_end()
