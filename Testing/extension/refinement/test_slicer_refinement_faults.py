"""Whatever goes wrong with a click ends in one sentence; mask, tag and control points are as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from refinement_helpers import PLACES, TUMOR, Clicking, as_clicks

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.clicks import TAG, ClickList

pytestmark = pytest.mark.slow

OUTSIDE = (900, 0, 0)
# After a click at PLACES[0], a negative one here changes the mask; most places of a random network do not.
REMOVING = (25, 7, 16)


@pytest.fixture
def clicking(clicking: Clicking) -> Clicking:
    """Return a segment that was clicked at once."""
    clicking.mirror.show()
    clicking.click(PLACES[0])
    return clicking


def moment(clicking: Clicking) -> tuple:
    """Return everything that must stay."""
    tag = vtk.reference("")
    clicking.segmentation_node.GetSegmentation().GetSegment(clicking.segment_id).GetTag(TAG, tag)
    return clicking.mask().tobytes(), str(tag), clicking.shown(), clicking.refinement.click_list


def assert_refused(clicking: Clicking, act: Callable[[], None], sentence: str) -> None:
    """Do something; see that it ends in one sentence and nothing else, and that no undo step was made."""
    before, undoable = moment(clicking), clicking.editor.CanUndo()
    act()
    clicking.settle()
    clicking.loop.run_for(0.05)
    assert len(clicking.sentences) == 1, clicking.sentences
    assert sentence in clicking.sentences[0]
    assert clicking.sentences[0].endswith(".")
    assert moment(clicking) == before
    assert clicking.editor.CanUndo() == undoable
    clicking.sentences.clear()


def assert_works(clicking: Clicking, place: tuple[int, int, int] = PLACES[2]) -> None:
    """See that clicking goes on."""
    count = len(clicking.stored().clicks)
    clicking.click(place)
    assert clicking.sentences == []
    assert len(clicking.stored().clicks) == count + 1


def test_clicks_that_cannot_be(clicking: Clicking) -> None:
    refinement = clicking.refinement
    assert_refused(clicking, lambda: refinement.add(clicking.world(OUTSIDE)), "lies outside the volume")
    assert_refused(clicking, lambda: refinement.add((float("nan"), 0, 0)), "three finite numbers")
    assert_refused(clicking, lambda: refinement.add(clicking.world(PLACES[0]), False), "positive and a negative click")
    assert_refused(clicking, lambda: refinement.move(0, clicking.world(OUTSIDE)), "lies outside the volume")
    assert_refused(clicking, lambda: refinement.flip(0), "There is nothing to remove yet")
    for act in (refinement.flip, refinement.delete, lambda number: refinement.move(number, (0.0, 0.0, 0.0))):
        for number in (-1, 1, 99):
            assert_refused(clicking, lambda act=act, number=number: act(number), "There is no click with the number")
    node = clicking.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    assert_refused(clicking, lambda: refinement.take_over(node), "'F' has no selected point")
    for ijk in (PLACES[1], OUTSIDE):
        node.AddControlPointWorld(vtk.vtkVector3d(*clicking.world(ijk)))
    assert_refused(clicking, lambda: refinement.take_over(node), "lies outside the volume")
    assert_works(clicking)


def test_a_bad_click_between_good_ones_goes_alone(clicking: Clicking) -> None:
    for ijk in (PLACES[1], OUTSIDE, PLACES[2]):
        clicking.refinement.add(clicking.world(ijk))
    assert len(clicking.refinement.click_list.clicks) == 4
    clicking.settle()
    assert len(clicking.sentences) == 1
    assert [click.position for click in clicking.stored().clicks] == [clicking.world(ijk) for ijk in PLACES[:3]]
    expected = clicking.session().click(TUMOR, as_clicks(clicking.stored()))
    np.testing.assert_array_equal(clicking.mask(), expected.mask)


@pytest.mark.parametrize("index", [16, 20, 21])
def test_structures_that_cannot_be_clicked(clicking: Clicking, index: int) -> None:
    with pytest.raises(InputError) as refused:
        clicking.session().click(index, as_clicks(clicking.stored()))
    assert_refused(clicking, lambda: clicking.refinement.set_structure(index), str(refused.value))
    assert clicking.refinement.structure == TUMOR


def test_a_model_that_takes_no_clicks(clicking: Clicking, tmp_path: Path) -> None:
    from VISTA3DCore.models.checkpoints import save_checkpoint
    from VISTA3DCore.network.architecture import build_network
    from VISTA3DCore.network.config import ModelConfig

    sizes = {"width": 8, "blocks_down": (1, 1, 1), "window": (32, 32, 32), "spacing": (12.0, 12.0, 12.0)}
    config = ModelConfig(name="automatic", click_branch=False, classes=(1, 3), **sizes)
    path = tmp_path / "automatic.safetensors"
    save_checkpoint(path, config, build_network(config).state_dict())
    model, clicking.model = clicking.model, str(path)
    clicking.choose()

    def click_fast() -> None:
        for _ in range(3):  # those that wait are not told the same again
            clicking.refinement.add(clicking.world(PLACES[1]))

    assert_refused(clicking, click_fast, "'automatic' was not trained for clicks")
    clicking.model = model
    clicking.choose()
    assert_works(clicking)


def test_a_model_that_is_not_there(clicking: Clicking) -> None:
    model, clicking.model = clicking.model, "vista3d-ct"
    clicking.choose()
    before = moment(clicking)
    clicking.click(PLACES[1])
    assert len(clicking.sentences) == 1
    assert moment(clicking) == before
    clicking.sentences.clear()
    clicking.model = model
    clicking.choose()
    assert_works(clicking)


# Things that vanish while the engine computes


def test_the_segment_is_deleted(clicking: Clicking) -> None:
    other = clicking.segmentation_node.GetSegmentation().AddEmptySegment("other", "liver")
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.loop.run_once(0.01)
    clicking.segmentation_node.GetSegmentation().RemoveSegment(clicking.segment_id)
    clicking.loop.run_for(0.5)
    assert clicking.sentences == ["The segment was deleted; choose another one."]
    assert not clicking.refinement.busy
    assert clicking.shown() == []
    assert not clicking.mask(other).any()
    clicking.sentences.clear()
    clicking.choose(other)
    assert_works(clicking)


def test_the_segmentation_is_removed(clicking: Clicking) -> None:
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.loop.run_once(0.01)
    clicking.scene.RemoveNode(clicking.segmentation_node)
    clicking.settle()
    assert clicking.sentences == ["The segmentation was removed; choose another one."]
    clicking.refinement.add((0.0, 0.0, 0.0))
    assert clicking.sentences[1:] == ["The segmentation was removed; choose another one."]
    clicking.refinement.set_target()
    assert clicking.shown() == []


def test_the_volume_is_removed(clicking: Clicking) -> None:
    before = moment(clicking)[:2]
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.loop.run_once(0.01)
    clicking.scene.RemoveNode(clicking.volume_node)
    clicking.settle()
    clicking.loop.run_for(0.2)
    assert len(clicking.sentences) == 1
    assert "scene" in clicking.sentences[0] or "removed" in clicking.sentences[0]
    clicking.scene.AddNode(clicking.volume_node)
    assert moment(clicking)[:2] == before
    clicking.sentences.clear()
    assert_works(clicking)


def test_the_scene_is_closed(clicking: Clicking) -> None:
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.loop.run_once(0.01)
    clicking.scene.Clear(False)
    clicking.settle()
    clicking.loop.run_for(0.2)
    assert len(clicking.sentences) == 1
    clicking.refinement.forget_masks()
    clicking.refinement.set_target()
    assert not [name for name in clicking.node_classes() if "Markups" in name]


def test_another_segment_is_chosen_before_the_answer(clicking: Clicking) -> None:
    other = clicking.segmentation_node.GetSegmentation().AddEmptySegment("other", "liver")
    before = clicking.mask(), clicking.stored()
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.choose(other)
    clicking.loop.run_for(0.5)
    assert clicking.sentences == ["A click was not applied, because something else was chosen before it was computed."]
    assert clicking.shown() == []
    clicking.choose("tumor")
    np.testing.assert_array_equal(clicking.mask(), before[0])
    assert clicking.stored() == before[1]
    assert len(clicking.shown()) == 1


def test_closing_in_mid_click_is_silent(clicking: Clicking) -> None:
    told = []
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.loop.run_once(0.01)
    for signal in (clicking.refinement.clicks_changed, clicking.refinement.state_changed):
        signal.connect(lambda *_: told.append(1))
    clicking.refinement.close()
    clicking.loop.run_for(0.5)
    assert told == []
    assert clicking.sentences == []
    assert len(clicking.stored().clicks) == 1
    assert not [name for name in clicking.under_test.files() if name.startswith("result")]


# The engine


def test_the_engine_is_killed_in_mid_click(clicking: Clicking) -> None:
    states, before = [], moment(clicking)
    clicking.refinement.state_changed.connect(states.append)
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.refinement.add(clicking.world(PLACES[2]))
    clicking.loop.run_until(lambda: "Computing…" in states)
    clicking.under_test.kill()
    clicking.settle()
    assert len(clicking.sentences) == 1
    assert "engine process ended" in clicking.sentences[0]
    assert moment(clicking) == before
    clicking.sentences.clear()
    assert_works(clicking)
    expected = clicking.session().click(TUMOR, as_clicks(clicking.stored()))
    np.testing.assert_array_equal(clicking.mask(), expected.mask)


def test_the_engine_is_killed_between_clicks(clicking: Clicking) -> None:
    processes = len(clicking.under_test.processes)
    clicking.under_test.kill()
    clicking.loop.run_until(lambda: len(clicking.under_test.processes) > processes)
    assert_works(clicking)


def test_a_base_that_cannot_be_written(clicking: Clicking, monkeypatch: pytest.MonkeyPatch) -> None:
    clicking.paint(((30, 34), (30, 34), (20, 24)))
    clicking.mask()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        assert_refused(clicking, lambda: clicking.refinement.add(clicking.world(PLACES[1])), "No space left on device")
    assert_works(clicking)


def test_a_writer_that_fails(clicking: Clicking, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("defect")

    with monkeypatch.context() as patch:
        patch.setattr(clicking.refinement.writer, "modify", broken, raising=False)
        clicking.refinement.add(clicking.world(REMOVING), False)
        before = clicking.mask(), clicking.stored()
        clicking.settle()
        assert clicking.sentences == ["The segment could not be changed; select it again and repeat the click."]
        np.testing.assert_array_equal(clicking.mask(), before[0])
        assert clicking.stored() == before[1]
    clicking.sentences.clear()
    assert_works(clicking)


# Targets that cannot be used


def test_nothing_is_chosen(clicking: Clicking) -> None:
    clicking.refinement.set_target()
    for act in (lambda: clicking.refinement.add((0.0, 0.0, 0.0)), clicking.refinement.suggest):
        act()
    assert clicking.sentences == ["Choose a volume and a segment first."] * 2
    clicking.refinement.warm((0.0, 0.0, 0.0))
    clicking.refinement.delete_all()
    assert len(clicking.sentences) == 2


def test_no_writer(clicking: Clicking) -> None:
    clicking.refinement.writer = None
    clicking.refinement.add(clicking.world(PLACES[1]))
    assert clicking.sentences == ["The segment cannot be written; choose the effect again."]


def test_a_transform_that_is_not_linear(clicking: Clicking) -> None:
    warp = clicking.scene.AddNewNodeByClass("vtkMRMLTransformNode")
    spline = vtk.vtkThinPlateSplineTransform()
    warp.SetAndObserveTransformToParent(spline)
    clicking.segmentation_node.SetAndObserveTransformNodeID(warp.GetID())
    clicking.refinement.add(clicking.world(PLACES[1]))
    assert len(clicking.sentences) == 1
    clicking.segmentation_node.SetAndObserveTransformNodeID(None)
    clicking.sentences.clear()
    assert_works(clicking)


def test_a_damaged_tag_is_told_once_and_clicking_begins_anew(clicking: Clicking) -> None:
    clicking.refinement.set_target()
    clicking.segmentation_node.GetSegmentation().GetSegment(clicking.segment_id).SetTag(TAG, "{broken")
    mask = clicking.mask()
    clicking.choose()
    assert len(clicking.sentences) == 1
    assert "damaged" in clicking.sentences[0]
    assert clicking.refinement.click_list.clicks == ()
    clicking.sentences.clear()
    clicking.click(PLACES[1])
    assert clicking.sentences == []
    expected = clicking.session().click(TUMOR, as_clicks(clicking.stored()), mask)
    np.testing.assert_array_equal(clicking.mask(), expected.mask)


def test_a_volume_of_another_geometry_makes_the_present_mask_the_base(clicking: Clicking) -> None:
    affine = np.diag([10.0, 14.0, 12.0, 1.0])
    clicking.volume_node = clicking.add_ct(affine)
    clicking.choose()
    mask = clicking.mask()
    clicking.click(PLACES[2])
    stored = clicking.stored()
    assert (len(stored.clicks), stored.settled) == (2, 1)
    expected = clicking.session().click(TUMOR, as_clicks(stored), mask, settled=1)
    agreement = np.mean(clicking.mask() == expected.mask)
    assert agreement > 0.9  # the segment keeps its own grid
    assert clicking.sentences == []


def test_the_volume_changes_under_the_clicks(clicking: Clicking) -> None:
    slicer.util.arrayFromVolume(clicking.volume_node)[::2] = 100
    slicer.util.arrayFromVolumeModified(clicking.volume_node)
    clicking.click(PLACES[2])
    assert clicking.sentences == []
    expected = clicking.session().click(TUMOR, as_clicks(clicking.stored()))
    np.testing.assert_array_equal(clicking.mask(), expected.mask)


def test_setting_the_same_target_again_disturbs_nothing(clicking: Clicking) -> None:
    clicking.refinement.add(clicking.world(PLACES[1]))
    clicking.choose()
    clicking.settle()
    assert clicking.sentences == []
    assert len(clicking.stored().clicks) == 2
    assert clicking.refinement.segment.label_set is catalogue()
    assert clicking.stored() != ClickList()
