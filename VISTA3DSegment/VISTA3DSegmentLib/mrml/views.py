# SPDX-License-Identifier: Apache-2.0
"""Slice views: where they are, and how they come to look at a place."""

from __future__ import annotations

from collections.abc import Sequence

import slicer

from .clicks import Position


def center_slices(scene: slicer.vtkMRMLScene, world_ras: Position) -> None:
    """Let all slice views look at a place, world RAS mm, which comes to their middle; zoom stays."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *world_ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def center_of(slice_nodes: Sequence[slicer.vtkMRMLSliceNode]) -> Position | None:
    """Return the middle of what the first of some slice views shows, world RAS mm; None without any."""
    if not slice_nodes:
        return None
    slice_to_ras = slice_nodes[0].GetSliceToRAS()
    return tuple(slice_to_ras.GetElement(row, 3) for row in range(3))
