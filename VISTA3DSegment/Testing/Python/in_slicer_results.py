# SPDX-License-Identifier: Apache-2.0
"""Results: each volume has its own segmentation, nothing is replaced without a word, and a run can be undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer
from slicer_harness import collecting, screenshot, settle, test, wait_for
from slicer_scene import mask_of, new_scene, open_module, services, structure


def _opened() -> tuple[Any, Any]:
    """Open the module on a new CT, with a structure chosen and the section Refine folded; return both."""
    volume, panel = new_scene(), open_module()
    panel.ui.refineSection.collapsed = True
    panel.automatic.ui.volumeSelector.setCurrentNode(volume)
    panel.choice.clear()
    panel.choice.check([structure().index], True)
    return volume, panel


def _second_patient(volume: Any) -> Any:
    """Return another CT with the same voxels in space, another one inside."""
    other = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, volume, "patient2")
    slicer.util.updateVolumeFromArray(other, slicer.util.arrayFromVolume(volume)[:, :, ::-1].copy())
    settle()
    return other


def _segment(panel: Any) -> tuple[Any, list[str]]:
    """Press Segment and wait; return the segmentation and the ids of its segments."""
    run, button = services().automatic, panel.automatic.ui.segmentButton
    wait_for(lambda: button.enabled, "Segment can be pressed")
    with collecting(run.finished) as finished, collecting(run.failed) as failed:
        button.click()
        wait_for(lambda: finished or failed, "the run ends")
        settle()
    assert not failed, failed[0][0]
    return finished[0][0], list(finished[0][1])


def _question(panel: Any) -> Any:
    """Return the question that is asked."""
    asked = [one for one in panel.widget.findChildren(qt.QMessageBox) if one.visible]
    assert len(asked) == 1, f"{len(asked)} questions instead of one"
    return asked[0]


def _press(question: Any, text: str) -> None:
    (button,) = (one for one in question.buttons() if text in one.text)
    button.click()
    settle()


def _paint(node: Any, segment_id: str, volume: Any) -> None:
    """Add a corner of the volume to a segment."""
    array = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume).copy()
    array[:3, :3, :3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(array, node, segment_id, volume)
    settle()


@test
def each_volume_has_its_own_segmentation() -> None:
    volume, panel = _opened()
    first, ids = _segment(panel)
    before = mask_of(first, ids[0], volume)
    other, selectors = _second_patient(volume), panel.automatic.ui
    selectors.volumeSelector.setCurrentNode(other)
    settle()
    assert selectors.segmentationSelector.currentNode() is None, "the first patient's segmentation is still chosen"
    second, _ids = _segment(panel)
    assert second is not first
    assert np.array_equal(mask_of(first, ids[0], volume), before), "the first patient's segment was replaced"
    for node, own in ((volume, first), (other, second)):
        selectors.volumeSelector.setCurrentNode(node)
        settle()
        assert selectors.segmentationSelector.currentNode() is own, f"'{node.GetName()}' has another segmentation"


@test
def another_patients_segmentation_is_asked_about() -> None:
    volume, panel = _opened()
    first, ids = _segment(panel)
    before, other = mask_of(first, ids[0], volume), _second_patient(volume)
    panel.automatic.ui.volumeSelector.setCurrentNode(other)
    panel.automatic.ui.segmentationSelector.setCurrentNode(first)
    settle(0.5)
    panel.automatic.ui.segmentButton.click()
    question = _question(panel)
    assert first.GetName() in question.text, question.text
    assert "patient2" in question.text, question.text
    screenshot("results_other_patient")
    question.reject()
    settle()
    assert not services().automatic.running
    assert np.array_equal(mask_of(first, ids[0], volume), before)
    panel.automatic.ui.segmentButton.click()
    run = services().automatic
    with collecting(run.finished) as finished, collecting(run.failed) as failed:
        _press(_question(panel), "Create")
        wait_for(lambda: finished or failed, "the run ends")
    assert not failed, failed[0][0]
    assert finished[0][0] is not first


@test
def scene_opens_with_the_segmentation_that_it_was_saved_with() -> None:
    volume, panel = _opened()
    first, _ids = _segment(panel)
    panel.automatic.ui.segmentationSelector.setCurrentNode(None)
    second, _ids = _segment(panel)
    panel.automatic.ui.segmentationSelector.setCurrentNode(first)
    settle()
    slicer.util.selectModule("Data")
    open_module()
    assert panel.automatic.ui.segmentationSelector.currentNode() is first
    assert panel.automatic.volume is volume
    assert second.GetScene() is not None


@test
def results_undo_a_run_without_refine() -> None:
    volume, panel = _opened()
    button = panel.results.ui.undoButton
    assert not button.enabled, "there is nothing to undo"
    node, (segment_id,) = _segment(panel)
    first = mask_of(node, segment_id, volume)
    _paint(node, segment_id, volume)
    painted, settings = mask_of(node, segment_id, volume), services().settings
    remembered = settings.keep_corrected
    settings.keep_corrected = False
    try:
        _segment(panel)
    finally:
        settings.keep_corrected = remembered
    assert np.array_equal(mask_of(node, segment_id, volume), first)
    screenshot("results_before_undo", panel.widget)
    button.click()
    settle()
    assert np.array_equal(mask_of(node, segment_id, volume), painted), "the painted corner did not come back"
    assert not button.enabled


@test
def results_undo_asks_about_later_changes_and_removes_what_the_run_made() -> None:
    volume, panel = _opened()
    node, (segment_id,) = _segment(panel)
    _paint(node, segment_id, volume)
    panel.results.ui.undoButton.click()
    question = _question(panel)
    assert node.GetSegmentation().GetSegment(segment_id).GetName() in question.text, question.text
    question.reject()
    settle()
    assert node.GetScene() is not None
    panel.results.ui.undoButton.click()
    _press(_question(panel), "Undo")
    assert node.GetScene() is None
    assert panel.automatic.ui.segmentationSelector.currentNode() is None


@test
def corrected_segments_are_asked_about_once() -> None:
    volume, panel = _opened()
    settings = services().settings
    remembered, settings.keep_corrected = settings.keep_corrected, None
    try:
        node, (segment_id,) = _segment(panel)
        _paint(node, segment_id, volume)
        painted, button = mask_of(node, segment_id, volume), panel.automatic.ui.segmentButton
        wait_for(lambda: button.enabled, "Segment can be pressed")
        button.click()
        question = _question(panel)
        screenshot("results_corrected")
        _press(question, "Keep")
        assert not services().automatic.running
        assert np.array_equal(mask_of(node, segment_id, volume), painted)
        assert panel.automatic.ui.keepBox.checked
        button.click()
        settle()
        assert not [one for one in panel.widget.findChildren(qt.QMessageBox) if one.visible], "it is asked again"
        panel.automatic.ui.keepBox.click()
        _segment(panel)
        assert not np.array_equal(mask_of(node, segment_id, volume), painted)
    finally:
        settings.keep_corrected = remembered


@test
def structures_that_are_not_found_leave_no_segments() -> None:
    _volume, panel = _opened()
    panel.choice.check_everything()
    node, identities = _segment(panel)
    found, count = node.GetSegmentation().GetNumberOfSegments(), len(panel.choice.checked)
    assert len(identities) == found < count, "the painted abdomen has everything"
    assert f"{found} of {count}" in panel.results.ui.summaryLabel.text, panel.results.ui.summaryLabel.text
    screenshot("results_not_found", panel.widget)


@test
def results_are_told_to_be_hidden_and_shown_in_the_middle() -> None:
    _volume, panel = _opened()
    node, _ids = _segment(panel)
    node.GetDisplayNode().SetVisibility(False)
    _segment(panel)
    assert "is hidden" in panel.results.ui.summaryLabel.text, panel.results.ui.summaryLabel.text
    node.GetDisplayNode().SetVisibility(True)
    panel.results.ui.show3DButton.click()
    settle(0.5)
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    camera = slicer.app.layoutManager().threeDWidget(0).threeDView().cameraNode()
    middle = np.add(bounds[::2], bounds[1::2]) / 2
    assert np.allclose(camera.GetFocalPoint(), middle, atol=60.0), "the 3D view looks elsewhere"
    screenshot("results_3d")
    panel.results.ui.show3DButton.click()


@test
def volumes_table_is_there_at_once() -> None:
    _volume, panel = _opened()
    node, _ids = _segment(panel)
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode")
    panel.results.ui.statisticsButton.click()
    wait_for(lambda: slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") > before, "the table is made")
    table = slicer.mrmlScene.GetNthNodeByClass(before, "vtkMRMLTableNode")
    assert table.GetNumberOfRows() == node.GetSegmentation().GetNumberOfSegments()
    open_module()


@test
def new_boxes_have_a_name_and_are_in_the_volume() -> None:
    from VISTA3DSegmentLib.logic.regions import volume_box

    volume, panel = _opened()
    panel.automatic.region.show("roi", "Red")
    box = panel.automatic.ui.roiSelector.addNode()
    settle()
    assert volume.GetName() in box.GetName(), box.GetName()
    assert np.allclose(box.GetCenter(), np.mean(np.reshape(volume_box(volume), (2, 3)), axis=0))
    panel.automatic.region.whole_volume()


@test
def segments_that_change_while_refine_is_folded_log_nothing() -> None:
    """The harness looks into the log."""
    volume, panel = _opened()
    node, (segment_id,) = _segment(panel)
    panel.ui.refineSection.collapsed = False
    settle(0.5)
    panel.ui.refineSection.collapsed = True
    _paint(node, segment_id, volume)
    node.GetSegmentation().GetSegment(segment_id).SetName("renamed")
    node.GetSegmentation().AddEmptySegment("", "added")
    slicer.util.selectModule("Data")
    node.GetSegmentation().RemoveSegment(segment_id)
    settle()
    open_module()
    panel.automatic.ui.segmentationSelector.setCurrentNode(None)
    panel.ui.refineSection.collapsed = False
    settle(0.5)
    panel.ui.refineSection.collapsed = True
