# SPDX-License-Identifier: Apache-2.0
"""What the pointer is on: control points and handles that react to it."""

from __future__ import annotations

import slicer


def is_on_markup(scene: slicer.vtkMRMLScene) -> bool:
    """Return whether the pointer is on a control point or handle of a markup that can be dragged."""
    nodes = scene.GetNodesByClass("vtkMRMLMarkupsDisplayNode")
    nodes.UnRegister(None)
    return any(_is_active(nodes.GetItemAsObject(number)) for number in range(nodes.GetNumberOfItems()))


def is_placing(scene: slicer.vtkMRMLScene) -> bool:
    """Return whether the next click places a control point of a markup."""
    node = scene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    return node is not None and node.GetCurrentInteractionMode() == node.Place


def _is_active(display: slicer.vtkMRMLMarkupsDisplayNode) -> bool:
    if not display.GetVisibility() or not display.HasActiveComponent():
        return False
    markup = display.GetDisplayableNode()
    return markup is not None and not markup.GetLocked()
