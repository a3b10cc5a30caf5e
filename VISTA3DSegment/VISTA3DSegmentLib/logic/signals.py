# SPDX-License-Identifier: Apache-2.0
"""Signals in plain Python: own signals of PythonQt crash Slicer, and everything here also runs without Qt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger("vista3d.slicer")


class Signal:
    """A list of functions that are called, in the order in which they were connected, when something happens."""

    def __init__(self) -> None:
        self._listeners: list[Callable[..., Any]] = []

    def connect(self, listener: Callable[..., Any]) -> None:
        """Call ``listener`` from now on; connecting it a second time changes nothing."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def disconnect(self, listener: Callable[..., Any]) -> None:
        """Call ``listener`` no more, from this moment on; harmless if it is not connected."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, *arguments: Any) -> None:
        """Call all listeners; what one of them raises is logged and does not keep it from the others."""
        for listener in list(self._listeners):
            if listener not in self._listeners:  # disconnected by one before it
                continue
            try:
                listener(*arguments)
            except Exception:
                log.exception("A listener failed")

    __call__ = emit
