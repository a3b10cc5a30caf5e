# SPDX-License-Identifier: Apache-2.0
"""What the Segment Editor inside the panel edits: decisions about its node, without its widget."""

from __future__ import annotations

from collections.abc import Iterable

import slicer

from VISTA3DCore.errors import VistaError

from ..mrml.segments import create_segmentation, has_segment


def segmentation_to_edit(
    volume_node: slicer.vtkMRMLScalarVolumeNode | None,
    segmentation_node: slicer.vtkMRMLSegmentationNode | None,
    subject_hierarchy: slicer.vtkMRMLSubjectHierarchyNode | None = None,
) -> slicer.vtkMRMLSegmentationNode | None:
    """Return what is edited: the chosen segmentation, else a new one for the volume; None without a volume.

    Without a segmentation no segment can be added, so Slicer's own editor makes one, too.

    :param subject_hierarchy: where a new one gets its place.
    """
    if segmentation_node is not None or volume_node is None or volume_node.GetScene() is None:
        return segmentation_node
    try:
        return create_segmentation(volume_node.GetScene(), volume_node, subject_hierarchy=subject_hierarchy)
    except VistaError:  # a transform that cannot be used; the panel says so
        return None


def segment_to_select(editor_node: slicer.vtkMRMLSegmentEditorNode, preferred: Iterable[str] = ()) -> str | None:
    """Return the segment that an editor shall select: its own if it is there, else a preferred one, else the first.

    :param preferred: ids of segments, e.g. of those that a run has brought.
    """
    node = editor_node.GetSegmentationNode()
    if node is None:
        return None
    candidates = (editor_node.GetSelectedSegmentID(), *preferred, *node.GetSegmentation().GetSegmentIDs())
    return next((one for one in candidates if one and has_segment(node, one)), None)


def is_idle(editor_node: slicer.vtkMRMLSegmentEditorNode) -> bool:
    """Whether no effect is active, so that ours may be: the user's own choice of another one stands."""
    return not editor_node.GetActiveEffectName()
