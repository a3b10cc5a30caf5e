"""Volume nodes as the engine's volumes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
import vtk
from mrml_scene import AFFINES, MIDDLE, SHAPE, Application, rigid
from vtk.util import numpy_support

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DSegmentLib.mrml.matrices import to_matrix
from VISTA3DSegmentLib.mrml.volumes import (
    content_key,
    ijk_to_world,
    to_volume,
    usable_volumes,
    volume_shape,
    why_unusable,
)

CT = slicer.vtkMRMLScalarVolumeNode


def test_the_voxels_are_a_view(any_ct: CT) -> None:
    volume = to_volume(any_ct)
    voxels = numpy_support.vtk_to_numpy(any_ct.GetImageData().GetPointData().GetScalars())
    assert volume.shape == SHAPE
    assert np.shares_memory(volume.array, voxels)
    assert volume.array[3, 5, 7] == any_ct.GetImageData().GetScalarComponentAsDouble(3, 5, 7, 0)
    assert volume.name == "CT"


def test_the_geometry_is_that_of_the_node(any_ct: CT) -> None:
    volume = to_volume(any_ct)
    assert np.allclose(volume.spacing, any_ct.GetSpacing())
    assert np.allclose(apply_affine(volume.affine, (np.array(SHAPE) - 1) / 2), MIDDLE)


def test_parent_transforms_are_hardened_on_the_fly(app: Application, ct: CT) -> None:
    transform = rigid((10, 20, 30), (4, 5, 6))
    ct.SetAndObserveTransformNodeID(app.add_transform(transform).GetID())
    assert np.allclose(to_volume(ct).affine, transform @ AFFINES["oblique"])
    world = [0.0] * 3
    ct.TransformPointToWorld(apply_affine(AFFINES["oblique"], (3, 4, 5)), world)
    assert np.allclose(apply_affine(ijk_to_world(ct), (3, 4, 5)), world)


def test_indices_are_counted_from_the_first_voxel(ct: CT) -> None:
    image = ct.GetImageData()
    image.SetExtent(10, 10 + SHAPE[0] - 1, 0, SHAPE[1] - 1, -3, -3 + SHAPE[2] - 1)
    assert np.allclose(apply_affine(ijk_to_world(ct), (0, 0, 0)), apply_affine(AFFINES["oblique"], (10, 0, -3)))
    assert volume_shape(ct) == SHAPE


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_all_types_of_voxels_can_be_used(app: Application, dtype: type) -> None:
    assert to_volume(app.add_volume((5, 6, 7), np.eye(4), dtype)).array.dtype == dtype


def test_dicom_tells_the_modality(app: Application, ct: CT) -> None:
    hierarchy = app.subject_hierarchy
    assert to_volume(ct, hierarchy).modality is None
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), ct)
    assert to_volume(ct, hierarchy).modality is None
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "CT")
    assert to_volume(ct, hierarchy).modality == "CT"
    assert to_volume(ct).modality is None


# Which volumes can be used


def _empty(app: Application) -> slicer.vtkMRMLNode:
    return app.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "bad")


def _without_scalars(app: Application) -> slicer.vtkMRMLNode:
    node, image = _empty(app), vtk.vtkImageData()
    image.SetDimensions(3, 3, 3)
    node.SetAndObserveImageData(image)
    return node


def _labelmap(app: Application) -> slicer.vtkMRMLNode:
    node = app.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "bad")
    node.SetAndObserveImageData(app.add_volume((3, 3, 3), np.eye(4)).GetImageData())
    return node


def _color(app: Application) -> slicer.vtkMRMLNode:
    node, image = app.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "bad"), vtk.vtkImageData()
    image.SetDimensions(3, 3, 3)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    return node


def _slice(app: Application) -> slicer.vtkMRMLNode:
    return app.add_volume((30, 30, 1), np.eye(4), name="bad")


def _in_meters(app: Application) -> slicer.vtkMRMLNode:
    return app.add_volume((3, 3, 3), np.diag([1e-4, 1e-4, 1e-4, 1]), name="bad")


def _sheared(app: Application) -> slicer.vtkMRMLNode:
    affine = np.eye(4)
    affine[0, 2] = 0.4
    return app.add_volume((3, 3, 3), affine, name="bad")


def _bent(app: Application) -> slicer.vtkMRMLNode:
    node = app.add_volume((3, 3, 3), np.eye(4), name="bad")
    node.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())
    return node


def _model(app: Application) -> slicer.vtkMRMLNode:
    return app.scene.AddNewNodeByClass("vtkMRMLModelNode", "bad")


BAD = {
    _empty: "has no voxels",
    _without_scalars: "has no voxels",
    _labelmap: "is a label map",
    _color: "several values in each voxel",
    _slice: "is a single slice",
    _in_meters: "voxel spacing is 0.0001 x 0.0001 x 0.0001 mm",
    _sheared: "not perpendicular",
    _bent: "non-linear transform",
    _model: "is not a volume",
}


@pytest.mark.parametrize(("make", "reason"), BAD.items(), ids=[one.__name__ for one in BAD])
def test_what_cannot_be_used_is_refused_in_one_sentence(
    app: Application, make: Callable[[Application], slicer.vtkMRMLNode], reason: str
) -> None:
    node = make(app)
    sentence = why_unusable(node)
    assert reason in sentence
    assert sentence.endswith(".")
    with pytest.raises(InputError, match=r"\.$"):
        to_volume(node)


def test_no_volume_is_no_volume() -> None:
    assert why_unusable(None) == "Choose a volume."


def test_sentences_about_nodes_without_a_name_say_so(app: Application) -> None:
    model = app.scene.AddNode(slicer.vtkMRMLModelNode())
    model.SetName(None)
    assert why_unusable(model) == "'(unnamed)' is not a volume; choose a CT volume."


def test_only_volumes_that_can_be_used_are_offered(app: Application) -> None:
    good = [app.add_volume((4, 5, 6), affine) for affine in AFFINES.values()]
    for make in BAD:
        make(app)
    hidden = app.add_volume((4, 5, 6), np.eye(4))
    hidden.SetHideFromEditors(True)
    offered = usable_volumes(app.scene)
    assert [node for node in offered if node.GetName() == "CT"][: len(good)] == good
    assert hidden not in offered
    assert not [node for node in offered if node.GetName() == "bad"]


def test_slightly_sheared_axes_are_straightened_without_a_word(app: Application, recwarn: object) -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.01
    node = app.add_volume((3, 3, 3), affine)
    assert why_unusable(node) is None
    assert np.allclose(np.linalg.inv(to_volume(node).affine[:3, :3]), to_volume(node).affine[:3, :3].T, atol=1e-2)
    assert not list(recwarn)


# What changes a volume


def test_looking_at_a_volume_does_not_change_its_content(app: Application, ct: CT) -> None:
    before = content_key(ct)
    ct.GetImageData().GetScalarRange()
    ct.CreateDefaultDisplayNodes()
    ct.GetDisplayNode().SetWindowLevel(400, 40)
    ct.SetName("other")
    ct.GetRASBounds([0.0] * 6)
    to_volume(ct)
    assert content_key(ct) == before
    assert hash(before) is not None


def _change_voxels(app: Application, ct: CT) -> None:
    ct.GetImageData().GetPointData().GetScalars().SetTuple1(0, 5)
    ct.GetImageData().GetPointData().GetScalars().Modified()


def _replace_voxels(app: Application, ct: CT) -> None:
    ct.SetAndObserveImageData(app.add_volume(SHAPE, np.eye(4)).GetImageData())


def _remove_voxels(app: Application, ct: CT) -> None:
    ct.SetAndObserveImageData(None)


def _move(app: Application, ct: CT) -> None:
    ct.SetOrigin(1, 2, 3)


def _turn(app: Application, ct: CT) -> None:
    ct.SetAndObserveTransformNodeID(app.add_transform(rigid((1, 0, 0), (0, 0, 0))).GetID())


def _bend(app: Application, ct: CT) -> None:
    ct.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())


@pytest.mark.parametrize("change", [_change_voxels, _replace_voxels, _remove_voxels, _move, _turn, _bend])
def test_a_changed_volume_has_another_content(
    app: Application, ct: CT, change: Callable[[Application, CT], None]
) -> None:
    before = content_key(ct)
    change(app, ct)
    assert content_key(ct) != before
    assert content_key(ct) == content_key(ct)


def test_a_changed_transform_changes_the_content(app: Application, ct: CT) -> None:
    outer = app.add_transform(np.eye(4))
    ct.SetAndObserveTransformNodeID(app.add_transform(np.eye(4), outer).GetID())
    before = content_key(ct)
    outer.SetMatrixTransformToParent(to_matrix(rigid((0, 0, 0), (0, 0, 1))))
    assert content_key(ct) != before
