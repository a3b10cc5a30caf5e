# SPDX-License-Identifier: Apache-2.0
"""Tags of segments: small texts that Slicer's undo, ``.seg.nrrd`` and ``.mrb`` keep."""

from __future__ import annotations

import slicer
import vtk

from VISTA3DCore.errors import InputError

from ..i18n import tr as _

TAG_PREFIX = "VISTA3D."
#: Holds the index of the structure in the catalogue.
INDEX_TAG = TAG_PREFIX + "index"
# Ends a tag in a .seg.nrrd file.
_SEPARATOR = "|"


def has_segment(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> bool:
    """Return whether a segmentation has a segment."""
    segmentation = segmentation_node.GetSegmentation()
    return segmentation is not None and bool(segment_id) and segmentation.GetSegment(segment_id) is not None


def segment_of(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> slicer.vtkSegment:
    """Return a segment. It may be another object after an undo: do not keep it.

    :raises InputError: if there is none.
    """
    if not has_segment(segmentation_node, segment_id):
        raise InputError(_("The segment was deleted; choose another one."))
    return segmentation_node.GetSegmentation().GetSegment(segment_id)


def get_tag(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, name: str) -> str | None:
    """Return the value of a tag; None if the segment has no such tag.

    :raises InputError: if there is no such segment.
    """
    value = vtk.reference("")
    return str(value.get()) if segment_of(segmentation_node, segment_id).GetTag(name, value) else None


def set_tag(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, name: str, value: str) -> None:
    """Set a tag; nothing happens if it has the value already.

    :raises InputError: if there is no such segment, or the value has a ``|``, which would end it in a file.
    """
    if _SEPARATOR in name + value:
        raise InputError(_("A segment's tag cannot contain '|'."))
    segment_of(segmentation_node, segment_id).SetTag(name, value)


def tag_value(text: object) -> str:
    """Return a text as a tag can hold it."""
    return str(text).replace(_SEPARATOR, "/")
