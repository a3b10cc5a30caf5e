"""Undo and redo of clicks: mask, click list and control points go together, in Slicer's own undo states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_helpers import EngineUnderTest, running_engine
from refinement_helpers import TUMOR, Clicking, as_clicks

PLACES = ((5, 11, 15), (14, 13, 4), (20, 16, 19), (10, 18, 22))
BLOCK = ((8, 14), (10, 20), (6, 16))
CORNER = ((36, 39), (36, 39), (28, 31))


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def clicking(engine: EngineUnderTest, tiny_model: Path) -> Iterator[Clicking]:
    one = Clicking(engine, tiny_model)
    one.mirror.show()
    yield one
    one.close()


def moment(clicking: Clicking) -> tuple:
    """Return everything that undo must bring back."""
    return clicking.mask().tobytes(), clicking.stored(), clicking.shown(), clicking.refinement.click_list.clicks


def assert_shows_what_is_stored(clicking: Clicking) -> None:
    stored = clicking.stored()
    assert clicking.refinement.click_list.clicks == stored.clicks
    world = [(click.position, click.positive) for click in clicking.refinement.segment.world_clicks(stored)]
    assert rounded(clicking.shown()) == rounded(world)


def rounded(points: list[tuple]) -> list[tuple]:
    return sorted((tuple(np.round(position, 4).tolist()), positive) for position, positive in points)


def test_click_undo_redo(clicking: Clicking) -> None:
    before = moment(clicking)
    clicking.click(PLACES[0])
    after = moment(clicking)
    assert before != after
    assert clicking.shown() == [(pytest.approx(clicking.world(PLACES[0])), True)]
    clicking.editor.Undo()
    assert moment(clicking) == before
    clicking.editor.Redo()
    assert moment(clicking) == after
    assert clicking.sentences == []


def test_several_clicks_undone_and_redone_one_by_one(clicking: Clicking) -> None:
    moments = [moment(clicking)]
    for number, place in enumerate(PLACES):
        clicking.click(place, positive=number != 2)
        moments.append(moment(clicking))
        assert_shows_what_is_stored(clicking)
    for expected in moments[-2::-1]:
        clicking.editor.Undo()
        assert moment(clicking) == expected
        assert_shows_what_is_stored(clicking)
    assert not clicking.editor.CanUndo()
    for expected in moments[1:]:
        clicking.editor.Redo()
        assert moment(clicking) == expected
    assert not clicking.editor.CanRedo()


def test_every_kind_of_change_is_one_undo_step(clicking: Clicking) -> None:
    refinement = clicking.refinement
    clicking.paint(BLOCK)
    for place in PLACES[:3]:
        clicking.click(place)
    steps = (
        lambda: refinement.move(0, clicking.world(PLACES[3])),
        lambda: refinement.flip(1),
        lambda: refinement.delete(2),
        lambda: refinement.set_structure(None),
        refinement.delete_all,
    )
    moments = [moment(clicking)]
    for step in steps:
        step()
        clicking.settle()
        moments.append(moment(clicking))
    assert clicking.sentences == []
    assert clicking.shown() == []
    for expected in moments[-2::-1]:
        clicking.editor.Undo()
        assert moment(clicking) == expected
        assert_shows_what_is_stored(clicking)


def test_a_click_after_an_undo_is_as_if_the_undone_one_had_never_been(clicking: Clicking) -> None:
    clicking.paint(BLOCK)
    base = clicking.mask()
    clicking.click(PLACES[0])
    clicking.click(PLACES[1])
    clicking.editor.Undo()
    clicking.click(PLACES[2])
    stored = clicking.stored()
    assert (len(stored.clicks), stored.settled) == (2, 0)
    expected = clicking.session().click(TUMOR, as_clicks(stored), base)
    np.testing.assert_array_equal(clicking.mask(), expected.mask)
    assert not clicking.editor.CanRedo()


def test_undo_across_a_hand_edit_brings_the_former_base_back(clicking: Clicking) -> None:
    clicking.paint(BLOCK)
    base = clicking.mask()
    clicking.click(PLACES[0])
    clicking.paint(CORNER)
    clicking.click(PLACES[1])
    assert clicking.stored().settled == 1
    clicking.editor.Undo()
    clicking.editor.Undo()
    assert clicking.stored().settled == 0
    clicking.click(PLACES[2])
    stored = clicking.stored()
    assert stored.settled == 0
    np.testing.assert_array_equal(clicking.mask(), clicking.session().click(TUMOR, as_clicks(stored), base).mask)


def test_undo_of_the_hand_edit_alone_is_no_edit(clicking: Clicking) -> None:
    clicking.click(PLACES[0])
    clicking.paint(CORNER)
    clicking.editor.Undo()
    clicking.click(PLACES[1])
    assert clicking.stored().settled == 0


def test_an_edit_while_the_engine_computes_is_kept_and_the_click_asked_again(clicking: Clicking) -> None:
    clicking.click(PLACES[0])
    clicking.refinement.add(clicking.world(PLACES[2]))
    clicking.loop.run_once(0.01)
    clicking.paint(CORNER)
    edited = clicking.mask()
    clicking.settle()
    stored = clicking.stored()
    assert (len(stored.clicks), stored.settled) == (2, 1)
    expected = clicking.session().click(TUMOR, as_clicks(stored), edited, settled=1)
    np.testing.assert_array_equal(clicking.mask(), expected.mask)
    assert clicking.sentences == []


def test_an_undo_while_the_engine_computes_leaves_the_last_click_alone(clicking: Clicking) -> None:
    clicking.click(PLACES[0])
    clicking.refinement.add(clicking.world(PLACES[2]))
    clicking.editor.Undo()
    clicking.settle()
    stored = clicking.stored()
    assert [click.position for click in stored.clicks] == [clicking.world(PLACES[2])]
    np.testing.assert_array_equal(clicking.mask(), clicking.session().click(TUMOR, as_clicks(stored)).mask)
    assert_shows_what_is_stored(clicking)


def test_undoing_the_segment_itself_ends_in_one_sentence(clicking: Clicking) -> None:
    clicking.editor.SaveStateForUndo()
    added = clicking.segmentation_node.GetSegmentation().AddEmptySegment("late", "liver")
    clicking.choose(added)
    clicking.refinement.add(clicking.world(PLACES[0]))
    clicking.editor.Undo()
    clicking.loop.run_for(0.5)
    assert not clicking.refinement.busy
    assert clicking.sentences == ["The segment was deleted; choose another one."]
    assert clicking.shown() == []


def test_redo_after_selecting_another_segment_shows_when_it_is_chosen_again(clicking: Clicking) -> None:
    other = clicking.segmentation_node.GetSegmentation().AddEmptySegment("other", "liver")
    clicking.click(PLACES[0])
    clicking.editor.Undo()
    clicking.choose(other)
    clicking.editor.Redo()
    assert clicking.refinement.click_list.clicks == ()
    assert clicking.refinement.structure == 1
    clicking.choose("tumor")
    assert len(clicking.shown()) == 1


# Control points


def test_a_dragged_point_moves_its_click_in_one_step(clicking: Clicking) -> None:
    clicking.click(PLACES[0])
    clicking.click(PLACES[1], positive=False)
    clicking.mirror.set_locked(False)
    node = clicking.mirror.markups.nodes[0]
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    for ijk in ((6, 11, 15), (9, 14, 20), PLACES[3]):
        node.SetNthControlPointPositionWorld(0, *clicking.world(ijk))
    assert not clicking.refinement.busy
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)
    assert clicking.refinement.busy
    clicking.settle()
    assert [click.position for click in clicking.stored().clicks] == [
        clicking.world(PLACES[3]),
        clicking.world(PLACES[1]),
    ]
    assert len(clicking.answers) == 3
    clicking.editor.Undo()
    assert tuple(node.GetNthControlPointPositionWorld(0)) == pytest.approx(clicking.world(PLACES[0]))


def test_deleted_and_added_points_are_deleted_and_added_clicks(clicking: Clicking) -> None:
    clicking.click(PLACES[0])
    clicking.click(PLACES[1])
    positive, negative = clicking.mirror.markups.nodes
    positive.RemoveNthControlPoint(0)
    clicking.settle()
    assert [click.position for click in clicking.stored().clicks] == [clicking.world(PLACES[1])]
    negative.AddControlPointWorld(clicking.world(PLACES[2]))
    clicking.settle()
    assert [click.positive for click in clicking.stored().clicks] == [True, False]
    before = len(clicking.answers)
    was = positive.StartModify()
    for place in (PLACES[3], (21, 9, 12)):
        positive.AddControlPointWorld(clicking.world(place))
    positive.EndModify(was)
    clicking.settle()
    assert len(clicking.answers) == before + 1
    positive.RemoveAllControlPoints()
    clicking.settle()
    assert [click.positive for click in clicking.stored().clicks] == [False]
    assert_shows_what_is_stored(clicking)


def test_a_point_dragged_out_of_the_volume_goes_back(clicking: Clicking) -> None:
    clicking.click(PLACES[0])
    before = moment(clicking)
    clicking.mirror.markups.nodes[0].SetNthControlPointPositionWorld(0, 9e4, 0.0, 0.0)
    clicking.settle()
    assert moment(clicking) == before
    assert len(clicking.sentences) == 1
