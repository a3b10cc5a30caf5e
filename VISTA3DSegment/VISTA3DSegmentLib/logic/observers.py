# SPDX-License-Identifier: Apache-2.0
"""Observers of VTK objects that can all be removed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vtk


class Observers:
    """Remembers what it observes; objects are not kept alive by it longer than until :meth:`clear`."""

    def __init__(self) -> None:
        self._observed: list[tuple[vtk.vtkObject, int]] = []

    def __len__(self) -> int:
        return len(self._observed)

    def add(self, observed: vtk.vtkObject, event: int | str, listener: Callable[..., Any]) -> None:
        """Call ``listener(caller, event)`` whenever something happens to an object."""
        self._observed.append((observed, observed.AddObserver(event, listener)))

    def clear(self) -> None:
        """Observe nothing any more."""
        observed, self._observed = self._observed, []
        for one, tag in observed:
            one.RemoveObserver(tag)
