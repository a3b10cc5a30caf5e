"""Control points that mirror clicks: what is made, told and left behind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import slicer
import vtk
from hypothesis import given
from hypothesis import strategies as st
from refinement_helpers import Scene, plain_affine, rotation

from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.clicks import ClickList, Edit, StoredClick
from VISTA3DSegmentLib.mrml.markups import NEGATIVE_COLOR, POSITIVE_COLOR, ClickMarkups, positions_of

A, B, C = (StoredClick((float(number), 2.0, -3.0)) for number in range(3))
N = StoredClick((7.0, 8.0, 9.0), positive=False)


@pytest.fixture
def world() -> Scene:
    return Scene()


@pytest.fixture
def edits() -> list[Edit]:
    return []


@pytest.fixture
def markups(world: Scene, edits: list[Edit]) -> Iterator[ClickMarkups]:
    segmentation = world.add_segmentation(world.add_ct(plain_affine()))
    one = ClickMarkups(world.scene, segmentation, edits.append)
    yield one
    one.close()


def points(markups: ClickMarkups) -> list[list[tuple]]:
    return [
        [tuple(node.GetNthControlPointPosition(number)) for number in range(node.GetNumberOfControlPoints())]
        for node in markups.nodes
    ]


def test_nodes_exist_only_while_clicks_are_shown(world: Scene, markups: ClickMarkups, edits: list[Edit]) -> None:
    before = world.scene.GetNumberOfNodes()
    assert markups.nodes == ()
    markups.show(ClickList((A, N, B)))
    assert points(markups) == [[A.position, B.position], [N.position]]
    markups.clear()
    assert world.scene.GetNumberOfNodes() == before
    markups.show(ClickList((C,)))
    assert points(markups) == [[C.position], []]
    markups.close()
    assert world.scene.GetNumberOfNodes() == before
    assert edits == []


def test_points_are_colored_locked_hidden_from_lists_and_not_saved(markups: ClickMarkups) -> None:
    markups.show(ClickList((A, N)))
    for node, color in zip(markups.nodes, (POSITIVE_COLOR, NEGATIVE_COLOR), strict=True):
        display = node.GetDisplayNode()
        assert display.GetSelectedColor() == display.GetColor() == color
        assert node.GetLocked()
        assert node.GetHideFromEditors()
        assert not node.GetSaveWithScene()
        assert not display.GetSaveWithScene()
        assert not display.GetPointLabelsVisibility()
    markups.unlock()
    assert not any(node.GetLocked() for node in markups.nodes)
    markups.clear()
    markups.show(ClickList((A,)))
    assert not markups.locked
    assert not any(node.GetLocked() for node in markups.nodes)


def test_the_list_into_which_the_user_places_points_stays(world: Scene, markups: ClickMarkups) -> None:
    selection = world.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")

    def active() -> tuple:
        return selection.GetActivePlaceNodeID(), selection.GetActivePlaceNodeClassName()

    none = active()
    markups.show(ClickList((A,)))
    assert active() == none
    markups.clear()
    own = world.scene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "L")
    markups.show(ClickList((A, N)))
    assert active() == (own.GetID(), "vtkMRMLMarkupsLineNode")


positions = st.tuples(*3 * [st.floats(-500, 500)])
lists = st.lists(st.builds(StoredClick, positions, st.booleans()), max_size=8)


@given(st.lists(lists, min_size=1, max_size=5))
def test_whatever_was_shown_before_the_points_are_the_clicks(shown: list[list[StoredClick]]) -> None:
    world = Scene()
    edits: list[Edit] = []
    markups = ClickMarkups(world.scene, world.add_segmentation(world.add_ct(plain_affine())), edits.append)
    for clicks in shown:
        markups.show(ClickList(tuple(clicks)))
        for found, positive in zip(points(markups), (True, False), strict=True):
            expected = [click.position for click in clicks if click.positive is positive]
            np.testing.assert_allclose(np.reshape(found, (-1, 3)), np.reshape(expected, (-1, 3)), atol=1e-4)
    assert edits == []
    markups.close()


def test_showing_the_same_again_touches_nothing(markups: ClickMarkups) -> None:
    markups.show(ClickList((A, B, N)))
    times = [node.GetMTime() for node in markups.nodes]
    markups.show(ClickList((A, B, N)))
    assert [node.GetMTime() for node in markups.nodes] == times


def test_points_follow_the_transforms_of_the_segmentation(world: Scene, markups: ClickMarkups) -> None:
    segmentation = markups._segmentation_node
    markups.show(ClickList((A,)))
    outer, inner = world.add_transform(rotation((0, 0, 90))), world.add_transform(rotation((90, 0, 0)))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    segmentation.SetAndObserveTransformNodeID(inner.GetID())
    node = markups.nodes[0]
    expected = (rotation((0, 0, 90)) @ rotation((90, 0, 0)) @ [*A.position, 1.0])[:3]
    assert node.GetNthControlPointPositionWorld(0) == pytest.approx(expected)
    assert tuple(node.GetNthControlPointPosition(0)) == A.position
    segmentation.SetAndObserveTransformNodeID(None)
    assert node.GetNthControlPointPositionWorld(0) == pytest.approx(A.position)


def test_what_the_user_does_is_told_as_one_edit(markups: ClickMarkups, edits: list[Edit]) -> None:
    shown = ClickList((A, B, C, N))

    def told() -> Edit:
        (edit,) = edits
        edits.clear()
        return edit

    markups.show(shown)
    positive, negative = markups.nodes
    positive.SetNthControlPointPosition(1, 5.0, 5.0, 5.0)
    assert told() == Edit(replaced=((B, StoredClick((5.0, 5.0, 5.0))),))
    assert points(markups)[0][1] == B.position  # nobody took it, so it is as before
    negative.RemoveNthControlPoint(0)
    assert told() == Edit(replaced=((N, None),))
    assert points(markups)[1] == [N.position]
    positive, negative = markups.nodes
    negative.AddControlPoint(vtk.vtkVector3d(1.0, 1.0, 1.0))
    assert told() == Edit(added=(StoredClick((1.0, 1.0, 1.0), positive=False),))
    was = positive.StartModify()
    positive.RemoveNthControlPoint(0)
    positive.SetNthControlPointPosition(0, 6.0, 6.0, 6.0)
    positive.AddControlPoint(vtk.vtkVector3d(4.0, 4.0, 4.0))
    positive.EndModify(was)
    moved, added = StoredClick((6.0, 6.0, 6.0)), StoredClick((4.0, 4.0, 4.0))
    assert told() == Edit(replaced=((A, None), (B, moved)), added=(added,))


def test_a_drag_is_told_when_it_ends_and_is_not_disturbed(markups: ClickMarkups, edits: list[Edit]) -> None:
    markups.show(ClickList((A, B)))
    node = markups.nodes[0]
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    node.SetNthControlPointPosition(0, 1.0, 1.0, 1.0)
    markups.show(ClickList((A, B, C)))  # an answer arrives
    assert tuple(node.GetNthControlPointPosition(0)) == (1.0, 1.0, 1.0)
    node.SetNthControlPointPosition(0, 9.0, 9.0, 9.0)
    assert edits == []
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)
    assert edits == [Edit(replaced=((A, StoredClick((9.0, 9.0, 9.0))),))]
    assert points(markups)[0] == [A.position, B.position, C.position]


def test_a_drag_that_moves_nothing_is_no_edit(markups: ClickMarkups, edits: list[Edit]) -> None:
    markups.show(ClickList((A,)))
    node = markups.nodes[0]
    node.InvokeCustomModifiedEvent(node.PointStartInteractionEvent)
    markups.show(ClickList((A, B)))
    node.InvokeCustomModifiedEvent(node.PointEndInteractionEvent)
    assert edits == []
    assert points(markups)[0] == [A.position, B.position]


def test_a_preview_point_is_no_click(markups: ClickMarkups, edits: list[Edit]) -> None:
    markups.show(ClickList((A,)))
    node = markups.nodes[0]
    number = node.AddControlPoint(vtk.vtkVector3d(1.0, 1.0, 1.0))
    edits.clear()
    node.UnsetNthControlPointPosition(number)
    markups.show(ClickList((A,)))
    assert points(markups) == [[A.position], []]
    assert edits == []


def test_nodes_that_somebody_removed_are_made_again(world: Scene, markups: ClickMarkups, edits: list[Edit]) -> None:
    markups.show(ClickList((A,)))
    for node in markups.nodes:
        world.scene.RemoveNode(node)
    markups.show(ClickList((A, B)))
    assert points(markups) == [[A.position, B.position], []]
    assert all(node.GetScene() is world.scene for node in markups.nodes)
    assert edits == []


def test_closing_the_scene_leaves_no_observer_that_fails(
    world: Scene, markups: ClickMarkups, capfd: pytest.CaptureFixture[str]
) -> None:
    markups.show(ClickList((A,)))
    world.scene.Clear(False)
    markups.close()
    assert "Traceback" not in capfd.readouterr().err


# Points of the user


def test_points_of_the_user_are_read_in_world_coordinates(world: Scene) -> None:
    node = world.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    for number in range(4):
        node.AddControlPoint(vtk.vtkVector3d(float(number), 0.0, 0.0))
    node.SetNthControlPointSelected(1, False)
    node.UnsetNthControlPointPosition(2)
    node.SetAndObserveTransformNodeID(world.add_transform(rotation((0, 0, 90))).GetID())
    assert np.allclose(positions_of(node), [(0.0, 0.0, 0.0), (0.0, 3.0, 0.0)])


def test_a_list_without_points_says_so(world: Scene) -> None:
    node: slicer.vtkMRMLMarkupsFiducialNode = world.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    with pytest.raises(InputError, match="'F' has no selected point; place one first"):
        positions_of(node)
