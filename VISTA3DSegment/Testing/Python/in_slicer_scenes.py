# SPDX-License-Identifier: Apache-2.0
"""Scenes: saved, loaded, closed while something is going on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
from in_slicer_clicks import ready
from slicer_harness import collecting, settle, test, wait_for
from slicer_scene import edit, mask_of, new_scene, services


@test
def saved_scene_keeps_clicks() -> None:
    editing, place = ready()
    editing.click(place)
    editing.click(tuple(np.add(place, (0.0, 0.0, 6.0))))
    mask, rows = editing.mask(), editing.session.rows
    editing.deactivate()
    path = Path(slicer.util.tempDirectory()) / "scene.mrb"
    assert slicer.util.saveScene(str(path))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(path))
    settle(0.5)
    editing.node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    editing.volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    editing.editor.setSegmentationNode(editing.node)
    editing.editor.setSourceVolumeNode(editing.volume)
    editing.editor.setCurrentSegmentID(editing.segment_id)
    assert np.array_equal(mask_of(editing.node, editing.segment_id, editing.volume), mask)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0, "points were saved as nodes"
    editing.activate()
    assert [row.position for row in editing.session.rows] == [row.position for row in rows]
    editing.click(tuple(np.add(place, (6.0, 0.0, 0.0))))
    assert len(editing.session.rows) == 3
    assert not any(row.settled for row in editing.session.rows), "the mask from before the clicks is lost"
    with collecting(editing.session.answered, editing.session.failed) as told:
        editing.session.delete_all()
        wait_for(lambda: told, "the clicks are deleted")
    assert not editing.mask().any(), "the segment is not as before the first click"


@test
def scene_may_be_closed_in_mid_click() -> None:
    editing, place = ready()
    editing.click(place, wait=False)
    slicer.mrmlScene.Clear(False)
    settle(1.0)
    assert not editing.session.active
    assert not services().refinement.busy
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0


@test
def scene_may_be_closed_while_the_volume_is_opened() -> None:
    editing = edit(new_scene())
    editing.editor.setActiveEffectByName("VISTA3D")
    slicer.mrmlScene.Clear(False)
    settle(1.0)
    assert not editing.session.active


@test
def effect_works_after_the_scene_was_closed() -> None:
    editing, place = ready()
    editing.click(place)
    wait_for(lambda: not services().refinement.busy, "the click is written")
    assert editing.mask().any()
