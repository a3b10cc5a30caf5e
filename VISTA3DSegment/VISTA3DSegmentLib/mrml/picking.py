# SPDX-License-Identifier: Apache-2.0
"""From a pixel of a 3D view to the place on a segment's surface that is seen there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import slicer
import vtk

from VISTA3DCore.imaging.geometry import apply_affine

from .clicks import Position
from .matrices import node_to_world

# A surface that is more transparent than this is looked through.
_OPAQUE = 0.5


def ray_through(renderer: vtk.vtkRenderer, pixel: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the two ends, world RAS mm, of what is seen at a pixel, from the near to the far clipping plane.

    :param pixel: x, y in the window, from the lower left corner.
    """
    ends = []
    for depth in (0.0, 1.0):
        renderer.SetDisplayPoint(*pixel, depth)
        renderer.DisplayToWorld()
        *place, scale = renderer.GetWorldPoint()
        ends.append(np.array(place) / scale)
    return ends[0], ends[1]


def surface_point(
    segmentation_node: slicer.vtkMRMLSegmentationNode, start: np.ndarray, end: np.ndarray, view_id: str | None = None
) -> Position | None:
    """Return where a ray meets the segments' closed surfaces that are shown first, world RAS mm; None if it misses.

    Surfaces that are mostly transparent count only if there is nothing behind them.

    :param start, end: of the ray, world RAS mm.
    :param view_id: of the 3D view, to leave out what is not shown in it.
    :raises InputError: if the segmentation is under a transform that is not linear.
    """
    to_world = node_to_world(segmentation_node)
    from_world = np.linalg.inv(to_world)
    ray = apply_affine(from_world, np.array([start, end]))
    hits = [
        (opacity < _OPAQUE, np.linalg.norm(place - ray[0]), tuple(apply_affine(to_world, place).tolist()))
        for opacity, surface in _surfaces(segmentation_node, view_id)
        if (place := _first_hit(surface, *ray)) is not None
    ]
    return min(hits)[2] if hits else None


def _surfaces(node: slicer.vtkMRMLSegmentationNode, view_id: str | None) -> Iterator[tuple[float, vtk.vtkPolyData]]:
    """Yield opacity and mesh of each segment that is shown in 3D."""
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    display = node.GetDisplayNode()
    shown = display is not None and display.GetVisibility() and display.GetVisibility3D()
    if not shown or (view_id and not display.IsDisplayableInView(view_id)):
        return
    segmentation = node.GetSegmentation()
    for identity in segmentation.GetSegmentIDs():
        opacity = display.GetOpacity3D() * display.GetSegmentOpacity3D(identity)
        visible = display.GetSegmentVisibility(identity) and display.GetSegmentVisibility3D(identity) and opacity > 0
        surface = segmentation.GetSegment(identity).GetRepresentation(name) if visible else None
        if surface is not None and surface.GetNumberOfCells():
            yield opacity, surface


def _first_hit(surface: vtk.vtkPolyData, start: np.ndarray, end: np.ndarray) -> np.ndarray | None:
    # Most surfaces are not met at all: their box tells it without a search tree.
    if not vtk.vtkBox.IntersectBox(surface.GetBounds(), start, end - start, [0.0] * 3, vtk.reference(0.0)):
        return None
    locator = vtk.vtkStaticCellLocator()
    locator.SetDataSet(surface)
    locator.BuildLocator()
    place, parameter = [0.0] * 3, vtk.reference(0.0)
    hit = locator.IntersectWithLine(start, end, 1e-6, parameter, place, [0.0] * 3, vtk.reference(0), vtk.reference(0))
    return np.array(place) if hit else None
