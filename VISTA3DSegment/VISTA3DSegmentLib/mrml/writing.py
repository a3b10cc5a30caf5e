# SPDX-License-Identifier: Apache-2.0
"""Writing a changed box of a segment so that masking, overwriting and undo of the Segment Editor hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import slicer

from .boxes import Ranges, box_of, slices
from .labelmaps import moved, oriented_image, reference_lattice, resampled, shift_between
from .segments import require_labelmaps, voxels_to_node
from .tags import segment_of


class SegmentWriter(Protocol):
    """Whatever changes segments by the rules of the Segment Editor: its logic, or an effect."""

    def save_state(self) -> None:
        """Make what follows one step that can be undone."""

    def modify(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        segment_id: str,
        labelmap: slicer.vtkOrientedImageData,
        mode: Literal["add", "remove"],
        extent: Sequence[int],
    ) -> None:
        """Add a labelmap's voxels to a segment, or remove them from it.

        :param extent: of the part that changes, in voxels of the labelmap: first and last along i, j, k.
        """


class EditorLogicWriter:
    """A :class:`SegmentWriter` over the Segment Editor's logic, without any widget.

    :param editor_logic: its segment editor node holds the segmentation, masking and overwrite modes.
    """

    def __init__(self, editor_logic: slicer.vtkSlicerSegmentEditorLogic) -> None:
        self._logic = editor_logic

    def save_state(self) -> None:
        """Make what follows one step that can be undone."""
        self._logic.SaveStateForUndo()

    def modify(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        segment_id: str,
        labelmap: slicer.vtkOrientedImageData,
        mode: Literal["add", "remove"],
        extent: Sequence[int],
    ) -> None:
        """Add a labelmap's voxels to a segment, or remove them from it."""
        modes = {"add": self._logic.ModificationModeAdd, "remove": self._logic.ModificationModeRemove}
        extent = [int(value) for value in extent]
        if self._logic.GetCurrentSegmentID() != segment_id:
            self._logic.SetCurrentSegmentID(segment_id)  # masking leaves the selected segment out
        self._logic.ModifySegmentByLabelmap(segmentation_node, segment_id, labelmap, modes[mode], extent, True, False)


def write_box(
    writer: SegmentWriter,
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    segment_id: str,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    before: np.ndarray,
    after: np.ndarray,
    box: Ranges,
) -> None:
    """Add to a segment what is new in a box of a volume's grid, and remove what is gone; nothing else is touched.

    Masking and overwrite modes may keep a part from being written. No undo state is saved here.

    :param before, after: bool [i, j, k] of the box: what the segment holds, and what it shall hold.
    :raises InputError: if there is no such segment, it is not stored as a labelmap, or a transform cannot be used.
    """
    segment_of(segmentation_node, segment_id)
    require_labelmaps(segmentation_node)
    changes = {"add": np.greater(after, before), "remove": np.greater(before, after)}
    for mode, change in changes.items():
        inner = box_of(change, tuple(start for start, _ in box))
        if inner is None:
            continue
        labelmap = _on_lattice(segmentation_node, volume_node, change[slices(inner, box)], inner)
        if not labelmap.IsEmpty():
            writer.modify(segmentation_node, segment_id, labelmap, mode, labelmap.GetExtent())


def _on_lattice(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    change: np.ndarray,
    box: Ranges,
) -> slicer.vtkOrientedImageData:
    """Return a box of a volume's grid as a labelmap on the lattice of a segmentation, where masks are made."""
    lattice = voxels_to_node(volume_node, segmentation_node)
    target = reference_lattice(segmentation_node)
    if target is None:
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        target = reference_lattice(segmentation_node)
    shift = shift_between(lattice, target, box)
    if shift is None:
        return resampled(oriented_image(change, lattice, tuple(start for start, _ in box)), target)
    return oriented_image(change, target, tuple(start for start, _ in moved(box, shift)))
