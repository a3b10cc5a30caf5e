# SPDX-License-Identifier: Apache-2.0
"""A yellow point that shows where the next click would help most."""

from __future__ import annotations

import slicer
import vtk

from ..i18n import tr as _
from .clicks import Position
from .markups import add_own_points

COLOR = (1.0, 0.83, 0.2)
_GLYPH_SCALE = 2.5


class DoubtfulMark:
    """One locked control point; its node exists only while it is shown and is never saved with the scene."""

    def __init__(self) -> None:
        self._node: slicer.vtkMRMLMarkupsFiducialNode | None = None

    @property
    def node(self) -> slicer.vtkMRMLMarkupsFiducialNode | None:
        """The point list, or None while nothing is shown."""
        return self._node

    def show(self, scene: slicer.vtkMRMLScene, world_ras: Position) -> None:
        """Show it at a place, world RAS mm, and nowhere else."""
        self.hide()
        self._node = node = add_own_points(scene, _("Doubtful place"), COLOR, _GLYPH_SCALE)
        node.SetLocked(True)
        node.GetDisplayNode().SetPointLabelsVisibility(True)
        node.AddControlPoint(vtk.vtkVector3d(*world_ras), "?")

    def hide(self) -> None:
        """Remove it; harmless if it is not shown."""
        node, self._node = self._node, None
        if node is None or node.GetScene() is None:
            return
        scene, display = node.GetScene(), node.GetDisplayNode()
        for one in (node, display):
            if one is not None:
                scene.RemoveNode(one)
