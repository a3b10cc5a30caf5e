"""What is known of a result in mid-run: shown in the views, offered nowhere, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
from engine_helpers import EngineUnderTest, running_engine
from engine_processes import coarse_phantom
from logic_helpers import Heard, MemoryStore, add_volume, new_scene

from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DSegmentLib.logic.automatic import AutomaticRun, RunRequest
from VISTA3DSegmentLib.logic.settings import Rate, Settings
from VISTA3DSegmentLib.logic.volumes import OpenedVolumes
from VISTA3DSegmentLib.mrml.segments import read_mask
from VISTA3DSegmentLib.mrml.views import center_of

pytestmark = pytest.mark.slow

STRUCTURES = (1, 3, 23)
SHAPE = (80, 70, 60)


@pytest.fixture(scope="module")
def under_test() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


class Watching:
    """A run, and every segmentation that appears during it."""

    def __init__(self, under_test: EngineUnderTest, model: Path) -> None:
        self.under_test, self.model = under_test, str(model)
        self.scene = new_scene()
        self.volume = add_volume(self.scene, coarse_phantom(SHAPE))
        self.volumes = OpenedVolumes(under_test.engine)
        self.settings = Settings(MemoryStore())
        self.run = AutomaticRun(under_test.engine, self.volumes, self.scene, None, self.settings)
        self.heard = Heard(self.run)

    @property
    def segmentations(self) -> list[slicer.vtkMRMLSegmentationNode]:
        nodes = self.scene.GetNodesByClass("vtkMRMLSegmentationNode")
        nodes.UnRegister(None)
        return [nodes.GetItemAsObject(number) for number in range(nodes.GetNumberOfItems())]

    def start(self, **changes: object) -> None:
        wishes = {"volume": self.volume, "structures": STRUCTURES, "model": self.model, "device": "cpu", **changes}
        self.run.start(RunRequest(**wishes))

    def wait_for_preview(self) -> slicer.vtkMRMLSegmentationNode:
        """Wait until something is shown while the network still runs."""

        def shown() -> bool:
            assert self.run.running, "nothing was shown during the run"
            return any(node.GetSegmentation().GetNumberOfSegments() for node in self.segmentations)

        self.under_test.loop.run_until(shown)
        (node,) = self.segmentations
        return node

    def finish(self) -> None:
        self.under_test.loop.run_until(lambda: not self.run.running)

    def close(self) -> None:
        self.run.close()
        self.volumes.close_all()


@pytest.fixture
def watching(under_test: EngineUnderTest, tiny_model: Path) -> Iterator[Watching]:
    one = Watching(under_test, tiny_model)
    yield one
    one.close()


def test_a_long_run_shows_what_is_known_and_ends_with_the_result_alone(watching: Watching, tiny_model: Path) -> None:
    watching.start(looking_at=(0.0, 0.0, 0.0))
    shown = watching.wait_for_preview()
    assert shown.GetHideFromEditors()
    assert not shown.GetSaveWithScene()
    assert "in progress" in shown.GetName()
    assert shown.GetSegmentation().GetNumberOfSegments() == len(STRUCTURES)
    assert any(read_mask(shown, one, watching.volume).any() for one in shown.GetSegmentation().GetSegmentIDs())
    watching.finish()
    assert watching.heard.all("failed") == []
    ((node, ids, _notes),) = watching.heard.all("finished")
    assert watching.segmentations == [node]
    expected = Segmenter.from_pretrained(tiny_model, "cpu").open(coarse_phantom(SHAPE)).segment(STRUCTURES)
    for index, segment_id in zip(STRUCTURES, ids, strict=True):
        differing = np.count_nonzero(read_mask(node, segment_id, watching.volume) != expected[index])
        assert differing <= 3  # another number of threads rounds otherwise
    assert len(watching.under_test.files()) == 1  # the volume's


def test_a_cancelled_run_leaves_nothing(watching: Watching) -> None:
    watching.start()
    watching.wait_for_preview()
    watching.run.cancel()
    assert watching.segmentations == []
    watching.under_test.loop.run_for(0.5)
    watching.under_test.loop.run_until(lambda: len(watching.under_test.files()) <= 1)
    assert watching.segmentations == []


def test_who_removes_it_is_left_in_peace(watching: Watching) -> None:
    watching.start()
    watching.scene.RemoveNode(watching.wait_for_preview())
    watching.finish()
    assert watching.heard.all("failed") == []
    assert len(watching.segmentations) == 1


def test_the_scene_may_be_closed(watching: Watching) -> None:
    watching.start()
    watching.wait_for_preview()
    watching.scene.Clear(False)
    assert len(watching.heard.all("failed")) == 1
    assert watching.segmentations == []


def test_a_short_run_shows_nothing_before_its_end(watching: Watching) -> None:
    watching.settings.note_rate(watching.model, "cpu", "bundle", Rate(0.01, (32, 32, 32), (12.0, 12.0, 12.0)))
    watching.start()
    seen = []
    watching.under_test.loop.run_until(lambda: seen.append(len(watching.segmentations)) or not watching.run.running)
    assert watching.heard.all("failed") == []
    assert max(seen[:-1]) <= 1
    assert [node.GetHideFromEditors() for node in watching.segmentations] == [0]


def test_the_place_that_comes_first_is_the_middle_of_the_first_view() -> None:
    node = slicer.vtkMRMLSliceNode()
    node.SetSliceToRASByNTP(0, 0, 1, 1, 0, 0, 12.0, -30.0, 75.0, 0)
    assert center_of([node, slicer.vtkMRMLSliceNode()]) == pytest.approx((12.0, -30.0, 75.0))
    assert center_of([]) is None
