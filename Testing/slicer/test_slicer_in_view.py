"""What is in view: the structures of a segmentation that the slice views show."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DSegmentLib.logic.in_view import structures_in_view
from VISTA3DSegmentLib.mrml.matrices import to_matrix
from VISTA3DSegmentLib.mrml.results import write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation
from VISTA3DSegmentLib.mrml.volumes import ijk_to_world

CATALOGUE = catalogue()
LIVER, SPLEEN, VESSEL = (CATALOGUE[name].index for name in ("liver", "spleen", "hepatic vessel"))
# Voxels of the liver and the vessel inside it, and of the spleen, far apart.
NEAR, FAR = (6, 20, 13), (36, 20, 13)


@pytest.fixture
def segmentation(app, ct) -> slicer.vtkMRMLSegmentationNode:
    """A liver, a spleen, and a vessel that overlaps the liver."""
    shape = ct.GetImageData().GetDimensions()
    labels, vessel = np.zeros(shape, np.uint16), np.zeros(shape, bool)
    for (i, j, k), index in ((NEAR, LIVER), (FAR, SPLEEN)):
        labels[i - 2 : i + 3, j - 2 : j + 3, k - 1 : k + 2] = index
    vessel[NEAR] = True
    node = create_segmentation(app.scene, ct)
    write_result(node, ct, labels, {VESSEL: vessel}, [CATALOGUE[one] for one in (LIVER, SPLEEN, VESSEL)], {})
    return node


def _view(volume, voxel, side) -> slicer.vtkMRMLSliceNode:
    """A slice view in the volume's own plane, of a square field in mm around a voxel."""
    node = slicer.vtkMRMLSliceNode()
    axes = ijk_to_world(volume)
    to_ras = np.eye(4)
    to_ras[:3, :3] = axes[:3, :3] / np.linalg.norm(axes[:3, :3], axis=0)
    to_ras[:3, 3] = apply_affine(axes, np.array(voxel, float))
    node.GetSliceToRAS().DeepCopy(to_matrix(to_ras))
    node.UpdateMatrices()
    node.SetFieldOfView(side, side, 1)
    return node


def test_all_are_seen_in_a_wide_field(ct, segmentation):
    assert structures_in_view(segmentation, ct, [_view(ct, NEAR, 400)], CATALOGUE) == (LIVER, SPLEEN, VESSEL)


def test_a_narrow_field_shows_what_is_there(ct, segmentation):
    assert structures_in_view(segmentation, ct, [_view(ct, NEAR, 4)], CATALOGUE) == (LIVER, VESSEL)
    assert structures_in_view(segmentation, ct, [_view(ct, FAR, 4)], CATALOGUE) == (SPLEEN,)


def test_other_segments_and_empty_ones_are_left_out(ct, segmentation):
    segmentation.GetSegmentation().AddEmptySegment("other", "Something else")

    assert structures_in_view(segmentation, ct, [_view(ct, FAR, 4)], CATALOGUE) == (SPLEEN,)


def test_views_beside_the_volume_are_told(ct, segmentation):
    with pytest.raises(InputError, match="does not show the volume"):
        structures_in_view(segmentation, ct, [_view(ct, (4000, 0, 0), 4)], CATALOGUE)


def test_a_transform_moves_both(app, ct, segmentation):
    transform = app.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = 70, -30, 12
    transform.SetMatrixTransformToParent(to_matrix(matrix))
    for node in (ct, segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())

    assert structures_in_view(segmentation, ct, [_view(ct, NEAR, 4)], CATALOGUE) == (LIVER, VESSEL)
