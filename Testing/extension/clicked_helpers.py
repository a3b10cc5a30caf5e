"""A segment whose answers the test itself gives, and neighbors of all kinds around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import slicer
from mrml_scene import AFFINES, Application, Editor

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.logic.bases import Bases
from VISTA3DSegmentLib.logic.clicked_segment import ClickedSegment
from VISTA3DSegmentLib.mrml.boxes import box_of, slices
from VISTA3DSegmentLib.mrml.clicks import StoredClick
from VISTA3DSegmentLib.mrml.labelmaps import oriented_image, reference_lattice
from VISTA3DSegmentLib.mrml.segments import create_segmentation, labelmap_name, read_mask
from VISTA3DSegmentLib.mrml.writing import EditorLogicWriter

SHAPE = (20, 18, 14)
OVERWRITE_MODES = ("OverwriteAllSegments", "OverwriteVisibleSegments", "OverwriteNone")


def block(*ranges: tuple[int, int]) -> np.ndarray:
    """Return the mask of a box."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[slices(ranges)] = True
    return mask


class Clicked:
    """A segment "own" in a Segment Editor.

    :param shared: masks of segments that exclude each other and share one labelmap with "own", by their ids.
    :param apart: masks of segments with labelmaps of their own.
    """

    def __init__(
        self,
        shared: dict[str, np.ndarray],
        apart: dict[str, np.ndarray] | None = None,
        own: np.ndarray | None = None,
        affine: np.ndarray = AFFINES["oblique"],
    ) -> None:
        self.app = Application()
        self.volume = self.app.add_volume(SHAPE, affine)
        self.node = create_segmentation(self.app.scene, self.volume)
        self.node.CreateDefaultDisplayNodes()
        self._add({"own": np.zeros(SHAPE, dtype=bool) if own is None else own} | shared)
        for name, mask in (apart or {}).items():
            self._add({name: mask})
        self.editor = Editor(self.app, self.node, self.volume, "own")
        self.segment = self.clicked("own")

    def clicked(self, segment_id: str) -> ClickedSegment:
        """Return a segment as clicks see it, with masks of its own in memory."""
        return ClickedSegment(self.node, segment_id, self.volume, catalogue(), Bases())

    def _add(self, masks: dict[str, np.ndarray]) -> None:
        labels = np.zeros(SHAPE, dtype=np.uint8)
        for label, mask in enumerate(masks.values(), 1):
            labels[mask] = label
        image = oriented_image(labels, reference_lattice(self.node))
        for label, name in enumerate(masks, 1):
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetLabelValue(label)
            segment.AddRepresentation(labelmap_name(), image)
            assert self.node.GetSegmentation().AddSegment(segment, name)
            self.node.GetDisplayNode().SetSegmentVisibility(name, name != "hidden")

    def overwrite(self, mode: str) -> None:
        """Choose what the editor overwrites."""
        self.editor.node.SetOverwriteMode(getattr(self.editor.node, mode))

    def masks(self) -> dict[str, np.ndarray]:
        """Return all masks."""
        return {one: read_mask(self.node, one, self.volume) for one in self.node.GetSegmentation().GetSegmentIDs()}

    def answer(self, wanted: np.ndarray, base: np.ndarray) -> None:
        """Add a click to which the engine says that the mask is another one.

        :param base: the mask from before the first click.
        """
        found = self.segment.rebased()
        click = StoredClick((float(len(found.clicks)), 0.0, 0.0))
        box = box_of(wanted != base)
        patch = None if box is None else wanted[slices(box)]
        self.segment.write(
            EditorLogicWriter(self.editor.logic), replace(found, clicks=(*found.clicks, click)), box, patch
        )

    def delete_all(self) -> None:
        """Delete all clicks."""
        writer, found = EditorLogicWriter(self.editor.logic), self.segment.rebased()
        self.segment.write(writer, replace(found, clicks=(), settled=0), None, None)

    def paint(self, segment_id: str, mask: np.ndarray, add: bool = True) -> None:
        """Change a segment as another tool would."""
        logic = self.editor.logic
        logic.SaveStateForUndo()
        mode = logic.ModificationModeAdd if add else logic.ModificationModeRemove
        image = oriented_image(mask, reference_lattice(self.node))
        logic.SetCurrentSegmentID(segment_id)
        logic.ModifySegmentByLabelmap(self.node, segment_id, image, mode, image.GetExtent(), True, False)
        logic.SetCurrentSegmentID("own")

    def close(self) -> None:
        """Empty the scene."""
        self.editor.logic.SetSegmentEditorNode(None)
        self.editor.logic.SetMRMLScene(None)
        self.app.scene.Clear(True)


def assert_same(masks: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Check that all segments are as expected."""
    assert masks.keys() == expected.keys()
    different = {one: int((masks[one] != expected[one]).sum()) for one in masks if (masks[one] != expected[one]).any()}
    assert different == {}
