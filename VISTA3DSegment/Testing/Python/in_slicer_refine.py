# SPDX-License-Identifier: Apache-2.0
"""The section Refine: there is always something to edit, and the effect is active when the hint says "click"."""

from __future__ import annotations

from typing import Any

import slicer
from slicer_harness import collecting, screenshot, settle, test, wait_for
from slicer_scene import EFFECT, new_scene, open_module, services, structure


def _refining() -> tuple[Any, Any]:
    """Open the module on a new CT, with a structure chosen and the section Refine open; return both."""
    volume, panel = new_scene(), open_module()
    panel.automatic.ui.volumeSelector.setCurrentNode(volume)
    panel.choice.clear()
    panel.choice.check([structure().index], True)
    panel.ui.refineSection.collapsed = False
    settle(0.5)
    return volume, panel


def _segment(panel: Any) -> Any:
    """Press Segment and wait; return the segmentation."""
    run, button = services().automatic, panel.automatic.ui.segmentButton
    wait_for(lambda: button.enabled, "Segment can be pressed")
    with collecting(run.finished) as finished, collecting(run.failed) as failed:
        button.click()
        wait_for(lambda: finished or failed, "the run ends")
        settle(0.5)
    assert not failed, failed[0][0]
    return finished[0][0]


def _add_button(panel: Any) -> Any:
    return slicer.util.findChildren(panel.refine.editor, "AddSegmentButton")[0]


def _active(panel: Any) -> str:
    effect = panel.refine.editor.activeEffect()
    return "" if effect is None else effect.name


@test
def segments_can_be_added_without_a_segmentation() -> None:
    _volume, panel = _refining()
    try:
        assert _add_button(panel).enabled, "Add is dead"
        _add_button(panel).click()
        settle(0.5)
        assert _active(panel) == EFFECT, "the effect is not active though there is a segment to click on"
        assert panel.automatic.ui.segmentationSelector.currentNode() is panel.refine.editor.segmentationNode()
    finally:
        panel.ui.refineSection.collapsed = True


@test
def effect_is_active_when_a_run_ends() -> None:
    _volume, panel = _refining()
    try:
        _segment(panel)
        assert _active(panel) == EFFECT
        assert panel.refine.editor.currentSegmentID(), "no segment is selected"
        screenshot("refine_after_run", panel.widget)
        panel.refine.editor.setActiveEffectByName("Paint")
        settle()
        _segment(panel)
        assert _active(panel) == "Paint", "the effect that the user works with was taken away"
    finally:
        panel.refine.deactivate()
        panel.ui.refineSection.collapsed = True


@test
def panel_and_editor_show_one_segmentation() -> None:
    _volume, panel = _refining()
    try:
        selector, editor = panel.automatic.ui.segmentationSelector, panel.refine.editor
        assert not editor.segmentationNodeSelectorVisible, "there are two selectors"
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Other")
        selector.setCurrentNode(other)
        settle()
        assert editor.segmentationNode() is other
        third = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Third")
        editor.mrmlSegmentEditorNode().SetAndObserveSegmentationNode(third)
        settle()
        assert selector.currentNode() is third
        slicer.util.selectModule("SegmentEditor")
        slicer.util.getModuleWidget("SegmentEditor").editor.setSegmentationNode(other)
        open_module()
        assert selector.currentNode() is editor.segmentationNode()
    finally:
        panel.ui.refineSection.collapsed = True
