"""A volume finds the segmentation that belongs to it, and no other patient's is written without a word."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
from logic_helpers import assert_sentence
from mrml_scene import AFFINES, SHAPE, Application, ball, rigid

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.mrml.belonging import belongs, mismatch, segmentation_for, volume_of
from VISTA3DSegmentLib.mrml.results import write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
LIVER = catalogue()["liver"]


def segmented(app: Application, volume: Volume, name: str | None = None) -> Segmentation:
    """Return a segmentation of a volume, with a liver."""
    node = create_segmentation(app.scene, volume, name, app.subject_hierarchy)
    labels = np.where(ball(volume), LIVER.index, 0).astype(np.uint16)
    write_result(node, volume, np.asfortranarray(labels), {}, [LIVER], {})
    return node


def forget_reference(node: Segmentation) -> Segmentation:
    """Leave a segmentation as it comes from a file: with a geometry, without a reference to a volume."""
    node.RemoveNodeReferenceIDs(node.GetReferenceImageGeometryReferenceRole())
    return node


def patient(app: Application, name: str, identity: str = "") -> int:
    """Add a patient to the subject hierarchy, as DICOM does."""
    hierarchy, constants = app.subject_hierarchy, slicer.vtkMRMLSubjectHierarchyConstants
    item = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), name)
    if identity:
        hierarchy.SetItemAttribute(item, constants.GetDICOMPatientIDAttributeName(), identity)
    return item


def put(app: Application, node: slicer.vtkMRMLNode, parent: int) -> None:
    """Put a node below an item of the subject hierarchy."""
    hierarchy = app.subject_hierarchy
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)


@pytest.fixture
def other(app: Application, ct: Volume) -> Volume:
    """Return a CT with the very same voxels in space, of somebody else."""
    return app.add_volume(SHAPE, AFFINES["oblique"], name="patient2")


def test_each_volume_finds_its_own_segmentation(app: Application, ct: Volume, other: Volume) -> None:
    assert segmentation_for(ct) is None
    mine = segmented(app, ct)
    assert (segmentation_for(ct), segmentation_for(other)) == (mine, None)
    theirs = segmented(app, other)
    assert (segmentation_for(ct), segmentation_for(other)) == (mine, theirs)
    assert segmentation_for(ct, theirs) is mine
    assert segmentation_for(None) is None


def test_the_present_segmentation_stays_else_the_last_one_is_chosen(app: Application, ct: Volume) -> None:
    first, last = segmented(app, ct), segmented(app, ct)
    assert segmentation_for(ct) is last
    assert segmentation_for(ct, first) is first


def test_what_only_the_views_show_is_not_chosen(app: Application, ct: Volume) -> None:
    segmented(app, ct, "CT (in progress)").SetHideFromEditors(True)
    assert segmentation_for(ct) is None


def test_a_loaded_segmentation_is_known_by_its_voxels(app: Application, ct: Volume) -> None:
    node = forget_reference(segmented(app, ct))
    app.add_volume(SHAPE, AFFINES["straight"], name="elsewhere")
    assert (volume_of(node), segmentation_for(ct)) == (ct, node)


def test_voxels_that_two_volumes_have_tell_nothing(app: Application, ct: Volume, other: Volume) -> None:
    node = forget_reference(segmented(app, ct))
    assert volume_of(node) is None
    assert not belongs(node, ct)
    assert not belongs(node, other)
    assert mismatch(node, other) is None


def test_a_segmentation_of_the_same_study_belongs_to_the_volume(app: Application, ct: Volume, other: Volume) -> None:
    node, hierarchy = forget_reference(segmented(app, ct)), app.subject_hierarchy
    study = hierarchy.CreateStudyItem(patient(app, "Doe"), "CT of the abdomen")
    for one in (other, node):
        put(app, one, study)
    assert segmentation_for(other) is node
    assert segmentation_for(ct) is None


def test_a_segmentation_below_the_volume_belongs_to_it(app: Application, ct: Volume, other: Volume) -> None:
    node, hierarchy = forget_reference(segmented(app, ct)), app.subject_hierarchy
    put(app, other, hierarchy.GetSceneItemID())
    put(app, node, hierarchy.GetItemByDataNode(other))
    assert segmentation_for(other) is node


def test_a_segmentation_of_another_phase_is_not_chosen_but_may_be_written(
    app: Application, ct: Volume, other: Volume
) -> None:
    node, study = segmented(app, ct), app.subject_hierarchy.CreateStudyItem(patient(app, "Doe"), "CT")
    for one in (ct, other, node):
        put(app, one, study)
    assert segmentation_for(other) is None
    assert mismatch(node, other) is None


# What is refused


def _of_another_volume(app: Application, ct: Volume, other: Volume) -> Segmentation:
    return segmented(app, ct)


def _of_another_patient(app: Application, ct: Volume, other: Volume) -> Segmentation:
    node = forget_reference(segmented(app, ct))
    put(app, node, patient(app, "Doe", "1"))
    put(app, other, patient(app, "Roe", "2"))
    return node


def _empty_of_another_patient(app: Application, ct: Volume, other: Volume) -> Segmentation:
    node = create_segmentation(app.scene, ct)
    put(app, ct, patient(app, "Doe"))
    put(app, other, patient(app, "Roe"))
    return node


def _elsewhere(app: Application, ct: Volume, other: Volume) -> Segmentation:
    node = forget_reference(segmented(app, ct))
    transform = app.add_transform(rigid((10, 0, 0), (900, 0, 0)))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return node


REFUSED = (_of_another_volume, _of_another_patient, _empty_of_another_patient, _elsewhere)


@pytest.mark.parametrize("make", REFUSED, ids=[one.__name__ for one in REFUSED])
def test_a_sentence_names_both(app: Application, ct: Volume, other: Volume, make: Callable) -> None:
    node = make(app, ct, other)
    sentence = mismatch(node, other)
    assert_sentence(sentence)
    assert f"'{node.GetName()}'" in sentence
    assert "'patient2'" in sentence
    assert not belongs(node, other)


def test_one_patient_may_have_two_items(app: Application, ct: Volume, other: Volume) -> None:
    node = segmented(app, ct)
    put(app, node, patient(app, "Doe", "1"))
    put(app, other, patient(app, "DOE^J", "1"))
    assert mismatch(node, other) is None


def test_what_holds_nothing_yet_takes_any_volume(app: Application, ct: Volume, other: Volume) -> None:
    assert mismatch(create_segmentation(app.scene, ct), other) is None
    assert mismatch(app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), ct) is None


def test_a_segmentation_of_a_deleted_volume_is_judged_by_its_place(app: Application, ct: Volume) -> None:
    node, far = segmented(app, ct), AFFINES["straight"].copy()
    near = app.add_volume(SHAPE, AFFINES["straight"], name="near")
    far[:3, 3] += 5000
    away = app.add_volume(SHAPE, far, name="far")
    app.scene.RemoveNode(ct)
    assert mismatch(node, near) is None
    assert "no place in common" in mismatch(node, away)


def test_a_bent_segmentation_is_told(app: Application, ct: Volume) -> None:
    node = segmented(app, ct)
    node.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())
    assert "non-linear" in mismatch(node, ct)
