"""Results, edits of them, and what segments hold, for the tests of second runs and of undo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import slicer
from mrml_scene import Application

from VISTA3DCore.anatomy.catalogue import Structure, catalogue
from VISTA3DSegmentLib.mrml.boxes import box_of, slices
from VISTA3DSegmentLib.mrml.labelmaps import oriented_image
from VISTA3DSegmentLib.mrml.segments import read_mask, voxels_to_node

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
CATALOGUE = catalogue()
LIVER, SPLEEN, AORTA, TUMOR, VESSEL = (
    CATALOGUE[name] for name in ("liver", "spleen", "aorta", "hepatic tumor", "hepatic vessel")
)


def label_array(masks: Mapping[Structure, np.ndarray]) -> np.ndarray:
    """Return a label array from masks of structures."""
    shape = next(iter(masks.values())).shape
    labels = np.zeros(shape, np.uint16, order="F")
    for structure, mask in masks.items():
        labels[mask] = structure.index
    return labels


def paint(app: Application, node: Segmentation, volume: Volume, segment_id: str, mask: np.ndarray, add: bool) -> None:
    """Add a mask on the volume's grid to a segment, or remove it, as the Segment Editor does."""
    editor, box = app.editor(node, volume, segment_id), box_of(mask)
    editor.node.SetOverwriteMode(editor.node.OverwriteAllSegments)
    image = oriented_image(mask[slices(box)], voxels_to_node(volume, node), tuple(start for start, _ in box))
    editor.writer.modify(node, segment_id, image, "add" if add else "remove", image.GetExtent())


def everything_of(node: Segmentation, volume: Volume) -> dict[str, tuple]:
    """Return what a user can notice of all segments: their masks, names, colors, terminology and tags."""
    return {one: _noticed(node, one, volume) for one in node.GetSegmentation().GetSegmentIDs()}


def _noticed(node: Segmentation, segment_id: str, volume: Volume) -> tuple:
    segment = node.GetSegmentation().GetSegment(segment_id)
    names = ("VISTA3D.index", "VISTA3D.Clicks", "VISTA3D.Result", "VISTA3D.model", "VISTA3D.preset", "mine")
    values = tuple(value.get() if segment.GetTag(name, value) else None for name in names for value in [_reference()])
    look = segment.GetName(), segment.GetColor(), segment.GetTerminology()
    return read_mask(node, segment_id, volume).tobytes(), values, look


def _reference() -> object:
    import vtk

    return vtk.reference("")
