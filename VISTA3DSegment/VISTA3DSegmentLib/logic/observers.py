# SPDX-License-Identifier: Apache-2.0
"""Observers of VTK objects that can all be removed at once, and observers of a scene that do not keep it alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import slicer
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


def watch_scene(
    scene: slicer.vtkMRMLScene, on_removed: Callable[[Any], None], on_closing: Callable[[], None]
) -> list[int]:
    """Call methods when a node is removed from a scene and before a scene is closed; return the observers' tags.

    Their object is held weakly: Python may collect it together with the scene, and a scene that ends calls its
    observers. Calling what is half collected ends the process.

    :param on_removed: a bound method that takes the node; :param on_closing: a bound method.
    """
    removed_method, closing_method = weakref.WeakMethod(on_removed), weakref.WeakMethod(on_closing)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def removed(_scene: Any, _event: Any, node: Any) -> None:
        if (method := removed_method()) is not None:
            method(node)

    def closing(*_arguments: Any) -> None:
        if (method := closing_method()) is not None:
            method()

    events = {slicer.vtkMRMLScene.NodeRemovedEvent: removed, slicer.vtkMRMLScene.StartCloseEvent: closing}
    return [scene.AddObserver(event, function) for event, function in events.items()]
