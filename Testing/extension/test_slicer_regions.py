"""Regions from boxes and views, for volumes and regions that are turned and moved."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st
from logic_helpers import add_transform, add_volume, assert_sentence, new_scene, rotated

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DSegmentLib.logic.regions import overlap, place_box, roi_box, view_box, volume_box
from VISTA3DSegmentLib.mrml.matrices import to_matrix

SHAPE = (20, 30, 40)
SPACING = (2.0, 3.0, 1.5)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)


def add_ct(scene: slicer.vtkMRMLScene, matrix: np.ndarray) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a CT whose grid is turned by a matrix."""
    affine = matrix @ np.diag([*SPACING, 1.0])
    return add_volume(scene, Volume(np.zeros(SHAPE, dtype=np.int16), affine))


def add_roi(
    scene: slicer.vtkMRMLScene, center: tuple[float, ...], size: tuple[float, ...]
) -> slicer.vtkMRMLMarkupsROINode:
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    node.SetCenter(*center)
    node.SetSize(*size)
    return node


def add_view(scene: slicer.vtkMRMLScene, matrix: np.ndarray, field: tuple[float, float]) -> slicer.vtkMRMLSliceNode:
    """Add a slice view of a plane."""
    node = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    node.GetSliceToRAS().DeepCopy(to_matrix(matrix))
    node.UpdateMatrices()
    node.SetFieldOfView(*field, 1.0)
    return node


def at(orientation: np.ndarray, center: tuple[float, float, float]) -> np.ndarray:
    matrix = orientation.copy()
    matrix[:3, 3] = center
    return matrix


AXIAL = np.eye(4)
SAGITTAL = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])


def test_the_box_of_a_volume_ends_at_the_faces_of_its_voxels() -> None:
    node = add_ct(new_scene(), np.eye(4))
    assert volume_box(node) == (-1.0, -1.5, -0.75, 39.0, 88.5, 59.25)


@given(ANGLES, ANGLES)
def test_every_voxel_lies_in_the_box_of_its_volume(angles: tuple, transform: tuple) -> None:
    scene = new_scene()
    node = add_ct(scene, rotated(angles, (10, 20, 30)))
    add_transform(node, rotated(transform, (-50, 5, 7)))
    ijk = np.random.default_rng(0).uniform(0, np.array(SHAPE) - 1, (20, 3))
    grid = rotated(transform, (-50, 5, 7)) @ rotated(angles, (10, 20, 30)) @ np.diag([*SPACING, 1.0])
    points = (grid @ np.c_[ijk, np.ones(20)].T)[:3].T
    box = np.array(volume_box(node))
    assert (points >= box[:3]).all()
    assert (points <= box[3:]).all()


def test_a_region_of_interest_is_cut_to_the_volume() -> None:
    scene = new_scene()
    node = add_ct(scene, np.eye(4))
    assert roi_box(add_roi(scene, (0, 40, 30), (20, 20, 20)), node) == (-1.0, 30.0, 20.0, 10.0, 50.0, 40.0)


@given(ANGLES)
def test_a_turned_region_of_interest_gives_the_box_around_it(angles: tuple) -> None:
    scene = new_scene()
    node, roi = add_ct(scene, np.eye(4)), add_roi(scene, (0, 0, 0), (10, 4, 6))
    turn = rotated(angles, (20, 45, 30))
    add_transform(roi, turn)
    corners = np.array([[x, y, z, 1] for x in (-5, 5) for y in (-2, 2) for z in (-3, 3)]) @ turn.T
    np.testing.assert_allclose(roi_box(roi, node), [*corners.min(0)[:3], *corners.max(0)[:3]], atol=1e-6)


def test_a_region_of_interest_that_is_turned_itself() -> None:
    scene = new_scene()
    node, roi = add_ct(scene, np.eye(4)), add_roi(scene, (20, 45, 30), (10, 4, 6))
    roi.SetAndObserveObjectToNodeMatrix(to_matrix(rotated((0, 0, 90), (20, 45, 30))))
    np.testing.assert_allclose(roi_box(roi, node), [18, 40, 27, 22, 50, 33], atol=1e-6)


def test_a_new_region_of_interest_is_in_the_middle_and_has_a_name() -> None:
    scene = new_scene()
    node = add_ct(scene, rotated((10, -20, 30), (5, 6, 7)))
    node.SetName("Patient 7")
    rois = [scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R") for _ in range(2)]
    for roi in rois:
        place_box(roi, node)
    low, high = np.reshape(volume_box(node), (2, 3))
    np.testing.assert_allclose(rois[0].GetCenter(), (low + high) / 2)
    np.testing.assert_allclose(rois[0].GetSize(), (high - low) / 2)
    assert rois[0].GetName() == "Patient 7 region"
    assert len({roi.GetName() for roi in rois}) == 2
    assert rois[0].GetDisplayNode() is not None


def test_a_region_of_interest_beside_the_volume_or_not_drawn_is_told() -> None:
    scene = new_scene()
    node = add_ct(scene, np.eye(4))
    drafts = [add_roi(scene, (500, 0, 0), (10, 10, 10)), scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")]
    for roi in drafts:
        with pytest.raises(InputError) as caught:
            roi_box(roi, node)
        assert_sentence(str(caught.value))
        assert "'Box'" in str(caught.value)


def test_a_view_limits_the_volume_within_its_plane() -> None:
    scene = new_scene()
    node = add_ct(scene, np.eye(4))
    axial = add_view(scene, at(AXIAL, (10, 20, 5)), (8, 20))
    assert view_box([axial], node) == (6.0, 10.0, -0.75, 14.0, 30.0, 59.25)


def test_several_views_limit_it_together() -> None:
    scene = new_scene()
    node = add_ct(scene, np.eye(4))
    axial = add_view(scene, at(AXIAL, (10, 20, 5)), (8, 20))
    sagittal = add_view(scene, at(SAGITTAL, (10, 20, 30)), (400, 10))
    np.testing.assert_allclose(view_box([axial, sagittal], node), [6, 10, 25, 14, 30, 35])


def test_a_view_of_an_oblique_plane_holds_what_it_shows() -> None:
    scene = new_scene()
    node = add_ct(scene, np.eye(4))
    plane = at(rotated((20, 30, 40)), (20, 45, 30))
    box = np.array(view_box([add_view(scene, plane, (10, 10))], node))
    shown = (plane @ [3, -4, 0, 1])[:3]
    assert ((shown >= box[:3]) & (shown <= box[3:])).all()
    assert (box[3:] - box[:3] < [41, 91, 61]).any()


def test_a_view_beside_the_volume_is_told() -> None:
    scene = new_scene()
    node = add_ct(scene, np.eye(4))
    with pytest.raises(InputError) as caught:
        view_box([add_view(scene, at(AXIAL, (500, 20, 5)), (8, 20))], node)
    assert_sentence(str(caught.value))


def test_boxes_overlap_or_not() -> None:
    assert overlap((0, 0, 0, 2, 2, 2), (1, 1, 1, 3, 3, 3))
    assert not overlap((0, 0, 0, 2, 2, 2), (0, 0, 2, 2, 2, 3))
