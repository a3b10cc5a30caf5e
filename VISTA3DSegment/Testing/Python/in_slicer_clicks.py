# SPDX-License-Identifier: Apache-2.0
"""Clicks through the views: what they change, how fast, and how undo takes them back."""

from __future__ import annotations

import numpy as np
import slicer
from slicer_harness import Heartbeat, collecting, screenshot, settle, test, wait_for
from slicer_scene import (
    Editing,
    drag,
    edit,
    kill,
    look_at,
    mask_of,
    new_scene,
    open_module,
    pixel_of,
    press_and_release,
    services,
    structure,
    world_of,
)

# What a click may take beyond the time of the engine, ms.
_OVERHEAD_MS = 150.0
_ground: dict[str, np.ndarray] = {}


def inside(volume: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, float, float]:
    """Return a place in the middle of the structure, as the automatic run finds it."""
    name = volume.GetName()
    if name not in _ground:
        from VISTA3DSegmentLib.logic.automatic import RunRequest

        run = services().automatic
        with collecting(run.finished) as finished, collecting(run.failed) as failed:
            run.start(RunRequest(volume, (structure().index,), "mini"))
            wait_for(lambda: finished or failed, "the structure is found")
        assert not failed, failed[0][0]
        node, identities, _notes = finished[0]
        _ground[name] = np.argwhere(mask_of(node, identities[0], volume))
        slicer.mrmlScene.RemoveNode(node)
    places = _ground[name]
    return world_of(volume, tuple(places[np.argmin(((places - places.mean(0)) ** 2).sum(1))]))


def ready() -> tuple[Editing, tuple[float, float, float]]:
    """Return an active effect on an empty segment, and a place in the structure."""
    volume = new_scene()
    place = inside(volume)
    editing = edit(volume)
    editing.activate()
    return editing, place


@test
def click_adds_to_the_segment() -> str:
    editing, place = ready()
    assert editing.session.structure == structure().index, "the structure is not taken from the segment"
    screenshot("effect_ready")
    with Heartbeat() as heart:
        editing.click(place)
    assert editing.mask().any(), "nothing was added"
    row = editing.session.rows[0]
    assert np.allclose(row.position, place, atol=1.0), "the click is elsewhere"
    assert row.positive
    screenshot("effect_clicked")
    return heart.check()


@test
def cached_click_is_on_the_screen_in_time() -> str:
    editing, place = ready()
    editing.click(place)
    overheads = []
    for step in range(5):
        latency_ms, engine_ms = editing.click(tuple(np.add(place, (0.0, 0.0, 2.0 * step))))
        overheads.append(latency_ms - engine_ms)
    assert np.median(overheads) < _OVERHEAD_MS, f"{np.median(overheads):.0f} ms"
    return f"{np.median(overheads):.0f} ms beyond the engine's time"


@test
def undo_takes_back_click_and_mask_together() -> None:
    editing, place = ready()
    editing.click(place)
    first = editing.mask()
    editing.click(tuple(np.add(place, (0.0, 0.0, 6.0))), control=True)
    assert [row.positive for row in editing.session.rows] == [True, False]
    editing.editor.undo()
    settle()
    assert len(editing.session.rows) == 1
    assert np.array_equal(editing.mask(), first)
    editing.editor.undo()
    settle()
    assert not editing.mask().any()
    assert editing.session.rows == []
    editing.editor.redo()
    settle()
    assert np.array_equal(editing.mask(), first)
    assert len(editing.session.rows) == 1


@test
def neighbors_get_back_what_a_click_took() -> None:
    editing, place = ready()
    segmentation, node = editing.node.GetSegmentation(), editing.editor.mrmlSegmentEditorNode()
    other = segmentation.AddEmptySegment("", "Everything else")
    whole = np.ones(slicer.util.arrayFromVolume(editing.volume).shape, dtype=np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(whole, editing.node, other, editing.volume)
    editing.editor.setCurrentSegmentID(editing.segment_id)
    former = node.GetOverwriteMode()
    node.SetOverwriteMode(node.OverwriteAllSegments)
    editing.click(place)
    assert (mask_of(editing.node, other, editing.volume) ^ editing.mask()).all(), "nothing was taken"
    with collecting(editing.session.answered, editing.session.failed) as told:
        editing.session.delete_all()
        wait_for(lambda: told, "the clicks are deleted")
    node.SetOverwriteMode(former)
    assert mask_of(editing.node, other, editing.volume).all(), "something did not come back"


@test
def status_follows_selection_and_name() -> None:
    editing, _place = ready()
    liver = editing.segment_id
    slicer.util.findChildren(editing.editor, "AddSegmentButton")[0].click()
    settle()
    added = editing.editor.currentSegmentID()
    assert added != liver, "no segment was added"
    segmentation = editing.node.GetSegmentation()
    segmentation.GetSegment(added).SetTerminology(segmentation.GetSegment(liver).GetTerminology())

    def shown() -> str:
        settle()
        return editing.effect._panel.ui.stateLabel.text

    assert editing.session.structure is None, "a new segment is clicked as the one before it"
    assert segmentation.GetSegment(added).GetName() in shown()
    segmentation.GetSegment(added).SetName("Tumor")
    assert "<b>Tumor</b>" in shown()
    editing.editor.setCurrentSegmentID(liver)
    assert f"<b>{structure().display_name}</b>" in shown()


@test
def negative_first_click_is_refused_kindly() -> None:
    editing, place = ready()
    look_at(place)
    with collecting(editing.session.failed) as failed:
        press_and_release("Red", *pixel_of("Red", place), control=True)
        wait_for(lambda: failed, "the click is refused")
        settle(0.3)
    assert len(failed) == 1
    assert "nothing to remove" in failed[0][0]
    editing.click(place)
    assert editing.mask().any()


@test
def engine_may_be_killed_in_mid_click() -> None:
    editing, place = ready()
    editing.click(place)
    with collecting(editing.session.failed) as failed:
        editing.click(tuple(np.add(place, (0.0, 0.0, 30.0))), wait=False)
        wait_for(lambda: services().refinement.busy, "the click is on its way")
        kill(services().engine.info.pid)
        wait_for(lambda: failed, "it is told")
        settle(1.0)
    assert len(failed) == 1, f"{len(failed)} sentences instead of one"
    assert "click was not applied" in failed[0][0], failed[0][0]
    wait_for(lambda: services().engine.state == "ready", "the engine runs again")
    editing.click(tuple(np.add(place, (0.0, 0.0, 4.0))))
    assert len(editing.session.rows) == 2


@test
def drags_are_slicers() -> None:
    """Panning and adjusting the window move the view or change the display; they click nothing."""
    editing, place = ready()
    look_at(place)
    x, y = pixel_of("Red", place)
    path = [(x, y), (x + 15, y), (x + 40, y + 10)]
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    before = list(node.GetXYZOrigin())
    drag("Red", path, shift=True)
    assert list(node.GetXYZOrigin()) != before, "Shift and drag does not pan"
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    display = editing.volume.GetDisplayNode()
    before = display.GetWindow(), display.GetLevel()
    interaction.SetCurrentInteractionMode(interaction.AdjustWindowLevel)
    drag("Red", path)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert (display.GetWindow(), display.GetLevel()) != before, "window and level cannot be adjusted"
    settle(0.3)
    assert editing.session.rows == []


@test
def masking_is_honored() -> None:
    editing, place = ready()
    node = editing.editor.mrmlSegmentEditorNode()
    node.SourceVolumeIntensityMaskOn()
    node.SetSourceVolumeIntensityMaskRange(40.0, 3000.0)
    editing.click(place)
    voxels = slicer.util.arrayFromVolume(editing.volume)
    assert editing.mask().any()
    assert voxels[editing.mask()].min() >= 40
    node.SourceVolumeIntensityMaskOff()


@test
def points_can_be_dragged_when_unlocked() -> None:
    editing, place = ready()
    editing.click(place)
    look_at(place)
    x, y = pixel_of("Red", place)
    path = [(x, y), (x + 5, y), (x + 12, y)]
    drag("Red", path)
    settle(0.3)
    assert np.allclose(editing.session.rows[0].position, place, atol=1.0), "a locked point moved"
    editing.session.set_locked(False)
    with collecting(editing.session.answered) as answered, collecting(editing.session.failed) as failed:
        drag("Red", path)
        wait_for(lambda: answered or failed, "the moved click is answered")
    assert not failed, failed[0][0]
    assert len(editing.session.rows) == 1, "dragging added a click"
    assert not np.allclose(editing.session.rows[0].position, place, atol=1.0), "the point did not move"


@test
def click_in_the_3d_view_lies_on_the_surface() -> None:
    editing, place = ready()
    editing.click(place)
    editing.node.CreateClosedSurfaceRepresentation()
    layout = slicer.app.layoutManager()
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    settle(0.5)
    view = layout.threeDWidget(0).threeDView()
    view.resetFocalPoint()
    bounds = [0.0] * 6
    editing.node.GetBounds(bounds)
    camera = slicer.modules.cameras.logic().GetViewActiveCameraNode(view.mrmlViewNode()).GetCamera()
    camera.SetFocalPoint([(low + high) / 2 for low, high in zip(bounds[::2], bounds[1::2], strict=True)])
    slicer.util.forceRenderAllViews()
    width, height = view.interactor().GetSize()
    with collecting(editing.session.answered) as answered, collecting(editing.session.failed) as failed:
        press_and_release(0, width // 2, height // 2)
        wait_for(lambda: answered or failed, "the click is answered", 60)
    assert not failed, failed[0][0]
    position = editing.session.rows[-1].position
    assert all(low - 1 <= one <= high + 1 for one, low, high in zip(position, bounds[::2], bounds[1::2], strict=True))
    screenshot("effect_3d")


@test
def suggestion_comes_to_the_middle_of_the_views() -> None:
    editing, place = ready()
    editing.click(place)
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    with collecting(editing.session.suggested) as suggested, collecting(editing.session.failed) as failed:
        editing.session.suggest()
        wait_for(lambda: suggested or failed, "there is a suggestion")
    assert suggested, failed[0][0]
    active = slicer.app.applicationLogic().GetSelectionNode().GetActivePlaceNodeID()
    assert active == own.GetID(), "the user's point list is active no more"
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    middle = [node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    assert np.allclose(middle, suggested[0][0], atol=0.1)
    screenshot("effect_suggestion")


@test
def points_of_the_user_become_clicks() -> None:
    editing, place = ready()
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    points.AddControlPoint(place)
    with collecting(editing.session.answered) as answered, collecting(editing.session.failed) as failed:
        editing.session.take_over(points, True)
        wait_for(lambda: answered or failed, "the click is answered")
    assert not failed, failed[0][0]
    assert len(editing.session.rows) == 1
    assert points.GetNumberOfControlPoints() == 1


@test
def segment_may_be_deleted_in_mid_click() -> None:
    editing, place = ready()
    with collecting(editing.session.failed) as failed:
        editing.click(place, wait=False)
        editing.node.GetSegmentation().RemoveSegment(editing.segment_id)
        settle(1.0)
    assert len(failed) == 1, f"{len(failed)} sentences instead of one"


@test
def hundred_clicks_leave_no_nodes() -> None:
    editing, place = ready()
    editing.click(place)
    before = slicer.mrmlScene.GetNumberOfNodes()
    look_at(place)
    x, y = pixel_of("Red", place)
    for step in range(99):
        with collecting(editing.session.answered, editing.session.failed) as told:
            press_and_release("Red", x + step % 10, y + step // 10)
            wait_for(lambda told=told: told, "the click is answered")
    assert len(editing.session.rows) == 100
    assert slicer.mrmlScene.GetNumberOfNodes() == before


@test
def message_about_the_engine_goes_with_the_next_click() -> None:
    panel = open_module()
    editing, place = ready()
    editing.click(place)
    kill(services().engine.info.pid)
    message = panel.automatic.message
    wait_for(lambda: message.text and services().engine.state == "ready", "the engine is back")
    assert "ended" in message.text, message.text
    editing.click(tuple(np.add(place, (0.0, 0.0, 2.0))))
    assert not message.text, message.text


@test
def another_object_begins_with_what_belongs_to_it() -> None:
    editing, _place = ready()
    editing.session.set_positive(False)
    added = editing.node.GetSegmentation().AddEmptySegment("", "Lesion")
    editing.editor.setCurrentSegmentID(added)
    settle()
    assert editing.session.positive, "the next click would remove"
