# SPDX-License-Identifier: Apache-2.0
"""Which structures of a segmentation the slice views show."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import Catalogue
from VISTA3DCore.imaging.geometry import apply_affine

from ..mrml.boxes import Ranges, intersection, slices
from ..mrml.labelmaps import array_of, box_of_image, lattice_of
from ..mrml.matrices import node_to_world
from ..mrml.segments import structure_of
from .regions import Corners, view_box


def structures_in_view(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    slice_nodes: Iterable[slicer.vtkMRMLSliceNode],
    catalogue: Catalogue,
) -> tuple[int, ...]:
    """Return the indices of the structures with voxels in the field that all slice views have in common.

    :raises InputError: if the views show nothing of the volume, or a transform is not linear.
    """
    field = view_box(slice_nodes, volume_node)
    to_world = node_to_world(segmentation_node)
    segmentation = segmentation_node.GetSegmentation()
    seen: dict[slicer.vtkOrientedImageData, set[int]] = {}
    found = []
    for segment_id in segmentation.GetSegmentIDs():
        image = segmentation_node.GetBinaryLabelmapInternalRepresentation(segment_id)
        if image is None:
            continue
        # Segments that do not overlap share an image, which is looked at once.
        if image not in seen:
            seen[image] = _labels_in(image, to_world, field)
        structure = structure_of(segmentation_node, segment_id, catalogue)
        if structure is not None and segmentation.GetSegment(segment_id).GetLabelValue() in seen[image]:
            found.append(structure.index)
    return tuple(found)


def _labels_in(image: slicer.vtkOrientedImageData, to_world: np.ndarray, field: Corners) -> set[int]:
    """Return the values of a label map in a box in world RAS mm."""
    corners = np.array(list(itertools.product(*zip(field[:3], field[3:], strict=True))))
    indices = apply_affine(np.linalg.inv(to_world @ lattice_of(image)), corners)
    low, high = np.floor(indices.min(axis=0)).astype(int), np.ceil(indices.max(axis=0)).astype(int) + 1
    wanted: Ranges = tuple((int(first), int(stop)) for first, stop in zip(low, high, strict=True))
    covered = box_of_image(image)
    common = intersection(covered, wanted)
    if common is None:
        return set()
    counts = np.bincount(array_of(image)[0][slices(common, covered)].ravel(order="K"))
    return set(np.flatnonzero(counts).tolist())
