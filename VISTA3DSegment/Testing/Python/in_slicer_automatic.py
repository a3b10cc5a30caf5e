# SPDX-License-Identifier: Apache-2.0
"""Choose and segment: the button, progress, cancel, and what may happen in mid-run."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from slicer_harness import Heartbeat, collecting, screenshot, settle, test, wait_for
from slicer_scene import kill, mask_of, new_scene, open_module, services, structure, world_of


def _choose(indices: list[int]) -> tuple[Any, Any]:
    """Open the module on a new CT, and choose structures; return the volume and the panel."""
    volume = new_scene()
    panel = open_module()
    panel.automatic.ui.volumeSelector.setCurrentNode(volume)
    panel.choice.clear()
    panel.choice.check(indices, True)
    button = panel.automatic.ui.segmentButton
    wait_for(lambda: button.enabled, "Segment can be pressed")
    return volume, panel


def _everything() -> list[int]:
    return [one.index for one in services().catalogue().everything]


@test
def segment_makes_segments() -> str:
    volume, panel = _choose([structure().index])
    screenshot("automatic_before", panel.widget)
    run = services().automatic
    with Heartbeat() as heart, collecting(run.finished) as finished, collecting(run.failed) as failed:
        panel.automatic.ui.segmentButton.click()
        assert run.running, "nothing was started"
        settle(0.5)
        wait_for(lambda: finished or failed, "the run ends")
        settle(0.5)
    assert not failed, failed[0][0]
    node, identities, _notes = finished[0]
    assert mask_of(node, identities[0], volume).any(), "the segment is empty"
    segment = node.GetSegmentation().GetSegment(identities[0])
    assert structure().type.value in segment.GetTerminology()
    screenshot("automatic_after")
    return heart.check()


@test
def cancel_changes_nothing() -> str:
    _volume, panel = _choose(_everything())
    run, before = services().automatic, slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
    with Heartbeat() as heart, collecting(run.cancelled) as cancelled, collecting(run.finished) as finished:
        panel.automatic.ui.segmentButton.click()
        settle(0.3)
        screenshot("automatic_running", panel.widget)
        panel.automatic.ui.segmentButton.click()
        wait_for(lambda: cancelled or finished, "the run stops")
    assert cancelled, "it was faster than the finger"
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == before
    return heart.check()


@test
def volume_may_be_deleted_in_mid_run() -> None:
    volume, panel = _choose(_everything())
    run = services().automatic
    with collecting(run.failed, run.cancelled) as ended, collecting(run.finished) as finished:
        panel.automatic.ui.segmentButton.click()
        settle(0.3)
        slicer.mrmlScene.RemoveNode(volume)
        wait_for(lambda: ended or finished, "the run stops")
    assert ended, "it was faster than the deletion"
    assert not run.running


@test
def scene_may_be_closed_in_mid_run() -> None:
    _volume, panel = _choose(_everything())
    run = services().automatic
    panel.automatic.ui.segmentButton.click()
    settle(0.3)
    slicer.mrmlScene.Clear(False)
    wait_for(lambda: not run.running, "the run stops")
    settle(0.5)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


@test
def another_module_may_be_shown_in_mid_run() -> None:
    _volume, panel = _choose([structure().index])
    run = services().automatic
    with collecting(run.finished) as finished, collecting(run.failed) as failed:
        panel.automatic.ui.segmentButton.click()
        settle(0.1)
        slicer.util.selectModule("Data")
        wait_for(lambda: finished or failed, "the run ends")
    assert not failed, failed[0][0]
    open_module()


@test
def engine_may_be_killed() -> None:
    """The run ends with a sentence, and the next one works."""
    volume, panel = _choose(_everything())
    run = services().automatic
    wait_for(lambda: services().engine.info is not None, "the engine runs")
    with collecting(run.failed) as failed, collecting(run.finished) as finished:
        panel.automatic.ui.segmentButton.click()
        settle(0.3)
        kill(services().engine.info.pid)
        wait_for(lambda: failed or finished, "the run ends")
    assert len(failed) == 1, "no sentence told it"
    screenshot("automatic_killed", panel.widget)
    panel.choice.clear()
    panel.choice.check([structure().index], True)
    wait_for(lambda: panel.automatic.ui.segmentButton.enabled, "Segment can be pressed")
    with collecting(run.finished) as finished, collecting(run.failed) as failed:
        panel.automatic.ui.segmentButton.click()
        wait_for(lambda: finished or failed, "the run ends")
    assert not failed, failed[0][0]
    assert mask_of(finished[0][0], finished[0][1][0], volume).any()


@test
def scripts_wait_for_their_results() -> str:
    volume, vista = new_scene(), slicer.util.getModuleLogic("VISTA3DSegment")
    told: list[float] = []
    with Heartbeat() as heart:
        node = vista.segment(volume, structure().name, progress=lambda fraction, _text: told.append(fraction))
    (segment_id,) = node.GetSegmentation().GetSegmentIDs()
    mask = mask_of(node, segment_id, volume)
    assert mask.any(), "the segment is empty"
    assert told == sorted(told)
    assert told[-1] > 0.9
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    changed = vista.click(node, segment_id, volume, [world_of(volume, tuple(np.argwhere(mask).mean(0)))])
    assert len(changed) == 1
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes, "nodes are left"
    assert structure().name in vista.structures()
    assert "mini" in [one.name for one in vista.models() if one.path]
    sentence = ""
    try:
        vista.segment(volume, "no such structure")
    except Exception as error:
        sentence = str(error)
    assert "no such structure" in sentence, sentence or "nothing was raised"
    return heart.check()
