"""Changed boxes of segments, by the rules of the Segment Editor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import slicer
import vtk
from mrml_scene import AFFINES, RADIUS, SHAPE, Application, Editor, ball, middle_of, places_in_world
from vtk.util import numpy_support

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.boxes import box_of, slices
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, read_clicks, store_clicks
from VISTA3DSegmentLib.mrml.segments import create_segmentation, ensure_segment, get_tag, read_mask, set_tag
from VISTA3DSegmentLib.mrml.volumes import ijk_to_world
from VISTA3DSegmentLib.mrml.writing import write_box

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
LIVER, SPLEEN, AORTA = (catalogue()[name] for name in ("liver", "spleen", "aorta"))


class Writing:
    """A segmentation with a segment that is being edited, and another one."""

    def __init__(self, app: Application, volume: Volume, segmentation: Segmentation | None = None) -> None:
        self.app, self.volume = app, volume
        self.node = segmentation or create_segmentation(app.scene, volume)
        self.liver, self.spleen = (ensure_segment(self.node, one) for one in (LIVER, SPLEEN))
        self.editor: Editor = app.editor(self.node, volume, self.liver)

    def write(self, mask: np.ndarray, segment_id: str | None = None, box: tuple | None = None) -> None:
        """Let a segment hold a mask, one undo step."""
        segment_id = segment_id or self.liver
        before = self.read(segment_id)
        box = box or box_of(mask | before) or ((0, 1), (0, 1), (0, 1))
        self.editor.writer.save_state()
        write_box(self.editor.writer, self.node, segment_id, self.volume, before[slices(box)], mask[slices(box)], box)

    def read(self, segment_id: str | None = None) -> np.ndarray:
        return read_mask(self.node, segment_id or self.liver, self.volume)


@pytest.fixture
def writing(app: Application, ct: Volume) -> Writing:
    return Writing(app, ct)


def cube(*box: tuple[int, int]) -> np.ndarray:
    """Return a mask of the CT's grid that holds a box."""
    mask = np.zeros(SHAPE, bool)
    mask[slices(box)] = True
    return mask


ONE, OTHER = cube((5, 20), (6, 22), (3, 14)), cube((12, 30), (10, 30), (8, 20))


def test_a_mask_is_written_to_the_voxel_in_every_orientation(app: Application, any_ct: Volume) -> None:
    writing, truth = Writing(app, any_ct), ball(any_ct)
    writing.write(truth)
    assert np.array_equal(writing.read(), truth)
    places = places_in_world(writing.node, writing.liver)
    assert np.allclose(places.mean(axis=0), middle_of(any_ct), atol=0.05)


def test_what_is_new_is_added_and_what_is_gone_removed(writing: Writing) -> None:
    writing.write(ONE)
    writing.write(OTHER)
    assert np.array_equal(writing.read(), OTHER)
    writing.write(np.zeros(SHAPE, bool))
    assert not writing.read().any()
    writing.write(ONE)
    assert np.array_equal(writing.read(), ONE)


def test_only_the_box_is_touched(writing: Writing) -> None:
    writing.write(ONE)
    box = ((10, 15), (10, 15), (5, 9))
    writing.write(np.zeros(SHAPE, bool), box=box)
    assert np.array_equal(writing.read(), ONE & ~cube(*box))


def test_without_a_change_nothing_is_written(writing: Writing) -> None:
    writing.write(ONE)
    image = writing.node.GetSegmentation().GetSegment(writing.liver).GetRepresentation("Binary labelmap")
    before = image.GetMTime()
    writing.write(ONE)
    assert image.GetMTime() == before


def test_random_edits_are_exact(writing: Writing) -> None:
    generator = np.random.default_rng(5)
    for _ in range(10):
        mask = generator.random(SHAPE) < generator.random()
        mask[generator.integers(0, SHAPE[0]) :] = False
        writing.write(mask)
        assert np.array_equal(writing.read(), mask)


# Undo


def test_undo_and_redo_bring_masks_back(writing: Writing) -> None:
    writing.write(ONE)
    writing.write(OTHER)
    masks = []
    for step in (writing.editor.logic.Undo, writing.editor.logic.Undo, writing.editor.logic.Redo):
        step()
        masks.append(writing.read())
    writing.editor.logic.Redo()
    assert not masks[1].any()
    assert np.array_equal(masks[0], ONE)
    assert np.array_equal(masks[2], ONE)
    assert np.array_equal(writing.read(), OTHER)


def test_a_tag_that_is_set_after_the_state_was_saved_is_undone_with_the_mask(writing: Writing) -> None:
    clicks = [ClickList((StoredClick((1.0, 2.0, float(n))),), mask=str(n)) for n in range(3)]
    for n, mask in enumerate((ONE, OTHER, ONE & OTHER)):
        writing.write(mask)
        store_clicks(writing.node, writing.liver, clicks[n])
    writing.editor.logic.Undo()
    assert np.array_equal(writing.read(), OTHER)
    assert read_clicks(writing.node, writing.liver) == clicks[1]
    writing.editor.logic.Undo()
    writing.editor.logic.Undo()
    assert not read_clicks(writing.node, writing.liver)
    for _ in range(3):
        writing.editor.logic.Redo()
    assert read_clicks(writing.node, writing.liver) == clicks[2]
    assert np.array_equal(writing.read(), ONE & OTHER)


def test_a_deleted_segment_comes_back_with_its_tags(writing: Writing) -> None:
    writing.write(ONE)
    set_tag(writing.node, writing.liver, "VISTA3D.Test", "here")
    writing.editor.writer.save_state()
    writing.node.GetSegmentation().RemoveSegment(writing.liver)
    writing.editor.logic.Undo()
    assert np.array_equal(writing.read(), ONE)
    assert get_tag(writing.node, writing.liver, "VISTA3D.Test") == "here"


# Overwriting


@pytest.mark.parametrize("mode", ["None", "VisibleSegments", "AllSegments"])
@pytest.mark.parametrize("visible", [True, False])
def test_overwrite_modes_hold(writing: Writing, mode: str, visible: bool) -> None:
    writing.write(OTHER, writing.spleen)
    writing.editor.node.SetOverwriteMode(getattr(writing.editor.node, f"Overwrite{mode}"))
    writing.node.GetDisplayNode().SetSegmentVisibility(writing.spleen, visible)
    writing.write(ONE)
    overwritten = mode == "AllSegments" or (mode == "VisibleSegments" and visible)
    assert np.array_equal(writing.read(), ONE)
    assert np.array_equal(writing.read(writing.spleen), OTHER & ~ONE if overwritten else OTHER)
    writing.editor.logic.Undo()
    assert np.array_equal(writing.read(writing.spleen), OTHER)


def test_segments_of_a_shared_labelmap_overlap_when_nothing_is_overwritten(writing: Writing) -> None:
    assert writing.node.GetSegmentation().GetNumberOfLayers() == 2
    third = writing.node.GetSegmentation().AddEmptySegment("third")
    assert writing.node.GetSegmentation().GetNumberOfLayers() == 2
    writing.write(ONE)
    writing.write(OTHER, third)
    assert np.array_equal(writing.read(), ONE)
    assert np.array_equal(writing.read(third), OTHER)


# Masking


def test_only_inside_a_segment(writing: Writing) -> None:
    writing.write(OTHER, writing.spleen)
    writing.editor.node.SetMaskMode(writing.node.EditAllowedInsideSingleSegment)
    writing.editor.node.SetMaskSegmentID(writing.spleen)
    writing.write(ONE)
    assert np.array_equal(writing.read(), ONE & OTHER)
    assert np.array_equal(writing.read(writing.spleen), OTHER)


def test_only_outside_all_segments(writing: Writing) -> None:
    writing.write(OTHER, writing.spleen)
    writing.editor.node.SetMaskMode(writing.node.EditAllowedOutsideAllSegments)
    writing.write(ONE)
    assert np.array_equal(writing.read(), ONE & ~OTHER)


def test_only_in_an_intensity_range(writing: Writing) -> None:
    writing.editor.node.SourceVolumeIntensityMaskOn()
    writing.editor.node.SetSourceVolumeIntensityMaskRange(0, 500)
    writing.write(ONE)
    voxels = numpy_support.vtk_to_numpy(writing.volume.GetImageData().GetPointData().GetScalars())
    voxels = voxels.reshape(SHAPE[::-1]).transpose(2, 1, 0)
    allowed = (voxels >= 0) & (voxels <= 500)
    assert np.array_equal(writing.read(), ONE & allowed)
    writing.write(np.zeros(SHAPE, bool))
    assert not writing.read().any()


def test_masking_holds_for_a_segment_that_is_not_selected(writing: Writing) -> None:
    writing.write(ONE)
    writing.editor.node.SetMaskMode(writing.node.EditAllowedOutsideAllSegments)
    writing.write(OTHER, writing.spleen)
    assert np.array_equal(writing.read(writing.spleen), OTHER & ~ONE)


# Other geometries


def test_writing_under_transforms_is_within_one_voxel(app: Application, placed: tuple[Volume, Segmentation]) -> None:
    writing, truth = Writing(app, *placed), ball(placed[0])
    writing.write(truth)
    places = places_in_world(writing.node, writing.liver)
    distances = np.linalg.norm(places - middle_of(writing.volume), axis=1)
    voxel = np.linalg.norm(ijk_to_world(writing.volume)[:3, :3] @ (1, 1, 1))
    assert np.allclose(places.mean(axis=0), middle_of(writing.volume), atol=0.15)
    assert RADIUS - voxel < distances.max() < RADIUS + voxel
    found = writing.read()
    assert 2 * np.sum(found & truth) / (found.sum() + truth.sum()) > 0.93


@pytest.mark.parametrize("name", ["straight", "anisotropic", "oblique and left-handed"])
def test_a_segmentation_of_another_geometry_keeps_its_own(app: Application, ct: Volume, name: str) -> None:
    """What lies outside the box stays to the voxel, because the segmentation keeps its own lattice."""
    reference = app.add_volume((50, 50, 50), AFFINES[name])
    other = Writing(app, reference)
    kept = ball(reference, middle_of(ct) + np.array([0, 0, 23]), 6)
    other.write(kept)
    writing = Writing(app, ct, other.node)
    truth = ball(ct, radius=9)
    before = writing.read()
    box = box_of(truth)
    writing.editor.writer.save_state()
    write_box(writing.editor.writer, writing.node, writing.liver, ct, before[slices(box)], truth[slices(box)], box)
    both = other.read()
    assert np.array_equal(both & kept, kept)
    expected = ball(reference, middle_of(ct), 9)
    added = both & ~kept
    assert 2 * np.sum(added & expected) / (added.sum() + expected.sum()) > 0.9
    writing.editor.logic.Undo()
    assert np.array_equal(other.read(), kept)


def test_masking_holds_in_another_geometry(app: Application, ct: Volume) -> None:
    reference = app.add_volume((50, 50, 50), AFFINES["straight"])
    writing = Writing(app, ct, create_segmentation(app.scene, reference))
    writing.editor.node.SourceVolumeIntensityMaskOn()
    writing.editor.node.SetSourceVolumeIntensityMaskRange(5000, 6000)
    writing.write(ball(ct))
    assert not writing.read().any()


def test_a_segmentation_without_geometry_gets_the_volumes(app: Application, ct: Volume) -> None:
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    writing = Writing(app, ct, node)
    writing.write(ONE)
    assert np.array_equal(writing.read(), ONE)


# What cannot be written


def _without_segment(writing: Writing) -> None:
    writing.node.GetSegmentation().RemoveSegment(writing.liver)


def _bent(writing: Writing) -> None:
    writing.node.SetAndObserveTransformNodeID(writing.app.add_bending_transform().GetID())


def _surfaces(writing: Writing) -> None:
    writing.node.GetSegmentation().SetSourceRepresentationName("Closed surface")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_without_segment, "was deleted"), (_bent, "non-linear"), (_surfaces, "is stored as 'Closed surface'")],
)
def test_what_cannot_be_written_is_an_error_and_changes_nothing(
    writing: Writing, spoil: Callable[[Writing], None], reason: str
) -> None:
    spoil(writing)
    heard = []
    segmentation = writing.node.GetSegmentation()
    tag = segmentation.AddObserver(vtk.vtkCommand.AnyEvent, lambda *_: heard.append(1))
    whole = tuple((0, size) for size in SHAPE)
    with pytest.raises(InputError, match=reason):
        write_box(writing.editor.writer, writing.node, writing.liver, writing.volume, ONE & ~ONE, ONE, whole)
    segmentation.RemoveObserver(tag)
    assert not heard
