# SPDX-License-Identifier: Apache-2.0
"""Writes masks through the Segment Editor's effect, so that masking, overwriting and undo hold as for every tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import slicer


class EffectWriter:
    """A :class:`VISTA3DSegmentLib.mrml.writing.SegmentWriter` over an effect of the Segment Editor.

    :param scripted_effect: a ``qSlicerSegmentEditorScriptedEffect``.
    """

    def __init__(self, scripted_effect: Any) -> None:
        self._effect = scripted_effect

    def save_state(self) -> None:
        """Make what follows one step that can be undone."""
        self._effect.saveStateForUndo()

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
        modes = {"add": self._effect.ModificationModeAdd, "remove": self._effect.ModificationModeRemove}
        if self._is_selected(segmentation_node, segment_id):
            self._effect.modifySelectedSegmentByLabelmap(labelmap, modes[mode], [int(one) for one in extent])
        else:
            # Slicer shows Python no variant of this with an extent; the labelmap is not larger than the extent.
            self._effect.modifySegmentByLabelmap(segmentation_node, segment_id, labelmap, modes[mode])

    def _is_selected(self, segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> bool:
        editor = self._effect.parameterSetNode()
        if editor is None:
            return False
        return editor.GetSegmentationNode() is segmentation_node and editor.GetSelectedSegmentID() == segment_id
