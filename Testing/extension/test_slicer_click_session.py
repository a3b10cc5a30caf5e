"""The effect's work below its widgets: real nodes, a real engine process, a Segment Editor's own logic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from engine_helpers import EngineUnderTest, running_engine
from refinement_helpers import TUMOR, Clicking

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.logic.choice import Choice
from VISTA3DSegmentLib.logic.click_session import ClickSession
from VISTA3DSegmentLib.mrml.writing import EditorLogicWriter

PLACES = ((5, 11, 15), (14, 13, 4), (20, 16, 19))


class Session:
    """A session over a segment, and what it told."""

    def __init__(self, engine: EngineUnderTest, model: Path) -> None:
        self.clicking = Clicking(engine, model)
        self.loop, self.engine = engine.loop, engine
        self.clicking.refinement.set_target()
        self.choice = Choice(str(model), "cpu", catalogue())
        one = self.clicking
        self.session = ClickSession(one.refinement, one.volumes, engine.engine, lambda: self.choice)
        self.told: dict[str, list] = {}
        for name in ("target_changed", "polarity_changed", "state_changed", "answered", "suggested", "failed"):
            self.told[name] = []
            getattr(self.session, name).connect(lambda *what, name=name: self.told[name].append(what))
        self.nodes = one.node_classes()

    def begin(self) -> ClickSession:
        self.session.begin(self.clicking.editor_node, EditorLogicWriter(self.clicking.editor))
        return self.session

    def click(self, place: tuple[int, int, int], opposite: bool = False) -> None:
        self.session.click(self.clicking.world(place), opposite)
        self.clicking.settle()

    def wait_until_open(self) -> None:
        one = self.clicking
        self.loop.run_until(lambda: one.volumes.session_of(one.volume_node, self.choice.model, "cpu") is not None)
        self.loop.run_until(lambda: not self.session.state)


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def one(engine: EngineUnderTest, tiny_model: Path) -> Iterator[Session]:
    session = Session(engine, tiny_model)
    yield session
    session.session.close()
    session.clicking.close()


def test_the_volume_is_open_before_the_first_click(one):
    one.begin()
    assert one.session.state
    one.wait_until_open()
    assert not one.told["failed"]


def test_a_click_changes_the_selected_segment_and_is_listed(one):
    one.begin()
    one.click(PLACES[0])
    (row,) = one.session.rows
    assert row.position == pytest.approx(one.clicking.world(PLACES[0]))
    assert (row.positive, row.outcome, row.settled) == (True, True, False)
    assert one.clicking.mask().any()
    latency_ms, engine_ms = one.told["answered"][-1]
    assert 0 < engine_ms <= latency_ms


def test_the_structure_is_that_of_the_segment_and_can_be_changed(one):
    session = one.begin()
    assert session.structure == TUMOR
    assert session.structure_name == catalogue()[TUMOR].display_name
    session.set_structure(None)
    assert session.structure_name is None
    one.click(PLACES[0])
    assert one.clicking.stored().structure is None


@pytest.mark.parametrize(("positive", "opposite"), [(True, False), (True, True), (False, False), (False, True)])
def test_control_turns_the_polarity_around(one, positive, opposite):
    one.begin()
    one.click(PLACES[0])
    one.session.set_positive(positive)
    one.click(PLACES[1], opposite)
    assert [row.positive for row in one.session.rows] == [True, positive is not opposite]
    assert one.told["polarity_changed"] == ([] if positive else [()])


def test_undo_takes_back_click_and_mask_and_the_points_follow(one):
    one.begin()
    one.click(PLACES[0])
    first = one.clicking.mask()
    one.click(PLACES[1])
    one.clicking.editor.Undo()
    assert len(one.session.rows) == 1
    assert np.array_equal(one.clicking.mask(), first)
    one.clicking.editor.Redo()
    assert len(one.session.rows) == 2


def test_what_clicks_did_is_known_after_undo_redo_and_a_look_at_another_segment(one):
    session, editor = one.begin(), one.clicking.editor
    for place in (PLACES[0], PLACES[1]):
        one.click(place)
    both = [row.outcome for row in session.rows]
    assert None not in both
    session.delete(1)
    one.clicking.settle()
    session.delete_all()
    one.clicking.settle()
    editor.Undo()
    assert [row.outcome for row in session.rows] == both[:1]
    editor.Undo()
    assert [row.outcome for row in session.rows] == both
    editor.Redo()
    assert [row.outcome for row in session.rows] == both[:1]
    editor.Undo()
    other = one.clicking.segmentation_node.GetSegmentation().AddEmptySegment("", "Segment_1")
    editor.SetCurrentSegmentID(other)
    one.click(PLACES[2])
    editor.SetCurrentSegmentID(one.clicking.segment_id)
    assert [row.outcome for row in session.rows] == both


def test_another_object_begins_with_what_belongs_to_it(one):
    session = one.begin()
    session.set_positive(False)
    session.set_structure(None)
    assert not session.positive
    added = one.clicking.segmentation_node.GetSegmentation().AddEmptySegment("", "Segment_1")
    assert not session.positive
    one.clicking.editor.SetCurrentSegmentID(added)
    assert session.positive
    assert one.told["polarity_changed"] == [(), ()]


def test_another_segment_has_clicks_of_its_own(one):
    session = one.begin()
    one.click(PLACES[0])
    other = one.clicking.segmentation_node.GetSegmentation().AddEmptySegment("", "Segment_1")
    one.clicking.editor.SetCurrentSegmentID(other)
    assert session.rows == []
    assert session.structure is None
    one.click(PLACES[1])
    one.clicking.editor.SetCurrentSegmentID(one.clicking.segment_id)
    assert [row.position for row in session.rows] == [pytest.approx(one.clicking.world(PLACES[0]))]


def test_what_is_clicked_follows_selection_and_name_at_once(one):
    session, segmentation = one.begin(), one.clicking.segmentation_node.GetSegmentation()
    entry = catalogue()["liver"].terminology_entry()
    shown: list[tuple] = []
    session.target_changed.connect(lambda: shown.append((session.structure, session.clicked_name)))
    liver, added = (segmentation.AddEmptySegment("", name) for name in ("Liver", "Segment_1"))
    for segment_id in (liver, added):
        segmentation.GetSegment(segment_id).SetTerminology(entry)
    one.clicking.editor.SetCurrentSegmentID(liver)
    assert shown[-1] == (catalogue()["liver"].index, "Liver")
    one.clicking.editor.SetCurrentSegmentID(added)
    assert shown[-1] == (None, "Segment_1")
    segmentation.GetSegment(added).SetName("Tumor")
    assert shown[-1] == (None, "Tumor")
    segmentation.GetSegment(added).SetName("spleen")
    assert shown[-1] == (catalogue()["spleen"].index, "Spleen")
    segmentation.GetSegment(added).SetName("Tumor")
    segmentation.RemoveSegment(liver)  # now nothing else has the terminology
    assert shown[-1] == (catalogue()["liver"].index, "Liver")
    count = len(shown)
    segmentation.GetSegment(added).SetColor(0.1, 0.2, 0.3)
    assert len(shown) == count


def test_rows_are_where_the_transformed_segmentation_shows_them(one):
    one.begin()
    one.click(PLACES[0])
    matrix = np.eye(4)
    matrix[:3, 3] = (5, -7, 11)
    transform = one.clicking.add_transform(matrix)
    for node in (one.clicking.volume_node, one.clicking.segmentation_node):
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert one.session.rows[0].position == pytest.approx(one.clicking.world(PLACES[0]))


def test_without_a_segment_a_sentence_tells_what_to_do(one):
    session = one.begin()
    one.clicking.editor.SetCurrentSegmentID("")
    assert "segment" in session.problem
    one.click(PLACES[0])
    assert len(one.told["failed"]) == 1
    one.clicking.editor.SetCurrentSegmentID(one.clicking.segment_id)
    assert session.problem is None


def test_a_segment_that_is_deleted_in_mid_run_ends_in_one_sentence(one):
    one.begin()
    one.wait_until_open()
    one.session.click(one.clicking.world(PLACES[0]))
    one.clicking.segmentation_node.GetSegmentation().RemoveSegment(one.clicking.segment_id)
    one.clicking.settle()
    one.loop.run_for(0.3)
    assert len(one.told["failed"]) == 1
    assert one.session.rows == []


def test_an_engine_that_is_killed_in_mid_click_is_told_once_and_that_the_click_was_lost(one):
    one.begin()
    one.click(PLACES[0])
    one.session.click(one.clicking.world(PLACES[1]))
    one.loop.run_until(lambda: one.session.state == "Computing…")
    one.engine.kill()
    one.clicking.settle()
    one.loop.run_for(0.3)
    ((sentence,),) = one.told["failed"]
    assert "engine process ended" in sentence
    assert "click was not applied" in sentence
    assert len(one.session.rows) == 1
    one.click(PLACES[1])
    assert len(one.told["failed"]) == 1
    assert len(one.session.rows) == 2


def test_an_engine_that_is_killed_while_the_volume_is_opened_is_told_once(one):
    one.clicking.volumes.forget(one.clicking.volume_node)
    one.engine.engine.start()
    one.loop.run_until(lambda: one.engine.engine.state == "ready")
    one.begin()
    one.engine.kill()
    one.loop.run_until(lambda: one.told["failed"])
    one.loop.run_for(0.3)
    ((sentence,),) = one.told["failed"]
    assert "engine process ended" in sentence


def test_an_engine_that_is_killed_between_clicks_is_told_once_and_until_the_next_click(one):
    one.begin()
    one.click(PLACES[0])
    one.engine.kill()
    one.loop.run_until(lambda: one.told["failed"])
    well = []
    one.session.succeeded.connect(lambda: well.append(1))
    one.loop.run_for(0.3)
    assert len(one.told["failed"]) == 1
    assert not well
    one.click(PLACES[1])
    assert well


def test_points_of_the_user_become_clicks(one):
    session = one.begin()
    one.click(PLACES[2])
    node = one.clicking.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    for place in PLACES[:2]:
        node.AddControlPoint(vtk.vtkVector3d(*one.clicking.world(place)))
    session.take_over(node, False)
    one.clicking.settle()
    assert [row.positive for row in session.rows] == [True, False, False]
    assert node.GetNumberOfControlPoints() == 2


def test_delete_and_flip_work_by_the_row(one):
    session = one.begin()
    for place in PLACES:
        one.click(place)
    session.flip(1)
    one.clicking.settle()
    session.delete(0)
    one.clicking.settle()
    assert [row.positive for row in session.rows] == [False, True]
    session.delete_all()
    one.clicking.settle()
    assert session.rows == []
    assert not one.clicking.mask().any()


def test_a_suggestion_is_marked_and_looked_at_and_the_next_click_removes_the_mark(one):
    session = one.begin()
    view = slicer.vtkMRMLSliceNode()
    view.SetLayoutName("Red")
    view = one.clicking.scene.AddNode(view)
    one.click(PLACES[0])
    before = one.clicking.node_classes()
    session.suggest()
    one.loop.run_until(lambda: one.told["suggested"] or one.told["failed"])
    place, _positive = one.told["suggested"][0]
    assert [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)] == pytest.approx(place)
    assert len(one.clicking.node_classes()) > len(before)
    one.click(PLACES[1])
    assert one.clicking.node_classes() == before


def test_unlocked_points_are_locked_again_for_the_next_time(one):
    session = one.begin()
    session.set_locked(False)
    one.click(PLACES[0])
    assert not session.locked
    session.end()
    one.begin()
    assert session.locked


def test_the_end_leaves_nothing_behind(one):
    segmentation, editor = one.clicking.segmentation_node, one.clicking.editor_node
    observed = [_observers(node) for node in (segmentation, editor)]
    for _ in range(3):
        one.begin()
        one.click(PLACES[0])
        one.session.suggest()
        one.session.end()
    assert one.clicking.node_classes() == one.nodes
    assert [_observers(node) for node in (segmentation, editor)] == observed
    assert not one.session.active
    assert one.session.rows == []


def test_clicks_come_back_with_the_effect(one):
    one.begin()
    one.click(PLACES[0])
    one.session.end()
    one.begin()
    assert len(one.session.rows) == 1
    one.click(PLACES[1])
    assert one.clicking.stored().settled == 0  # the mask from before the first click is still known


def test_closing_the_scene_ends_the_session_quietly(one):
    one.begin()
    one.wait_until_open()
    one.session.click(one.clicking.world(PLACES[0]))
    one.clicking.scene.Clear(False)
    one.loop.run_for(0.3)
    assert not one.session.active
    assert one.session.rows == []


def test_another_model_in_the_settings_is_used_from_then_on(one, tiny_model, tmp_path):
    session = one.begin()
    one.wait_until_open()
    copy = tmp_path / tiny_model.name
    copy.write_bytes(tiny_model.read_bytes())
    one.choice = Choice(str(copy), "cpu", catalogue())
    session.choice_changed()
    one.wait_until_open()
    one.click(PLACES[0])
    assert session.model == str(copy)
    assert one.session.rows[0].outcome


def test_on_the_processor_nothing_is_prepared_before_it_is_known_to_be_quick(one):
    session = one.begin()
    asked = []
    one.clicking.refinement.warm = asked.append
    session.warm(one.clicking.world(PLACES[0]))
    assert asked == []
    one.click(PLACES[0])
    session.warm(one.clicking.world(PLACES[1]))
    assert asked == [one.clicking.world(PLACES[1])]


def _observers(node: vtk.vtkObject) -> list[bool]:
    """Return for which of the events that the session listens to there are listeners."""
    segmentation = slicer.vtkSegmentation
    events = ("ModifiedEvent", segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
    return [bool(node.HasObserver(event)) for event in events]
