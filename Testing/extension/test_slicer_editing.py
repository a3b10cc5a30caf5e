"""The Segment Editor inside the panel always has something to edit and something to click with."""

from __future__ import annotations

import pytest
import slicer
from mrml_scene import Application

from VISTA3DSegmentLib.logic.editing import is_idle, segment_to_select, segmentation_to_edit
from VISTA3DSegmentLib.mrml.belonging import segmentation_for, volume_of
from VISTA3DSegmentLib.mrml.segments import create_segmentation


@pytest.fixture
def editor_node(app: Application) -> slicer.vtkMRMLSegmentEditorNode:
    return app.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")


def segmentations(app: Application) -> int:
    return app.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")


def test_a_volume_without_segmentation_gets_one_that_a_segment_can_be_added_to(app, ct):
    made = segmentation_to_edit(ct, None, app.subject_hierarchy)
    assert volume_of(made) is ct
    editor = slicer.vtkSlicerSegmentEditorLogic()
    editor.SetMRMLScene(app.scene)
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetSegmentEditorNode(node)
    node.SetAndObserveSegmentationNode(made)
    assert made.GetSegmentation().AddEmptySegment("", "A")
    assert segment_to_select(node)
    editor.SetSegmentEditorNode(None)


def test_it_is_made_once(app, ct):
    made = segmentation_to_edit(ct, None)
    assert segmentation_to_edit(ct, segmentation_for(ct)) is made
    assert segmentation_to_edit(ct, made) is made
    assert segmentations(app) == 1


def test_without_a_usable_volume_nothing_is_made(app, ct):
    assert segmentation_to_edit(None, None) is None
    ct.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())
    assert segmentation_to_edit(ct, None) is None
    app.scene.RemoveNode(ct)
    assert segmentation_to_edit(ct, None) is None
    assert segmentations(app) == 0


def test_a_segment_of_a_run_is_selected_unless_one_is_already(app, ct, editor_node):
    assert segment_to_select(editor_node, ["b"]) is None
    node = create_segmentation(app.scene, ct)
    editor_node.SetAndObserveSegmentationNode(node)
    assert segment_to_select(editor_node, ["b"]) is None
    for identity in ("a", "b"):
        node.GetSegmentation().AddEmptySegment(identity, identity)
    assert segment_to_select(editor_node) == "a"
    assert segment_to_select(editor_node, ["gone", "b"]) == "b"
    editor_node.SetSelectedSegmentID("a")
    assert segment_to_select(editor_node, ["b"]) == "a"
    node.GetSegmentation().RemoveSegment("a")
    assert segment_to_select(editor_node, ["b"]) == "b"


def test_an_effect_that_the_user_chose_stays(editor_node):
    assert is_idle(editor_node)
    editor_node.SetActiveEffectName("Paint")
    assert not is_idle(editor_node)
    editor_node.SetActiveEffectName("")
    assert is_idle(editor_node)
