"""Undo of a result: exactly the segments that it changed, with or without an editor, with little memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest
import slicer
from engine_helpers import EventLoop
from logic_helpers import Heard, assert_sentence
from mrml_scene import AFFINES, SHAPE, Application, ball, middle_of, rigid
from result_cases import (
    AORTA,
    CATALOGUE,
    LIVER,
    SPLEEN,
    TUMOR,
    Segmentation,
    Volume,
    everything_of,
    label_array,
    paint,
)

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import Region
from VISTA3DSegmentLib.logic.last_run import LastRun
from VISTA3DSegmentLib.logic.signals import Signal
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, store_clicks
from VISTA3DSegmentLib.mrml.layers import drained
from VISTA3DSegmentLib.mrml.results import write_in_steps, write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation, find_segment, read_mask
from VISTA3DSegmentLib.mrml.undo import Change


@pytest.fixture
def node(app: Application, ct: Volume) -> Segmentation:
    """Return a segmentation with a liver that has clicks, a spleen and an aorta in one labelmap, a tumor over them."""
    node = create_segmentation(app.scene, ct)
    write_result(node, ct, first(ct), {}, [LIVER, SPLEEN, AORTA], {"model": "mini"})
    write_result(node, ct, first(ct) * 0, {TUMOR.index: ball(ct, radius=5)}, [TUMOR], {})
    store_clicks(node, "liver", ClickList((StoredClick((1.0, 2.0, 3.0)),), LIVER.index))
    node.GetSegmentation().GetSegment("liver").SetTag("mine", "a note")
    return node


def first(ct: Volume) -> np.ndarray:
    """Return labels of three parts of a ball."""
    bands = np.digitize(np.arange(44), [15, 25])[:, None, None] * np.ones((1, 40, 26))
    return label_array({one: ball(ct) & (bands == n) for n, one in enumerate((LIVER, SPLEEN, AORTA))})


def second(ct: Volume) -> np.ndarray:
    """Return labels that have other places and one more structure."""
    stomach = CATALOGUE["stomach"]
    return label_array({LIVER: ball(ct, middle_of(ct) + 7, 8), stomach: ball(ct, middle_of(ct) - 7, 5)})


def run(node: Segmentation, ct: Volume, region: Region | None = None) -> Change:
    """Write liver, spleen and tumor anew, and a stomach."""
    masks = {TUMOR.index: ball(ct, middle_of(ct) + 4, 3)}
    structures = [LIVER, SPLEEN, TUMOR, CATALOGUE["stomach"]]
    return drained(write_in_steps(node, ct, second(ct), masks, structures, {"model": "again"}, region=region)).change


def corner() -> np.ndarray:
    """Return the mask of a small box that nothing else reaches."""
    mask = np.zeros(SHAPE, dtype=bool, order="F")
    mask[2:5, 2:5, 2:5] = True
    return mask


def below(ct: Volume) -> Region:
    """Return the lower half of a CT."""
    middle = middle_of(ct)
    return Region(tuple(middle - 500), (*(middle[:2] + 500), middle[2]))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("in_region", [False, True])
def test_everything_is_as_before(node: Segmentation, ct: Volume, packed: bool, in_region: bool) -> None:
    before = everything_of(node, ct)
    change = run(node, ct, below(ct) if in_region else None)
    assert everything_of(node, ct) != before
    if packed:
        drained(change.pack())
    heard = []
    node.AddObserver(slicer.vtkSegmentation.SegmentModified, lambda *_: heard.append(1))
    change.undo()
    assert everything_of(node, ct) == before
    assert heard  # who shows clicks reads them anew


def test_other_segments_keep_what_was_done_to_them_since(app: Application, node: Segmentation, ct: Volume) -> None:
    before, change = everything_of(node, ct), run(node, ct)
    aorta, free = read_mask(node, "aorta", ct), corner()
    paint(app, node, ct, "aorta", free, True)
    paint(app, node, ct, node.GetSegmentation().AddEmptySegment("drawn", "my lesion"), free, True)
    before["liver"], own = everything_of(node, ct)["liver"], before["liver"]
    assert change.changed_since() == []
    change.undo()
    found = everything_of(node, ct)
    assert found["liver"] == own
    assert {one: found[one] for one in ("spleen", TUMOR.name.replace(" ", "_"))} == {
        one: before[one] for one in ("spleen", TUMOR.name.replace(" ", "_"))
    }
    assert read_mask(node, "drawn", ct).sum() == free.sum()
    assert np.array_equal(read_mask(node, "aorta", ct), (aorta & ~free))  # the last one drawn took it
    assert find_segment(node, CATALOGUE["stomach"]) is None
    empty = node.GetSegmentation().AddEmptySegment("new")
    assert not read_mask(node, empty, ct).any()


def test_undo_works_where_the_segments_share_a_labelmap_with_what_came_later(
    app: Application, node: Segmentation, ct: Volume
) -> None:
    """Slicer puts what is drawn later into the labelmap of a run where there is room."""
    change, later = run(node, ct), corner()
    drawn = node.GetSegmentation().AddEmptySegment("drawn", "my lesion")
    paint(app, node, ct, drawn, later, True)
    change.undo()
    assert np.array_equal(read_mask(node, drawn, ct), later)


def test_surfaces_come_back_too(node: Segmentation, ct: Volume) -> None:
    node.CreateClosedSurfaceRepresentation()
    bounds = _surface(node, "liver")
    change = run(node, ct)
    assert _surface(node, "liver") != pytest.approx(bounds, abs=0.1)
    change.undo()
    assert _surface(node, "liver") == pytest.approx(bounds, abs=1e-3)


def _surface(node: Segmentation, segment_id: str) -> list[float]:
    bounds = [0.0] * 6
    node.GetSegmentation().GetSegment(segment_id).GetRepresentation("Closed surface").GetBounds(bounds)
    return bounds


# What was changed since


def _painted(app: Application, node: Segmentation, ct: Volume) -> list[str]:
    paint(app, node, ct, "liver", corner(), True)
    return ["Liver"]


def _clicked(app: Application, node: Segmentation, ct: Volume) -> list[str]:
    store_clicks(node, "spleen", ClickList((StoredClick((1.0, 2.0, 3.0)),), SPLEEN.index))
    return ["Spleen"]


def _deleted(app: Application, node: Segmentation, ct: Volume) -> list[str]:
    node.GetSegmentation().RemoveSegment("liver")
    node.GetSegmentation().RemoveSegment("stomach")
    return ["Liver", "Stomach"]


def _moved(app: Application, node: Segmentation, ct: Volume) -> list[str]:
    transform = app.add_transform(rigid((0, 0, 0), (30, 0, 0)))
    node.SetAndObserveTransformNodeID(transform.GetID())
    node.HardenTransform()
    return ["Liver", "Hepatic Tumor", "Stomach"]


SINCE = (_painted, _clicked, _deleted, _moved)


@pytest.mark.parametrize("edit", SINCE, ids=[one.__name__ for one in SINCE])
def test_changes_since_the_run_are_named_and_undone_with_it(
    app: Application, node: Segmentation, ct: Volume, edit: Callable
) -> None:
    before, change = everything_of(node, ct), run(node, ct)
    assert change.changed_since() == []
    names = edit(app, node, ct)
    assert [one.lower() for one in change.changed_since()] == [one.lower() for one in names]
    change.undo()
    found = everything_of(node, ct)
    if edit is not _moved:
        assert found == before


def test_a_new_name_and_color_stay(node: Segmentation, ct: Volume) -> None:
    change, segment = run(node, ct), node.GetSegmentation().GetSegment("liver")
    segment.SetName("mine")
    segment.SetColor(0.1, 0.2, 0.3)
    assert change.changed_since() == []
    change.undo()
    assert (segment.GetName(), segment.GetColor()) == ("mine", (0.1, 0.2, 0.3))


def test_what_the_editor_undid_and_did_again_is_not_changed(app: Application, node: Segmentation, ct: Volume) -> None:
    editor = app.editor(node, ct, "liver")
    before = everything_of(node, ct)
    editor.writer.save_state()
    change = run(node, ct)
    editor.logic.Undo()
    assert everything_of(node, ct) == before
    editor.logic.Redo()
    assert change.changed_since() == []
    editor.writer.save_state()
    change.undo()
    assert everything_of(node, ct) == before
    editor.logic.Undo()
    assert np.array_equal(read_mask(node, "liver", ct), second(ct) == LIVER.index)


# Memory


def test_a_run_over_a_whole_body_is_kept_in_little_memory(app: Application) -> None:
    shape, everything = (320, 320, 160), CATALOGUE.everything
    ct = app.add_volume(shape, AFFINES["oblique"], np.uint8)
    node, labels = create_segmentation(app.scene, ct), np.zeros(shape, np.uint16, order="F")
    for n, one in enumerate(everything):
        i, j, k = 32 * (n % 10), 32 * (n // 10 % 10), 80 * (n // 100)
        labels[i : i + 30, j : j + 30, k : k + 70] = one.index
    write_result(node, ct, labels, {}, everything, {})
    shared = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    change = drained(write_in_steps(node, ct, labels * 0, {}, everything, {})).change
    assert change.formers[node.GetSegmentation().GetNthSegmentID(0)].kept.image is shared  # nothing was copied
    whole = change.size
    drained(change.pack())
    assert change.size < whole / 20
    change.undo()
    for n in (0, 57, 116):
        segment_id = node.GetSegmentation().GetNthSegmentID(n)
        assert np.array_equal(read_mask(node, segment_id, ct), labels == everything[n].index)


# The last run


class Undoing:
    """What keeps the last run, its event loop, and what it says."""

    def __init__(self, app: Application) -> None:
        self.loop, self.writing = EventLoop(), Signal()
        self.last = LastRun(app.scene, self.loop.call_later, self.writing)
        self.heard, self.written = Heard(self.last), []
        self.writing.connect(self.written.append)


@pytest.fixture
def undoing(app: Application) -> Undoing:
    return Undoing(app)


def test_only_the_last_run_can_be_undone_and_only_once(undoing: Undoing, node: Segmentation, ct: Volume) -> None:
    assert not undoing.last.can_be_undone
    undoing.last.keep(run(node, ct))
    undoing.loop.run_for(0.1)
    between = everything_of(node, ct)
    undoing.last.keep(run(node, ct, below(ct)))
    undoing.last.undo()
    assert everything_of(node, ct) == between
    assert undoing.written == [node]  # in time for the editor to keep its state
    assert undoing.heard.all("undone") == [(node,)]
    assert not undoing.last.can_be_undone
    with pytest.raises(InputError) as error:
        undoing.last.undo()
    assert_sentence(str(error.value))


def test_scripts_are_told_what_was_changed_since(
    app: Application, undoing: Undoing, node: Segmentation, ct: Volume
) -> None:
    before = everything_of(node, ct)
    undoing.last.keep(run(node, ct))
    _painted(app, node, ct)
    corrected = everything_of(node, ct)
    with pytest.raises(InputError, match="Liver") as error:
        undoing.last.undo()
    assert_sentence(str(error.value))
    assert everything_of(node, ct) == corrected
    undoing.last.undo(discard_changes=True)
    assert everything_of(node, ct) == before


def test_a_segmentation_that_the_run_made_goes_unless_something_was_added(
    app: Application, undoing: Undoing, ct: Volume
) -> None:
    for added in (False, True):
        node = create_segmentation(app.scene, ct)
        change = run(node, ct)
        change.made_node = True
        undoing.last.keep(change)
        if added:
            node.GetSegmentation().AddEmptySegment("drawn")
        undoing.last.undo()
        assert (node.GetScene() is None) == (not added)
        assert undoing.heard.all("undone")[-1] == (node if added else None,)
    assert list(node.GetSegmentation().GetSegmentIDs()) == ["drawn"]


@pytest.mark.parametrize("end", ["removed", "closed", "forgotten"])
def test_nothing_is_kept_of_what_is_gone(
    app: Application, undoing: Undoing, node: Segmentation, ct: Volume, end: str
) -> None:
    undoing.last.keep(run(node, ct))
    {
        "removed": lambda: app.scene.RemoveNode(node),
        "closed": lambda: app.scene.Clear(False),
        "forgotten": undoing.last.forget,
    }[end]()
    assert not undoing.last.can_be_undone
    assert undoing.last.segmentation is None
    assert len(undoing.heard.all("changed")) == 2
    undoing.loop.run_for(0.1)


def test_a_scene_may_end_together_with_what_is_kept() -> None:
    """Found by a crash: a scene that is collected as garbage calls whoever still observes it."""
    for _number in range(3):
        app = Application()
        ct = app.add_volume(SHAPE, AFFINES["oblique"])
        undoing = Undoing(app)
        undoing.last.keep(run(create_segmentation(app.scene, ct), ct))
        circle = [app, undoing]
        circle.append(circle)
        del app, ct, undoing, circle
        gc.collect()


def test_surfaces_as_the_source_are_told(undoing: Undoing, node: Segmentation, ct: Volume) -> None:
    undoing.last.keep(run(node, ct))
    node.CreateClosedSurfaceRepresentation()
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    with pytest.raises(InputError, match="stored as"):
        undoing.last.undo(discard_changes=True)
    assert undoing.last.can_be_undone
