"""What a click takes from other segments comes back when the click goes, under all rules of the Segment Editor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import slicer
from clicked_helpers import OVERWRITE_MODES, SHAPE, Clicked, assert_same, block
from hypothesis import given, settings
from hypothesis import strategies as st
from mrml_scene import AFFINES

LIVER, SPLEEN = block((2, 10), (2, 12), (2, 9)), block((10, 18), (3, 12), (2, 9))
TUMOR = block((6, 12), (5, 9), (4, 7))  # overlaps both
OWN = block((8, 10), (12, 15), (3, 6))
FIRST, SECOND = block((5, 14), (4, 15), (3, 8)), block((8, 16), (8, 17), (3, 10))


def no_mask(_clicked: Clicked) -> None:
    """Editing is allowed everywhere."""


def inside_a_segment(clicked: Clicked) -> None:
    clicked.editor.node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    clicked.editor.node.SetMaskSegmentID("hidden")


def outside_visible_segments(clicked: Clicked) -> None:
    clicked.editor.node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideVisibleSegments)


def intensities(clicked: Clicked) -> None:
    clicked.editor.node.SetSourceVolumeIntensityMask(True)
    clicked.editor.node.SetSourceVolumeIntensityMaskRange(-200.0, 3000.0)


MASKINGS = (no_mask, inside_a_segment, outside_visible_segments, intensities)


@pytest.fixture(params=[True, False], ids=["shared", "apart"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Clicked]]:
    """Return what makes a scene with all kinds of neighbors, most of them in one labelmap, or each in its own."""
    made: list[Clicked] = []

    def one(**options: object) -> Clicked:
        apart = {"tumor": TUMOR, "hidden": block((7, 16), (6, 16), (2, 8))}
        exclusive = {"liver": LIVER, "spleen": SPLEEN}
        shared, apart = (exclusive, apart) if request.param else ({}, exclusive | apart)
        made.append(Clicked(shared, apart, OWN, **options))
        return made[-1]

    yield one
    for each in made:
        each.close()


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("mode", OVERWRITE_MODES)
def test_without_its_clicks_everything_is_as_before(make: Callable, mode: str, masking: Callable) -> None:
    clicked = make()
    clicked.overwrite(mode)
    masking(clicked)
    before = clicked.masks()
    clicked.answer(FIRST, OWN)
    after = clicked.masks()
    assert (after["own"] != OWN).any()
    if masking is not outside_visible_segments:
        assert (after["liver"] != before["liver"]).any() == (mode != "OverwriteNone")
        assert (after["hidden"] != before["hidden"]).any() == (mode == "OverwriteAllSegments")
    clicked.answer(SECOND, OWN)
    clicked.delete_all()
    assert_same(clicked.masks(), before)


@pytest.mark.parametrize("mode", OVERWRITE_MODES)
def test_a_changed_answer_is_as_if_it_had_been_so_from_the_start(make: Callable, mode: str) -> None:
    """Moving, flipping and deleting one click, and another object, are answers that replace the former one."""
    direct, changed = make(), make()
    for one in (direct, changed):
        one.overwrite(mode)
    direct.answer(SECOND, OWN)
    changed.answer(FIRST, OWN)
    changed.answer(SECOND, OWN)
    assert_same(changed.masks(), direct.masks())


def test_undo_and_redo_are_exact(make: Callable) -> None:
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    moments = [clicked.masks()]
    for step in (lambda: clicked.answer(FIRST, OWN), lambda: clicked.answer(SECOND, OWN), clicked.delete_all):
        step()
        moments.append(clicked.masks())
    for expected in moments[-2::-1]:
        clicked.editor.logic.Undo()
        assert_same(clicked.masks(), expected)
    clicked.editor.logic.Redo()
    assert_same(clicked.masks(), moments[1])
    clicked.delete_all()
    assert_same(clicked.masks(), moments[0])


@pytest.mark.parametrize("mode", OVERWRITE_MODES[1:])
def test_the_mode_of_the_click_counts_and_not_that_of_its_end(make: Callable, mode: str) -> None:
    clicked = make()
    clicked.overwrite(mode)
    before = clicked.masks()
    clicked.answer(FIRST, OWN)
    clicked.overwrite("OverwriteAllSegments")
    clicked.delete_all()
    assert_same(clicked.masks(), before)


@pytest.mark.parametrize("mode", OVERWRITE_MODES)
def test_what_goes_to_the_segment_that_masks_comes_back(make: Callable, mode: str) -> None:
    """What is erased inside of one segment goes to that segment: a rule of the Segment Editor."""
    clicked = make()
    clicked.overwrite(mode)
    clicked.editor.node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    clicked.editor.node.SetMaskSegmentID("liver")
    before = clicked.masks()
    clicked.answer(OWN & ~block((8, 9), (0, 18), (0, 14)), OWN)
    clicked.answer(LIVER, OWN)
    clicked.delete_all()
    assert_same(clicked.masks(), before)


@pytest.mark.parametrize("mode", OVERWRITE_MODES)
def test_a_part_that_comes_back_takes_nothing_from_those_that_held_it_as_well(make: Callable, mode: str) -> None:
    clicked = make()
    clicked.overwrite(mode)
    before = clicked.masks()
    assert (before["own"] & before["hidden"]).any()
    clicked.answer(np.zeros(SHAPE, dtype=bool), OWN)
    clicked.delete_all()
    assert_same(clicked.masks(), before)


# Nothing that somebody else did is undone


def test_a_voxel_that_came_to_another_segment_since_stays_there(make: Callable) -> None:
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    before = clicked.masks()
    clicked.answer(FIRST, OWN)
    clicked.overwrite("OverwriteNone")
    painted = block((4, 8), (5, 9), (4, 6))
    clicked.paint("spleen", painted)
    clicked.delete_all()
    after = clicked.masks()
    assert (before["liver"] & painted & FIRST).any()
    np.testing.assert_array_equal(after["liver"], before["liver"] & ~(painted & FIRST))
    np.testing.assert_array_equal(after["spleen"], before["spleen"] | painted)
    np.testing.assert_array_equal(after["own"], OWN)


def test_a_neighbor_that_was_corrected_elsewhere_keeps_its_correction(make: Callable) -> None:
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    before = clicked.masks()
    clicked.answer(FIRST, OWN)
    erased, painted = block((2, 4), (2, 12), (2, 9)), block((0, 2), (2, 12), (2, 9))
    clicked.paint("liver", erased, add=False)
    clicked.paint("liver", painted)
    clicked.delete_all()
    np.testing.assert_array_equal(clicked.masks()["liver"], (before["liver"] & ~erased) | painted)


def test_what_was_taken_from_a_deleted_neighbor_goes_nowhere(make: Callable) -> None:
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    before = clicked.masks()
    clicked.answer(FIRST, OWN)
    clicked.node.GetSegmentation().RemoveSegment("liver")
    clicked.delete_all()
    del before["liver"]
    assert_same(clicked.masks(), before)


def test_after_an_edit_of_the_segment_its_mask_is_the_base_and_nothing_comes_back(make: Callable) -> None:
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    clicked.answer(FIRST, OWN)
    clicked.paint("own", block((0, 1), (0, 1), (0, 1)))
    before = clicked.masks()
    clicked.delete_all()
    assert_same(clicked.masks(), before)


def test_clicks_on_a_neighbor_come_and_go_between(make: Callable) -> None:
    """The neighbor's clicks take from the segment; without them, its own clicks count as if nothing had been."""
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    before = clicked.masks()
    clicked.answer(FIRST, OWN)
    between, own = clicked.masks(), clicked.segment
    clicked.segment = clicked.clicked("liver")
    clicked.editor.logic.SetCurrentSegmentID("liver")
    clicked.answer(LIVER, between["liver"])
    clicked.delete_all()
    assert_same(clicked.masks(), between)
    clicked.segment = own
    clicked.editor.logic.SetCurrentSegmentID("own")
    clicked.delete_all()
    assert_same(clicked.masks(), before)


# All kinds

ends = st.tuples(st.integers(0, 13), st.integers(0, 13)).map(sorted).map(lambda pair: (pair[0], pair[1] + 1))
blocks = st.builds(block, ends, ends, ends)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(blocks, min_size=1, max_size=3),
    st.lists(blocks, max_size=3),
    blocks,
    st.lists(st.tuples(blocks, st.sampled_from(OVERWRITE_MODES)), min_size=1, max_size=3),
    st.sampled_from(list(AFFINES)),
)
def test_whatever_the_answers_were_their_end_brings_everything_back(
    exclusive: list, overlapping: list, own: np.ndarray, answers: list, affine: str
) -> None:
    taken, shared = own.copy(), {}
    for number, mask in enumerate(exclusive):
        shared[f"shared {number}"] = mask & ~taken
        taken |= mask
    apart = {f"apart {number}": mask for number, mask in enumerate(overlapping)}
    clicked = Clicked(shared, apart, own, AFFINES[affine])
    before = clicked.masks()
    for mask, mode in answers:
        clicked.overwrite(mode)
        clicked.answer(mask, own)
        np.testing.assert_array_equal(clicked.masks()["own"], mask)
    clicked.delete_all()
    assert_same(clicked.masks(), before)
    clicked.close()


def test_a_volume_of_another_geometry_is_clicked_in(make: Callable) -> None:
    """The segments keep their own voxels: what was taken comes back there exactly."""
    clicked = make()
    clicked.overwrite("OverwriteAllSegments")
    before = clicked.masks()
    reference = clicked.volume
    clicked.volume = clicked.app.add_volume(SHAPE, AFFINES["straight"])
    clicked.editor.node.SetAndObserveSourceVolumeNode(clicked.volume)
    clicked.segment = clicked.clicked("own")
    base = clicked.masks()["own"]
    clicked.answer(block((3, 15), (3, 15), (3, 10)), base)
    clicked.delete_all()
    clicked.volume = reference
    after = clicked.masks()
    for one in ("liver", "spleen", "tumor", "hidden"):
        lost = before[one] & ~after[one] & ~after["own"]
        assert not lost.any()
