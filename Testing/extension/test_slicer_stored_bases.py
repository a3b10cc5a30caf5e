"""Masks from before clicks travel with the scene: a loaded scene is as if it had never been closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
from clicked_helpers import SHAPE, Clicked, assert_same, block
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from mrml_scene import Application

from VISTA3DSegmentLib.logic.click_rows import rows_of
from VISTA3DSegmentLib.mrml.boxes import box_of, slices
from VISTA3DSegmentLib.mrml.clicks import EDITED, LOST, OLDER, TOO_LARGE
from VISTA3DSegmentLib.mrml.clicks import TAG as CLICKS_TAG
from VISTA3DSegmentLib.mrml.neighbors import Exchange, Voxels
from VISTA3DSegmentLib.mrml.stored_bases import (
    MAX_TOGETHER,
    TAG,
    StoredBase,
    TooLargeError,
    name_of,
    read_base,
    store_base,
)
from VISTA3DSegmentLib.mrml.tags import get_tag

LIVER, TUMOR = block((2, 12), (2, 12), (2, 9)), block((10, 16), (5, 14), (4, 7))
OWN = block((8, 12), (13, 16), (3, 6))
FIRST, SECOND = block((5, 14), (4, 16), (3, 8)), block((8, 17), (8, 17), (3, 10))
masks = npst.arrays(bool, SHAPE, elements=st.booleans())


@pytest.fixture
def clicked() -> Iterator[Clicked]:
    """Return a segment with clicks that took from its neighbors."""
    one = Clicked({"liver": LIVER}, {"tumor": TUMOR}, OWN)
    one.overwrite("OverwriteAllSegments")
    one.before = one.masks()
    for mask in (FIRST, SECOND):
        one.answer(mask, OWN)
    yield one
    one.close()


def save_and_load(clicked: Clicked, folder: Path) -> None:
    """Put the segmentation into a file, and read it into an empty one of the same scene."""
    path = str(folder / "saved.seg.nrrd")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(path)
    assert storage.WriteData(clicked.node)
    clicked.app.scene.RemoveNode(clicked.node)
    clicked.node = clicked.app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    clicked.node.CreateDefaultDisplayNodes()
    assert storage.ReadData(clicked.node)
    clicked.editor.node.SetAndObserveSegmentationNode(clicked.node)
    clicked.editor.node.SetSelectedSegmentID("own")
    clicked.segment = clicked.clicked("own")


def test_a_loaded_file_takes_clicks_back_as_if_it_had_never_been_closed(clicked: Clicked, tmp_path: Path) -> None:
    after = clicked.masks()
    save_and_load(clicked, tmp_path)
    assert_same(clicked.masks(), after)
    assert clicked.segment.rebased().settled == 0
    clicked.answer(FIRST, OWN)
    np.testing.assert_array_equal(clicked.masks()["own"], FIRST)
    clicked.delete_all()
    assert_same(clicked.masks(), clicked.before)


def test_a_loaded_scene_takes_clicks_back_as_if_it_had_never_been_closed(clicked: Clicked, tmp_path: Path) -> None:
    bundle = clicked.app.save(tmp_path)
    clicked.close()
    clicked.app = Application()
    clicked.app.load(bundle)
    clicked.node = clicked.app.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    clicked.volume = clicked.app.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    clicked.editor = clicked.app.editor(clicked.node, clicked.volume, "own")
    clicked.segment = clicked.clicked("own")
    assert [row.settled for row in rows_of(clicked.segment, clicked.segment.clicks())] == [False, False]
    clicked.delete_all()
    assert_same(clicked.masks(), clicked.before)


def test_without_clicks_nothing_is_stored(clicked: Clicked) -> None:
    assert get_tag(clicked.node, "own", TAG) is not None
    clicked.delete_all()
    assert get_tag(clicked.node, "own", TAG) is None
    clicked.editor.logic.Undo()
    assert read_base(clicked.node, "own") is not None


def noise(clicked: Clicked) -> StoredBase:
    """Return a base that does not become smaller: 150 kB, of which one fits."""
    voxels = np.random.default_rng(0).random((100, 100, 90)) < 0.5
    return StoredBase("base", ((0, 100), (0, 100), (0, 90)), voxels)


def test_a_base_that_is_too_large_is_not_stored_and_says_so(clicked: Clicked) -> None:
    store_base(clicked.node, "liver", noise(clicked))
    assert read_base(clicked.node, "liver") is not None
    store_base(clicked.node, "tumor", noise(clicked))
    with pytest.raises(TooLargeError, match="too large to be stored"):
        read_base(clicked.node, "tumor")
    ids = clicked.node.GetSegmentation().GetSegmentIDs()
    assert sum(len(get_tag(clicked.node, one, TAG) or "") for one in ids) <= MAX_TOGETHER
    store_base(clicked.node, "liver", None)
    store_base(clicked.node, "tumor", noise(clicked))
    assert read_base(clicked.node, "tumor") is not None


def test_large_tags_survive_a_file(clicked: Clicked, tmp_path: Path) -> None:
    store_base(clicked.node, "liver", noise(clicked))
    text = get_tag(clicked.node, "liver", TAG)
    assert len(text) > MAX_TOGETHER / 2
    save_and_load(clicked, tmp_path)
    assert get_tag(clicked.node, "liver", TAG) == text


REASONS = {
    EDITED: "Something else has changed the segment after this click",
    OLDER: "An older version of VISTA3D",
    TOO_LARGE: "too large to be stored with the scene (more than 256 kB)",
    LOST: "no longer known",
}


def assert_settled(clicked: Clicked, reason: str) -> None:
    """Check that all clicks only tell what is meant, and why; the next one changes what is there now."""
    present = clicked.masks()
    found = clicked.segment.rebased()
    assert (found.settled, found.reason) == (2, reason)
    for row in rows_of(clicked.segment, found):
        assert row.settled
        assert REASONS[reason] in row.reason[1]
        assert "another tool" not in row.reason[1] or reason == EDITED
    assert_same(clicked.masks(), present)
    clicked.answer(FIRST, present["own"])
    np.testing.assert_array_equal(clicked.masks()["own"], FIRST)
    found = clicked.segment.rebased()
    assert (len(found.clicks), found.settled, found.reason) == (3, 2, reason)


def test_what_was_too_large_is_the_reason_why_clicks_are_settled(clicked: Clicked, tmp_path: Path) -> None:
    store_base(clicked.node, "liver", noise(clicked))
    store_base(clicked.node, "own", noise(clicked))
    save_and_load(clicked, tmp_path)
    rows = rows_of(clicked.segment, clicked.segment.clicks())  # before anything is clicked
    assert all(REASONS[TOO_LARGE] in row.reason[1] for row in rows)
    assert_settled(clicked, TOO_LARGE)


def test_a_mask_that_was_changed_before_it_was_saved_is_the_base(clicked: Clicked, tmp_path: Path) -> None:
    clicked.paint("own", block((0, 2), (0, 2), (0, 2)))
    save_and_load(clicked, tmp_path)
    assert_settled(clicked, EDITED)


def test_a_list_of_an_older_version_keeps_the_loaded_mask(clicked: Clicked, tmp_path: Path) -> None:
    segment = clicked.node.GetSegmentation().GetSegment("own")
    content = json.loads(get_tag(clicked.node, "own", CLICKS_TAG))
    for name in ("exchange", "reason", "touched"):
        del content[name]
    segment.SetTag(CLICKS_TAG, json.dumps(content | {"version": 1}))
    segment.RemoveTag(TAG)
    after = clicked.masks()
    save_and_load(clicked, tmp_path)
    assert_same(clicked.masks(), after)
    assert_settled(clicked, OLDER)


@pytest.mark.parametrize(
    "change",
    [
        {"voxels": "!"}, {"voxels": ""}, {"box": [[0, 900], [0, 900], [0, 900]]}, {"box": [[0, 1]]}, {"box": "x"},
        {"box": None}, {"base": 7}, {"taken": []}, {"taken": {"liver": {}}}, {"version": 9}, {"taken": {}},
        {"box": [[0, 1 << 40], [0, 1 << 40], [0, 1 << 40]]}, {"box": [[-5, 4], [0, 9], [0, 9]]},
    ],
)  # fmt: skip
def test_a_damaged_base_is_none(clicked: Clicked, tmp_path: Path, change: dict) -> None:
    content = json.loads(get_tag(clicked.node, "own", TAG)) | change
    clicked.node.GetSegmentation().GetSegment("own").SetTag(TAG, json.dumps(content))
    save_and_load(clicked, tmp_path)
    assert_settled(clicked, LOST)


@given(st.text() | st.from_regex(r'\{"version":1.*\}', fullmatch=True))
def test_any_text_is_a_base_or_none(text: str) -> None:
    node = slicer.vtkMRMLSegmentationNode()
    node.GetSegmentation().AddEmptySegment("one")
    node.GetSegmentation().GetSegment("one").SetTag(TAG, text.replace("\0", ""))
    assert read_base(node, "one") is None


@given(masks, masks, st.integers(-400, 400), st.text(min_size=1, max_size=9))
def test_a_base_reads_back_as_it_was_stored(one: np.ndarray, other: np.ndarray, start: int, name: str) -> None:
    node = slicer.vtkMRMLSegmentationNode()
    node.GetSegmentation().AddEmptySegment("one")
    box = box_of(one)
    taken = Voxels(np.diag([0.1, 2.0, 3.0, 1.0]), tuple((start, start + size) for size in SHAPE), other, other & one)
    stored = StoredBase(
        name, box, one[slices(box)] if box else np.zeros((0, 0, 0), bool), Exchange({name: taken}, {"x": taken})
    )
    store_base(node, "one", stored)
    assert "|" not in get_tag(node, "one", TAG)
    found = read_base(node, "one")
    assert (found.base, found.box) == (stored.base, stored.box)
    np.testing.assert_array_equal(found.voxels, stored.voxels)
    assert name_of(found.exchange) == name_of(stored.exchange) != ""
    back = found.exchange.taken[name]
    assert back.box == taken.box
    for mine, theirs in ((back.lattice, taken.lattice), (back.mask, taken.mask), (back.shared, taken.shared)):
        np.testing.assert_array_equal(mine, theirs)
