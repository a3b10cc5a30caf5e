"""Runs that are cancelled, or whose nodes, scene or engine go away: nothing is left behind, and the next run works."""

from __future__ import annotations

import pytest
from automatic_cases import Running
from logic_helpers import (
    add_transform,
    add_volume,
    rotated,
)

pytestmark = pytest.mark.slow


def test_cancel_writes_nothing_and_the_next_run_works(tiny: Running) -> None:
    tiny.start(preset="paper")
    tiny.wait_for_work()
    tiny.run.cancel()
    assert not tiny.run.running
    assert tiny.heard.events[-1] == ("cancelled", ())
    tiny.under_test.loop.run_for(0.3)
    assert tiny.heard.events[-1] == ("cancelled", ())
    assert tiny.segmentations == 0
    tiny.run.cancel()
    assert len(tiny.heard.all("cancelled")) == 1
    assert tiny.segment()


def test_cancel_while_the_volume_is_opened(tiny: Running) -> None:
    tiny.start()
    tiny.run.cancel()
    assert tiny.heard.all("cancelled") == [()]
    assert tiny.segment()


def test_cancel_while_the_segments_are_written(tiny: Running) -> None:
    tiny.start()
    tiny.under_test.loop.run_until(lambda: tiny.updates and tiny.updates[-1][1] == "Writing the segments")
    while not tiny.segmentations:
        tiny.under_test.loop.run_once(0.0)
    tiny.run.cancel()
    tiny.under_test.loop.run_for(0.1)
    assert tiny.segmentations == 0
    assert [name for name in tiny.under_test.files() if name.startswith("result")] == []


@pytest.mark.parametrize("moment", ["opening", "segmenting"])
def test_a_volume_that_is_deleted_ends_the_run(tiny: Running, moment: str) -> None:
    tiny.start(preset="paper")
    if moment == "segmenting":
        tiny.wait_for_work()
    tiny.scene.RemoveNode(tiny.volume)
    assert tiny.heard.sentence("failed") == "The volume 'CT' was removed; the run was stopped."
    tiny.under_test.loop.run_for(0.3)
    assert len(tiny.heard.all("failed")) == 1
    assert tiny.segmentations == 0


@pytest.mark.parametrize("name", [None, "", "{name}"])
def test_a_volume_is_named_as_it_is_called(tiny: Running, name: str | None) -> None:
    tiny.volume.SetName(name)
    tiny.start()
    tiny.scene.RemoveNode(tiny.volume)
    assert tiny.heard.sentence("failed") == f"The volume '{name or '(unnamed)'}' was removed; the run was stopped."


def test_a_segmentation_that_is_deleted_ends_the_run(tiny: Running) -> None:
    segmentation, _ids, _notes = tiny.segment()
    tiny.heard.events.clear()
    tiny.start(segmentation=segmentation, preset="paper")
    tiny.wait_for_work()
    tiny.scene.RemoveNode(segmentation)
    assert tiny.heard.sentence("failed") == "The segmentation 'CT segmentation' was removed; the run was stopped."
    assert tiny.segmentations == 0


def test_a_scene_that_is_closed_ends_the_run(tiny: Running) -> None:
    tiny.start(preset="paper")
    tiny.wait_for_work()
    tiny.scene.Clear(False)
    assert tiny.heard.sentence("failed") == "The scene was closed; the run was stopped."
    tiny.under_test.loop.run_for(0.3)
    assert tiny.segmentations == 0
    assert tiny.volumes._entries == {}
    tiny.volume = add_volume(tiny.scene)
    assert tiny.segment()


def test_a_volume_that_changes_gets_no_wrong_segments(tiny: Running) -> None:
    tiny.start()
    tiny.wait_for_work()
    add_transform(tiny.volume, rotated((0, 0, 5)))
    tiny.finish()
    assert tiny.heard.sentence("failed").startswith("'CT' was changed during the run")
    assert tiny.segmentations == 0
    assert [name for name in tiny.under_test.files() if name.startswith("result")] == []


def test_a_killed_engine_is_one_sentence_and_the_next_run_works(tiny: Running) -> None:
    tiny.start(preset="paper")
    tiny.wait_for_work()
    tiny.under_test.kill()
    tiny.finish()
    assert "ended unexpectedly" in tiny.heard.sentence("failed")
    assert tiny.segmentations == 0
    assert tiny.segment()
