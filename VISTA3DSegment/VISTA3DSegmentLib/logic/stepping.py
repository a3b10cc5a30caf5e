# SPDX-License-Identifier: Apache-2.0
"""Long work on the main thread, a few milliseconds in each turn of the event loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

from VISTA3DCore.errors import Cancelled, VistaError

from .wording import explained

Value = TypeVar("Value")


class Stepping:
    """Work that goes on until it is done, fails or is dropped; see :class:`VISTA3DSegmentLib.logic.engine.Pending`.

    :param steps: the work; it yields after each step and returns its value.
    :param call_later: calls a function on the main thread after some seconds.
    :param on_error: gets what the work raised; what is no :class:`VistaError` is logged, and explained in a sentence.
    """

    def __init__(
        self,
        steps: Generator[None, None, Value],
        call_later: Callable[[float, Callable[[], None]], Any],
        on_done: Callable[[Value], Any],
        on_error: Callable[[VistaError], Any],
    ) -> None:
        self._steps, self._call_later = steps, call_later
        self._on_done, self._on_error = on_done, on_error
        self._done = False
        call_later(0.0, self._advance)

    @property
    def done(self) -> bool:
        """Whether no callback will come any more."""
        return self._done

    def cancel(self) -> None:
        """Stop; ``on_error`` gets :class:`Cancelled`."""
        if not self._done:
            self.drop()
            self._call_later(0.0, partial(self._on_error, Cancelled()))

    def drop(self) -> None:
        """Stop; no callback comes any more."""
        self._done = True
        self._steps.close()

    def _advance(self) -> None:
        if self._done:
            return
        try:
            next(self._steps)
        except StopIteration as stop:
            self._done = True
            self._on_done(stop.value)
        except Exception as error:
            self._done = True
            self._on_error(explained(error))
        except BaseException:
            self._done = True
            raise
        else:
            self._call_later(0.0, self._advance)
