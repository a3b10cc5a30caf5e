# SPDX-License-Identifier: Apache-2.0
"""Slice views: where they are, and how they come to look at a place."""

from __future__ import annotations

import slicer

from .clicks import Position


def center_slices(scene: slicer.vtkMRMLScene, world_ras: Position) -> None:
    """Let all slice views look at a place, world RAS mm, which comes to their middle; zoom stays."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *world_ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
