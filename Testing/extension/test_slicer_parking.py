"""The node of an editor that is not shown."""

from __future__ import annotations

import slicer
from mrml_scene import Application

from VISTA3DSegmentLib.mrml.parking import parked
from VISTA3DSegmentLib.mrml.segments import create_segmentation


def shared_node(app: Application, ct: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentEditorNode:
    """Return what the Segment Editor works with, in the middle of work."""
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    segmentation = create_segmentation(app.scene, ct)
    node.SetAndObserveSegmentationNode(segmentation)
    node.SetAndObserveSourceVolumeNode(ct)
    node.SetSelectedSegmentID(segmentation.GetSegmentation().AddEmptySegment("", "liver"))
    node.SetActiveEffectName("Paint")
    return node


def test_a_parked_editor_follows_its_segmentation_with_no_effect(app, ct):
    shared = shared_node(app, ct)
    node = parked(shared)
    assert node is not shared
    assert node.GetSegmentationNode() is shared.GetSegmentationNode()
    assert node.GetSourceVolumeNode() is ct
    assert not node.GetActiveEffectName()
    assert not node.GetSelectedSegmentID()
    assert (shared.GetActiveEffectName(), shared.GetSelectedSegmentID() != "") == ("Paint", True)
    assert not node.GetSaveWithScene()
    assert node.GetHideFromEditors()


def test_there_is_one_parking_place(app, ct):
    shared = shared_node(app, ct)
    first, count = parked(shared), app.scene.GetNumberOfNodes()
    shared.SetAndObserveSegmentationNode(None)
    assert parked(shared) is first
    assert first.GetSegmentationNode() is None
    assert app.scene.GetNumberOfNodes() == count


def test_a_parked_editor_lets_its_segmentation_be_removed(app, ct):
    shared = shared_node(app, ct)
    node, segmentation = parked(shared), shared.GetSegmentationNode()
    app.scene.RemoveNode(segmentation)
    assert node.GetSegmentationNode() is None
    app.scene.Clear(False)
