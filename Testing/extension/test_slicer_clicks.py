"""The clicks of a segment: their text form, how they are edited, and the tag that holds them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import slicer
from hypothesis import given
from hypothesis import strategies as st
from refinement_helpers import Scene

from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.clicks import (
    EDITED,
    LOST,
    MAX_CLICKS,
    OLDER,
    TAG,
    TOO_LARGE,
    ClickList,
    Edit,
    StoredClick,
    read_clicks,
    store_clicks,
)

numbers = st.floats(-5000, 5000, allow_nan=False)
clicks = st.builds(StoredClick, st.tuples(numbers, numbers, numbers), st.booleans())
ranges = st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda ends: tuple(sorted(ends)))


@st.composite
def click_lists(draw: st.DrawFn) -> ClickList:
    found = tuple(draw(st.lists(clicks, max_size=6)))
    return ClickList(
        found,
        draw(st.none() | st.integers(0, 400)),
        draw(st.text(max_size=12)),
        draw(st.integers(0, len(found))),
        draw(st.text(max_size=12)),
        draw(st.text(max_size=12)),
        draw(st.booleans()),
        draw(st.none() | st.tuples(ranges, ranges, ranges)),
        draw(st.text(max_size=12)),
        draw(st.sampled_from(["", EDITED, OLDER, TOO_LARGE, LOST])),
        tuple(draw(st.lists(st.sampled_from([True, False, None]), max_size=len(found)))),
    )


@given(click_lists())
def test_a_click_list_reads_back_as_it_was_written(click_list: ClickList) -> None:
    text = click_list.to_json()
    assert "|" not in text  # it would end the tag in a .seg.nrrd
    assert ClickList.from_json(text) == click_list


GOOD = json.loads(ClickList((StoredClick((1.0, 2.0, 3.0)),), 1, "vista3d-ct", 0, "a", "b", False).to_json())


@pytest.mark.parametrize(
    "change",
    [
        {"clicks": None},
        {"clicks": [[1, 2, 3]]},
        {"clicks": [[1, 2, "x", 1]]},
        {"clicks": [[1, 2, 1e999, 1]]},
        {"clicks": [[1, 2, 3, 1]] * (MAX_CLICKS + 1)},
        {"settled": 2},
        {"settled": -1},
        {"settled": True},
        {"structure": "liver"},
        {"structure": -3},
        {"label_set": 4},
        {"base": None},
        {"box": [[0, 1], [0, 1]]},
        {"box": [[3, 1], [0, 1], [0, 1]]},
        {"box": "box"},
    ],
)
def test_a_damaged_list_is_refused_with_one_sentence(change: dict) -> None:
    with pytest.raises(InputError, match=r"^The clicks stored with the segment are damaged; [^.]*\.$"):
        ClickList.from_json(json.dumps(GOOD | change))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "[" * 100_000, '{"clicks": []}'])
def test_text_that_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        ClickList.from_json(text)


@given(st.text())
def test_any_text_is_a_list_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        ClickList.from_json(text)


def test_a_list_of_a_later_version_says_so() -> None:
    with pytest.raises(InputError, match="later version of VISTA3D; update"):
        ClickList.from_json(json.dumps(GOOD | {"version": 3}))


@pytest.mark.parametrize("version", [1, None])
def test_clicks_of_an_older_version_are_settled_and_their_base_is_not_asked_for(version: int | None) -> None:
    """Its masks were computed by another rule: what is stored stays as it is."""
    text = json.dumps(GOOD | {"version": version, "box": [[0, 1], [0, 1], [0, 1]]})
    found = ClickList.from_json(text)
    assert [list(click.position) for click in found.clicks] == [[1.0, 2.0, 3.0]]
    assert (found.structure, found.settled, found.reason) == (1, 1, OLDER)
    assert (found.base, found.mask, found.box) == ("", "", None)


@pytest.mark.parametrize("position", [(1.0, 2.0), (1.0, 2.0, float("nan")), (1.0, 2.0, float("inf")), "abc"])
def test_a_click_needs_a_place(position: tuple) -> None:
    with pytest.raises(InputError, match="three finite numbers"):
        StoredClick(position)


# Edits

A, B, C, D = (StoredClick((float(number), 0.0, 0.0)) for number in range(4))


def test_edits_keep_order_and_name_clicks_by_what_they_are() -> None:
    three = ClickList((A, B, C))
    assert three.apply(Edit(added=(D,))).clicks == (A, B, C, D)
    assert three.apply(Edit(replaced=((B, None),))).clicks == (A, C)
    assert three.apply(Edit(replaced=((B, D),))).clicks == (A, D, C)
    assert three.apply(Edit(replaced=((B, B.flipped()),))).clicks == (A, B.flipped(), C)
    assert three.apply(Edit(replaced=((D, A),), added=(D,))).clicks == (A, B, C, D)  # D was not there to be replaced


def test_of_equal_clicks_one_is_changed() -> None:
    assert ClickList((A, A, B)).apply(Edit(replaced=((A, None),))).clicks == (A, B)
    assert ClickList((A, A)).apply(Edit(replaced=((A, None), (A, None)))).clicks == ()


def test_settled_clicks_stay_settled_unless_they_are_changed() -> None:
    half = ClickList((A, B, C), settled=2)
    assert half.apply(Edit(added=(D,))).settled == 2
    deleted = half.apply(Edit(replaced=((A, None),)))
    assert (deleted.clicks, deleted.settled) == ((B, C), 1)
    moved = half.apply(Edit(replaced=((A, D),)))
    assert (moved.clicks, moved.settled) == ((B, C, D), 1)
    late = half.apply(Edit(replaced=((C, D),)))
    assert (late.clicks, late.settled) == ((A, B, D), 2)


@given(click_lists(), st.data())
def test_no_edit_makes_a_list_inconsistent(click_list: ClickList, data: st.DataObject) -> None:
    pool = st.sampled_from(click_list.clicks) | clicks if click_list else clicks
    edit = Edit(
        tuple(data.draw(st.lists(st.tuples(pool, st.none() | clicks), max_size=4))),
        tuple(data.draw(st.lists(clicks, max_size=3))),
    )
    changed = click_list.apply(edit)
    assert 0 <= changed.settled <= len(changed.clicks)
    settled = iter(click_list.clicks[: click_list.settled])
    assert all(click in settled for click in changed.clicks[: changed.settled])  # in their order
    known = list(zip(changed.clicks, changed.touched, strict=False))
    assert known == list(zip(click_list.clicks, click_list.touched, strict=False))[: len(known)]
    assert ClickList.from_json(changed.to_json()) == changed


def test_more_clicks_than_anybody_places_are_refused() -> None:
    full = ClickList((A,) * MAX_CLICKS)
    with pytest.raises(InputError, match="at most 1000 clicks"):
        full.apply(Edit(added=(B,)))


# The tag


@pytest.fixture
def segment() -> Iterator[tuple[slicer.vtkMRMLSegmentationNode, str]]:
    world = Scene()
    node = world.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    yield node, node.GetSegmentation().AddEmptySegment("liver")
    world.scene.Clear(False)


def test_a_segment_keeps_its_clicks_in_a_tag(segment: tuple[slicer.vtkMRMLSegmentationNode, str]) -> None:
    stored = ClickList((A, B.flipped()), 1, "vista3d-ct", 1, "f-0", "f-1", False, ((0, 1), (2, 3), (4, 9)))
    assert read_clicks(*segment) == ClickList()
    store_clicks(*segment, stored)
    assert read_clicks(*segment) == stored
    store_clicks(*segment, replace(stored, clicks=(), settled=0))
    assert read_clicks(*segment) == ClickList()
    assert not segment[0].GetSegmentation().GetSegment("liver").HasTag(TAG)


def test_a_damaged_tag_raises(segment: tuple[slicer.vtkMRMLSegmentationNode, str]) -> None:
    segment[0].GetSegmentation().GetSegment("liver").SetTag(TAG, "{broken")
    with pytest.raises(InputError, match="damaged"):
        read_clicks(*segment)
