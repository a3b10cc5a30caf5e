# SPDX-License-Identifier: Apache-2.0
"""Which segments slice views show."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine

from ..i18n import tr as _
from .matrices import node_to_world, to_array
from .names import name_of

# Points are looked up this far apart in a view, and at most so many along a side of it.
_STEP_MM = 0.75
_MOST = 512


def seen_segments(
    segmentation_node: slicer.vtkMRMLSegmentationNode, slice_nodes: Iterable[slicer.vtkMRMLSliceNode]
) -> tuple[str, ...]:
    """Return the ids of the segments with voxels in the field of a slice view, in the segmentation's order.

    :raises InputError: if the segmentation has a transform that cannot be used.
    """
    points = [_points(node) for node in slice_nodes]
    if not points:
        return ()
    points = apply_affine(np.linalg.inv(node_to_world(segmentation_node)), np.concatenate(points))
    values: dict[vtk.vtkImageData, frozenset[int]] = {}
    return tuple(
        segment_id
        for segment_id in segmentation_node.GetSegmentation().GetSegmentIDs()
        if _is_hit(segmentation_node.GetSegmentation().GetSegment(segment_id), points, values)
    )


def _points(node: slicer.vtkMRMLSliceNode) -> np.ndarray:
    """Return points all over a view's field, [n, 3] in world RAS mm.

    :raises InputError: if the view has no field yet.
    """
    width, height, _depth = node.GetFieldOfView()
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise InputError(
            _("The slice view '{name}' shows nothing; reset its field of view.").format(name=name_of(node))
        )
    counts = [min(math.ceil(side / _STEP_MM), _MOST) for side in (width, height)]
    x, y = (np.linspace(-side / 2, side / 2, count) for side, count in zip((width, height), counts, strict=True))
    plane = np.stack([*np.meshgrid(x, y, indexing="ij"), np.zeros(counts)], axis=-1).reshape(-1, 3)
    return apply_affine(to_array(node.GetSliceToRAS()), plane)


def _is_hit(segment: slicer.vtkSegment, points: np.ndarray, values: dict[vtk.vtkImageData, frozenset[int]]) -> bool:
    """Whether a segment is at one of the points; layers that were looked up are kept in ``values``."""
    kind = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    image = segment.GetRepresentation(kind)
    if image is None or image.IsEmpty():
        return False
    if image not in values:
        values[image] = _values_at(image, points)
    return segment.GetLabelValue() in values[image]


def _values_at(image: slicer.vtkOrientedImageData, points: np.ndarray) -> frozenset[int]:
    matrix, extent = vtk.vtkMatrix4x4(), np.array(image.GetExtent()).reshape(3, 2)
    image.GetImageToWorldMatrix(matrix)
    voxels = np.rint(apply_affine(np.linalg.inv(to_array(matrix)), points)).astype(np.int64)
    inside = ((voxels >= extent[:, 0]) & (voxels <= extent[:, 1])).all(axis=1)
    shape = extent[:, 1] - extent[:, 0] + 1
    array = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape[::-1])
    i, j, k = (voxels[inside] - extent[:, 0]).T
    return frozenset(np.unique(array[k, j, i]).tolist())
