"""Volumes are open in the engine once, as they are now, and no longer than they are in the scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import slicer
from engine_helpers import EngineUnderTest, running_engine
from logic_helpers import Answers, add_transform, add_volume, assert_sentence, new_scene, rotated

from VISTA3DCore.engine.protocol import LoadParams, SegmentParams
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DSegmentLib.logic.volumes import OpenedVolumes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def under_test() -> Iterator[EngineUnderTest]:
    """Return an engine that the tests of this file share."""
    with running_engine() as under_test:
        yield under_test


class Opening:
    """A scene with a CT, and volumes that are open."""

    def __init__(self, under_test: EngineUnderTest, model: Path) -> None:
        self.under_test, self.model = under_test, str(model)
        self.scene = new_scene()
        self.node = add_volume(self.scene)
        self.volumes = OpenedVolumes(under_test.engine)

    def use(self, node: slicer.vtkMRMLScalarVolumeNode | None = None) -> Answers:
        """Ask for a volume."""
        answers = Answers()
        self.volumes.use(node or self.node, self.model, "cpu", *answers.callbacks)
        assert answers.count == 0
        return answers

    def session(self, node: slicer.vtkMRMLScalarVolumeNode | None = None) -> str:
        """Return the session of a volume."""
        answers = self.use(node)
        self.under_test.loop.run_until(lambda: answers.count)
        assert answers.errors == []
        return answers.results[0]

    def open_sessions(self) -> tuple[str, ...]:
        """Ask the engine which sessions are open, after it has done what it was asked before."""
        answers = Answers()
        # The second one comes behind what was sent because of answers that came before the first one's.
        for count, method in enumerate(("load", "load", "status"), 1):
            params = LoadParams(self.model, "cpu") if method == "load" else None
            self.under_test.engine.request(method, params, *answers.callbacks)
            self.under_test.loop.run_until(lambda count=count: answers.count == count)
        return answers.results[-1].sessions


@pytest.fixture
def opening(under_test: EngineUnderTest, tiny_model: Path) -> Iterator[Opening]:
    opening = Opening(under_test, tiny_model)
    yield opening
    opening.volumes.close_all()


def test_a_volume_is_opened_once(opening: Opening) -> None:
    first, second = opening.use(), opening.use()
    opening.under_test.loop.run_until(lambda: first.count and second.count)
    assert first.results == second.results == [opening.session()]
    assert first.progress
    assert opening.volumes.session_of(opening.node, opening.model, "cpu") == first.results[0]
    assert opening.open_sessions() == (first.results[0],)
    assert opening.volumes.opened(opening.node, opening.model, "cpu").window == (32, 32, 32)


def test_models_and_devices_have_sessions_of_their_own(opening: Opening) -> None:
    session = opening.session()
    answers = Answers()
    opening.volumes.use(opening.node, opening.model, "auto", *answers.callbacks)
    opening.under_test.loop.run_until(lambda: answers.count)
    assert answers.results[0] != session
    opening.volumes.forget(opening.node)
    assert opening.open_sessions() == ()


@pytest.mark.parametrize("change", ["voxels", "geometry", "transform"])
def test_a_changed_volume_is_opened_anew(opening: Opening, change: str) -> None:
    session = opening.session()
    if change == "voxels":
        slicer.util.arrayFromVolume(opening.node)[5:9] += 100
        slicer.util.arrayFromVolumeModified(opening.node)
    elif change == "geometry":
        opening.node.SetOrigin(1, 2, 3)
    else:
        add_transform(opening.node, rotated((0, 0, 10)))
    assert opening.volumes.session_of(opening.node, opening.model, "cpu") is None
    assert opening.session() != session
    assert session not in opening.open_sessions()


def test_a_removed_volume_is_closed(opening: Opening) -> None:
    other = add_volume(opening.scene)
    kept = opening.session(other)
    opening.session()
    opening.scene.RemoveNode(opening.node)
    assert opening.open_sessions() == (kept,)


def test_a_closed_scene_closes_all(opening: Opening) -> None:
    opening.session()
    opening.session(add_volume(opening.scene))
    files = opening.under_test.files()
    assert len(files) == 2
    opening.scene.Clear(False)
    assert opening.open_sessions() == ()
    assert opening.under_test.files() == []
    assert not opening.scene.HasObserver(slicer.vtkMRMLScene.NodeRemovedEvent)


def test_who_waits_hears_that_the_volume_is_gone(opening: Opening) -> None:
    answers = opening.use()
    opening.scene.RemoveNode(opening.node)
    opening.under_test.loop.run_until(lambda: answers.count)
    assert isinstance(answers.errors[0], InputError)
    assert_sentence(str(answers.errors[0]))
    assert opening.open_sessions() == ()
    assert opening.under_test.files() == []


def test_one_who_leaves_does_not_disturb_the_other(opening: Opening) -> None:
    leaving, staying = Answers(), opening.use()
    pending = opening.volumes.use(opening.node, opening.model, "cpu", *leaving.callbacks)
    pending.cancel()
    opening.under_test.loop.run_until(lambda: leaving.count and staying.count)
    assert [type(error) for error in leaving.errors] == [Cancelled]
    assert staying.results == [opening.session()]


@pytest.mark.parametrize("moment", ["handing over", "opening"])
def test_when_all_leave_nothing_is_opened(opening: Opening, moment: str) -> None:
    answers = Answers()
    pending = opening.volumes.use(opening.node, opening.model, "cpu", *answers.callbacks)
    if moment == "opening":
        handing_over = pending.entry.pending
        opening.under_test.loop.run_until(lambda: pending.entry.pending is not handing_over)
    pending.drop()
    assert opening.open_sessions() == ()
    opening.under_test.loop.run_until(lambda: opening.under_test.files() == [])
    assert answers.count == 0
    assert opening.session()


def test_a_volume_that_cannot_be_used_is_told(opening: Opening) -> None:
    node = opening.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    answers = opening.use(node)
    opening.under_test.loop.run_until(lambda: answers.count)
    assert isinstance(answers.errors[0], InputError)
    assert opening.under_test.files() == []


def test_a_model_that_fails_leaves_no_file_and_the_next_one_works(opening: Opening) -> None:
    answers = Answers()
    opening.volumes.use(opening.node, "nothing", "cpu", *answers.callbacks)
    opening.under_test.loop.run_until(lambda: answers.count)
    assert_sentence(str(answers.errors[0]))
    assert opening.under_test.files() == []
    assert opening.session()


def test_a_volume_survives_the_process(opening: Opening) -> None:
    session, answers = opening.session(), Answers()
    opening.under_test.kill()
    opening.under_test.loop.run_until(lambda: opening.under_test.engine.state != "ready")
    assert opening.session() == session
    opening.under_test.engine.request("segment", SegmentParams(session, ("liver",)), *answers.callbacks)
    opening.under_test.loop.run_until(lambda: answers.count)
    opening.under_test.engine.take_array(answers.results[0].labels)
    assert answers.errors == []


def test_after_the_engine_was_stopped_volumes_are_opened_anew(opening: Opening) -> None:
    opening.session()
    waiting = opening.use(add_volume(opening.scene))
    opening.under_test.engine.stop()
    opening.under_test.loop.run_until(lambda: waiting.count)
    assert waiting.results == []
    assert opening.volumes.session_of(opening.node, opening.model, "cpu") is None
    assert opening.open_sessions() == ()
    assert opening.session()
