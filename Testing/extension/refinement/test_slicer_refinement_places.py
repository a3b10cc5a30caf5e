"""Where clicks and results lie: under all geometries and transforms, and in a scene that was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from refinement_helpers import PLACES, TUMOR, Clicking, as_clicks, plain_affine, rotation
from vtk.util.numpy_support import vtk_to_numpy

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.clicks import Click
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, store_clicks

pytestmark = pytest.mark.slow

BLOCK = ((8, 14), (10, 20), (6, 16))


# Geometry

PLACINGS = {
    "oblique": (rotation((20, -11, 7)) @ plain_affine(), None, None),
    "flipped": (np.diag([-1.0, -1.0, 1.0, 1.0]) @ plain_affine(), None, None),
    "permuted": (plain_affine()[:, [1, 2, 0, 3]], None, None),
    "both under one transform": (plain_affine(), rotation((5, 30, 0)), "same"),
    "volume moved alone": (plain_affine(), rotation((0, 0, 90)), None),
    "segmentation moved alone": (rotation((3, 4, 5)) @ plain_affine(), None, rotation((0, 0, -90))),
    "both moved apart": (plain_affine(), rotation((90, 0, 0)), rotation((0, 90, 0))),
}


@pytest.mark.parametrize("name", PLACINGS)
def test_the_result_is_where_the_engine_in_this_process_puts_it(
    name: str, clicking_at: Callable[..., Clicking]
) -> None:
    affine, of_volume, of_segmentation = PLACINGS[name]
    clicking = clicking_at(affine)
    place(clicking, of_volume, of_segmentation)
    clicks, session = [], clicking.session()
    for ijk in np.random.default_rng(1).integers(4, 28, (40, 3)):
        clicking.click(ijk)
        clicks.append(Click(clicking.world(ijk)))
        expected = session.click(TUMOR, clicks).mask
        np.testing.assert_array_equal(clicking.mask(), expected)
        if len(clicks) > 3 and expected.any():  # random weights do not answer everywhere
            break
    assert worst_distance(clicking, expected) <= 1.0
    assert clicking.sentences == []


def place(clicking: Clicking, of_volume: np.ndarray | None, of_segmentation: np.ndarray | str | None) -> None:
    """Put volume and segmentation under transforms."""
    if of_volume is not None:
        transform = clicking.add_transform(of_volume)
        clicking.volume_node.SetAndObserveTransformNodeID(transform.GetID())
        if isinstance(of_segmentation, str):
            clicking.segmentation_node.SetAndObserveTransformNodeID(transform.GetID())
    if isinstance(of_segmentation, np.ndarray):
        transform = clicking.add_transform(of_segmentation)
        clicking.segmentation_node.SetAndObserveTransformNodeID(transform.GetID())


def worst_distance(clicking: Clicking, expected: np.ndarray) -> float:
    """Return how far the segment's voxels are from where they should be, in voxels, by MRML's own mapping."""
    segment = clicking.segmentation_node.GetSegmentation().GetSegment(clicking.segment_id)
    labelmap = segment.GetRepresentation("Binary labelmap")
    voxels = vtk_to_numpy(labelmap.GetPointData().GetScalars())
    extent, size = labelmap.GetExtent(), labelmap.GetDimensions()
    indices = np.argwhere(segment.GetLabelValue() == voxels.reshape(size[::-1]).T) + np.array(extent[::2])
    matrix, general = vtk.vtkMatrix4x4(), vtk.vtkGeneralTransform()
    labelmap.GetImageToWorldMatrix(matrix)
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        clicking.segmentation_node.GetParentTransformNode(), clicking.volume_node.GetParentTransformNode(), general
    )
    to_voxels = vtk.vtkMatrix4x4()
    clicking.volume_node.GetRASToIJKMatrix(to_voxels)
    found = [
        to_voxels.MultiplyPoint((*general.TransformPoint(matrix.MultiplyPoint((*index, 1.0))[:3]), 1.0))[:3]
        for index in indices[:: max(1, len(indices) // 500)].astype(float)
    ]
    inside = np.argwhere(expected)
    return max(float(np.abs(inside - place).max(axis=1).min()) for place in found)


# Scenes


def test_clicks_survive_in_a_saved_scene_and_go_on(
    clicking: Clicking, clicking_at: Callable[..., Clicking], tmp_path: Path
) -> None:
    clicking.mirror.show()
    clicking.paint(BLOCK)
    base = clicking.mask()
    for ijk in PLACES[:2]:
        clicking.click(ijk)
    stored, mask = clicking.stored(), clicking.mask()
    again = clicking_at(bundle=clicking.save(tmp_path))
    assert again.stored() == stored
    np.testing.assert_array_equal(again.mask(), mask)
    assert not [name for name in again.node_classes() if "Markups" in name]  # the mirror is not saved
    again.mirror.show()
    assert len(again.shown()) == 2
    again.click(PLACES[2])
    assert again.sentences == []
    assert again.stored().settled == 0  # the mask from before the clicks came along
    expected = again.session().click(TUMOR, as_clicks(again.stored()), base)
    np.testing.assert_array_equal(again.mask(), expected.mask)
    again.refinement.delete_all()
    again.settle()
    np.testing.assert_array_equal(again.mask(), base)


def test_the_structure_of_stored_clicks_is_found_in_another_label_set(clicking: Clicking) -> None:
    click = StoredClick(clicking.world(PLACES[0]))
    liver = catalogue("vista3d-ctmr")["liver"].index
    store_clicks(clicking.segmentation_node, clicking.segment_id, ClickList((click,), liver, "vista3d-ctmr"))
    clicking.refinement.segment_modified()
    assert clicking.refinement.structure == catalogue()["liver"].index
