"""Results of automatic runs as segments."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import slicer
import vtk
from hypothesis import given, settings
from hypothesis import strategies as st
from mrml_scene import (
    AFFINES,
    RADIUS,
    SHAPE,
    Application,
    affine_of,
    ball,
    middle_of,
    places_in_world,
    places_of,
    rigid,
    rotation,
)

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, read_clicks, store_clicks
from VISTA3DSegmentLib.mrml.labelmaps import oriented_image
from VISTA3DSegmentLib.mrml.layers import drained
from VISTA3DSegmentLib.mrml.provenance import read_provenance
from VISTA3DSegmentLib.mrml.results import empty_segments, write_in_steps, write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation, ensure_segment, is_empty, read_mask, structure_of
from VISTA3DSegmentLib.mrml.volumes import ijk_to_world

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
CATALOGUE = catalogue()
LIVER, SPLEEN, AORTA, TUMOR, VESSEL = (
    CATALOGUE[name] for name in ("liver", "spleen", "aorta", "hepatic tumor", "hepatic vessel")
)
FACTS = {"model": "vista3d-ct", "revision": "0.6.0", "licence": "NVIDIA OneWay|Noncommercial", "version": "1.0"}


def labels_of(masks: dict) -> np.ndarray:
    """Return a label array from masks of structures."""
    labels = np.zeros(SHAPE, np.uint16, order="F")
    for structure, mask in masks.items():
        labels[mask] = structure.index
    return labels


def spots(count: int, seed: int = 0) -> np.ndarray:
    """Return labels 1 to ``count``, at random."""
    return np.asfortranarray(np.random.default_rng(seed).integers(0, count + 1, SHAPE).astype(np.uint16))


@pytest.fixture
def segmentation(app: Application, ct: Volume) -> Segmentation:
    return create_segmentation(app.scene, ct)


def test_a_result_is_exact_in_every_orientation(app: Application, any_ct: Volume) -> None:
    node, truth = create_segmentation(app.scene, any_ct), ball(any_ct)
    tumor = ball(any_ct, radius=6)
    ids = write_result(node, any_ct, labels_of({LIVER: truth}), {TUMOR.index: tumor}, [LIVER, TUMOR], FACTS)
    assert [structure_of(node, one, CATALOGUE) for one in ids] == [LIVER, TUMOR]
    assert np.array_equal(read_mask(node, ids[0], any_ct), truth)
    assert np.array_equal(read_mask(node, ids[1], any_ct), tumor)
    for one in ids:
        assert np.allclose(places_in_world(node, one).mean(axis=0), middle_of(any_ct), atol=0.05)


def test_a_result_is_within_one_voxel_under_transforms(placed: tuple[Volume, Segmentation]) -> None:
    volume, node = placed
    ensure_segment(node, SPLEEN)  # so that its geometry counts
    truth = ball(volume)
    ids = write_result(node, volume, labels_of({LIVER: truth}), {TUMOR.index: truth}, [LIVER, TUMOR], FACTS)
    voxel = np.linalg.norm(ijk_to_world(volume)[:3, :3] @ (1, 1, 1))
    for one in ids:
        places = places_in_world(node, one)
        assert np.allclose(places.mean(axis=0), middle_of(volume), atol=0.15)
        assert np.linalg.norm(places - middle_of(volume), axis=1).max() < RADIUS + voxel
        found = read_mask(node, one, volume)
        assert 2 * np.sum(found & truth) / (found.sum() + truth.sum()) > 0.93


angles = st.floats(-180, 180)
spacings = st.floats(0.6, 2.5).flatmap(lambda size: st.sampled_from([size, -size]))


@settings(max_examples=25)
@given(st.tuples(*3 * [angles]), st.tuples(*3 * [spacings]), st.tuples(*3 * [angles]), st.booleans())
def test_a_result_is_where_it_belongs_whatever_the_geometry(
    turn: tuple, spacing: tuple, moved: tuple, segmentation_too: bool
) -> None:
    app = Application()
    ct = app.add_volume(SHAPE, affine_of(rotation(*turn) @ np.diag(spacing)))
    node = create_segmentation(app.scene, ct)
    ensure_segment(node, SPLEEN)  # so that its geometry counts
    transform = app.add_transform(rigid(moved, (20.0, -35.0, 4.0))).GetID()
    for one in (ct, node) if segmentation_too else (ct,):
        one.SetAndObserveTransformNodeID(transform)
    truth = ball(ct, radius=9)
    (liver,) = write_result(node, ct, labels_of({LIVER: truth}), {}, [LIVER], FACTS)
    places, found = places_in_world(node, liver), read_mask(node, liver, ct)
    voxel = float(np.linalg.norm(spacing))
    # Half a voxel along each axis: as far as nearest neighbors can be off where all of them are ties.
    assert np.linalg.norm(places.mean(axis=0) - places_of(truth, ct).mean(axis=0)) < 0.51 * voxel
    assert np.linalg.norm(places - middle_of(ct), axis=1).max() < 9 + voxel
    if segmentation_too:
        assert np.array_equal(found, truth)
    else:
        assert 2 * np.sum(found & truth) / (found.sum() + truth.sum()) > 0.85


def test_an_empty_segmentation_of_another_volume_takes_the_geometry(app: Application, ct: Volume) -> None:
    node = create_segmentation(app.scene, app.add_volume((9, 9, 9), AFFINES["straight"]))
    truth = ball(ct)
    (liver,) = write_result(node, ct, labels_of({LIVER: truth}), {}, [LIVER], FACTS)
    assert np.array_equal(read_mask(node, liver, ct), truth)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is ct


def test_a_segmentation_of_a_part_of_the_volume_takes_the_whole(app: Application, ct: Volume) -> None:
    """The geometry of a cropped volume has the same voxels, with other indices."""
    affine = AFFINES["oblique"].copy()
    affine[:3, 3] += affine[:3, :3] @ (10, 12, 4)
    node = create_segmentation(app.scene, app.add_volume((10, 10, 10), affine))
    ensure_segment(node, SPLEEN)
    truth = ball(ct)
    (liver,) = write_result(node, ct, labels_of({LIVER: truth}), {}, [LIVER], FACTS)
    assert np.array_equal(read_mask(node, liver, ct), truth)


def test_everything_shares_one_labelmap(segmentation: Segmentation, ct: Volume) -> None:
    everything = CATALOGUE.everything
    labels = spots(len(everything))
    labels = np.array([0, *(one.index for one in everything)], np.uint16)[labels]
    labels[:, :, 20:] = 0
    ids = write_result(segmentation, ct, labels, {}, everything, FACTS)
    assert len(set(ids)) == 117
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 1
    image = segmentation.GetSegmentation().GetSegment(ids[0]).GetRepresentation("Binary labelmap")
    assert image.GetScalarType() == vtk.VTK_UNSIGNED_CHAR
    assert image.GetExtent()[5] == 19
    for one, segment_id in zip(everything, ids, strict=True):
        assert np.array_equal(read_mask(segmentation, segment_id, ct), labels == one.index)


def test_numbers_beyond_255_fit(segmentation: Segmentation, ct: Volume) -> None:
    many = [one for one in catalogue("vista3d-ctmr") if one.supported][-60:]
    labels = np.array([0, *(one.index for one in many)], np.uint16)[spots(len(many))]
    ids = write_result(segmentation, ct, labels, {}, many, FACTS)
    assert np.array_equal(read_mask(segmentation, ids[-1], ct), labels == many[-1].index)


def test_overlapping_structures_have_labelmaps_of_their_own(segmentation: Segmentation, ct: Volume) -> None:
    liver, tumor, vessel = ball(ct), ball(ct, radius=5), ball(ct, middle_of(ct) + 4, 6)
    masks = {TUMOR.index: tumor, VESSEL.index: vessel}
    ids = write_result(segmentation, ct, labels_of({LIVER: liver}), masks, [TUMOR, LIVER, VESSEL], FACTS)
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 3
    for one, mask in zip(ids, (tumor, liver, vessel), strict=True):
        assert np.array_equal(read_mask(segmentation, one, ct), mask)


def test_labels_that_were_not_asked_for_are_left_out(segmentation: Segmentation, ct: Volume) -> None:
    labels = labels_of({LIVER: ball(ct), SPLEEN: ball(ct, radius=5)})
    (liver,) = write_result(segmentation, ct, labels, {}, [LIVER], FACTS)
    image = segmentation.GetSegmentation().GetSegment(liver).GetRepresentation("Binary labelmap")
    assert image.GetScalarRange() == (0.0, 1.0)


def test_structures_that_were_not_found_are_empty_segments(segmentation: Segmentation, ct: Volume) -> None:
    labels, nothing = labels_of({LIVER: ball(ct)}), np.zeros(SHAPE, bool)
    ids = write_result(segmentation, ct, labels, {TUMOR.index: nothing}, [LIVER, SPLEEN, TUMOR], FACTS)
    assert empty_segments(segmentation, ids) == ids[1:]
    assert [is_empty(segmentation, one) for one in ids] == [False, True, True]
    assert segmentation.GetSegmentation().GetNumberOfLayers() == 1
    segment = segmentation.GetSegmentation().GetSegment(ids[1])
    assert segment.GetName() == "Spleen"


def test_structures_that_were_not_found_are_left_out_unless_their_segments_are_there(
    segmentation: Segmentation, ct: Volume
) -> None:
    (spleen,) = write_result(segmentation, ct, labels_of({SPLEEN: ball(ct)}), {}, [SPLEEN], FACTS)
    segmentation.GetSegmentation().GetSegment(spleen).SetName("mine")
    found, before = [LIVER, SPLEEN, AORTA, TUMOR], read_mask(segmentation, spleen, ct)
    masks = {TUMOR.index: np.zeros(SHAPE, bool)}
    steps = write_in_steps(segmentation, ct, labels_of({LIVER: ball(ct)}), masks, found, FACTS, keep_empty=False)
    written = drained(steps)
    assert [structure_of(segmentation, one, CATALOGUE) for one in written.ids] == [LIVER, SPLEEN]
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert segmentation.GetSegmentation().GetSegment(spleen).GetName() == "mine"
    assert is_empty(segmentation, spleen)
    written.change.undo()
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == [spleen]
    assert np.array_equal(read_mask(segmentation, spleen, ct), before)


@pytest.mark.parametrize("masks", [{}, {TUMOR.index: np.zeros(SHAPE, bool)}])
def test_nothing_at_all_was_found(app: Application, segmentation: Segmentation, ct: Volume, masks: dict) -> None:
    ids = write_result(segmentation, ct, labels_of({}), masks, [LIVER, SPLEEN, TUMOR], FACTS)
    assert empty_segments(segmentation, ids) == ids
    editor, truth = app.editor(segmentation, ct, ids[1]), ball(ct)
    image = oriented_image(truth, AFFINES["oblique"])
    editor.writer.modify(segmentation, ids[1], image, "add", image.GetExtent())
    assert np.array_equal(read_mask(segmentation, ids[1], ct), truth)
    assert is_empty(segmentation, ids[0])


def test_only_overlapping_structures(segmentation: Segmentation, ct: Volume) -> None:
    (tumor,) = write_result(segmentation, ct, labels_of({}), {TUMOR.index: ball(ct)}, [TUMOR], FACTS)
    assert np.array_equal(read_mask(segmentation, tumor, ct), ball(ct))


def test_provenance_is_stored(segmentation: Segmentation, ct: Volume) -> None:
    ids = write_result(segmentation, ct, labels_of({LIVER: ball(ct)}), {}, [LIVER, SPLEEN], FACTS)
    for one in ids:
        assert read_provenance(segmentation, one) == FACTS | {"licence": "NVIDIA OneWay/Noncommercial"}


# A second result


def test_a_segment_is_replaced_in_place(segmentation: Segmentation, ct: Volume) -> None:
    first, second = ball(ct), ball(ct, middle_of(ct) + 3, 9)
    write_result(segmentation, ct, labels_of({SPLEEN: first, LIVER: second}), {}, [SPLEEN, LIVER], FACTS)
    segment = segmentation.GetSegmentation().GetSegment("liver")
    segment.SetName("mine")
    segment.SetColor(0.1, 0.2, 0.3)
    (liver,) = write_result(segmentation, ct, labels_of({LIVER: first}), {}, [LIVER], {"model": "mini"})
    assert liver == "liver"
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["spleen", "liver"]
    assert (segment.GetName(), segment.GetColor()) == ("mine", (0.1, 0.2, 0.3))
    assert read_provenance(segmentation, liver) == {"model": "mini"}
    assert np.array_equal(read_mask(segmentation, "liver", ct), first)
    assert np.array_equal(read_mask(segmentation, "spleen", ct), first & ~second)


def test_what_is_replaced_leaves_nothing_in_a_shared_labelmap(segmentation: Segmentation, ct: Volume) -> None:
    labels, three = spots(6), [LIVER, SPLEEN, AORTA]
    write_result(segmentation, ct, labels, {}, three, FACTS)
    aorta = segmentation.GetSegmentation().GetSegment("aorta").GetRepresentation("Binary labelmap")
    write_result(segmentation, ct, spots(6, 1), {}, [LIVER, SPLEEN], FACTS)
    assert segmentation.GetSegmentation().GetSegment("aorta").GetRepresentation("Binary labelmap") is aorta
    assert np.array_equal(read_mask(segmentation, "aorta", ct), labels == AORTA.index)
    added = segmentation.GetSegmentation().AddEmptySegment("new")
    assert is_empty(segmentation, added)
    write_result(segmentation, ct, spots(6, 2), {}, three, FACTS)
    assert np.array_equal(read_mask(segmentation, "aorta", ct), spots(6, 2) == AORTA.index)
    assert np.array_equal(read_mask(segmentation, "liver", ct), spots(6, 2) == LIVER.index)


def test_other_segments_are_untouched(app: Application, segmentation: Segmentation, ct: Volume) -> None:
    drawn = segmentation.GetSegmentation().AddEmptySegment("drawn", "my lesion")
    editor, image = app.editor(segmentation, ct, drawn), oriented_image(ball(ct), AFFINES["oblique"])
    editor.writer.modify(segmentation, drawn, image, "add", image.GetExtent())
    events = []
    segment = segmentation.GetSegmentation().GetSegment(drawn)
    segment.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: events.append(1))
    write_result(segmentation, ct, spots(6), {}, [LIVER, SPLEEN], FACTS)
    assert not events
    assert np.array_equal(read_mask(segmentation, drawn, ct), ball(ct))


def test_a_segment_that_the_user_named_is_filled(segmentation: Segmentation, ct: Volume) -> None:
    named = segmentation.GetSegmentation().AddEmptySegment("", "liver")
    (liver,) = write_result(segmentation, ct, labels_of({LIVER: ball(ct)}), {}, [LIVER], FACTS)
    assert liver == named
    segment = segmentation.GetSegmentation().GetSegment(liver)
    assert segment.GetName() == "liver"
    assert segment.GetTerminology() == LIVER.terminology_entry()


def test_surfaces_follow_the_new_result(segmentation: Segmentation, ct: Volume) -> None:
    write_result(segmentation, ct, labels_of({LIVER: ball(ct), SPLEEN: ball(ct, radius=5)}), {}, [LIVER, SPLEEN], FACTS)
    segmentation.CreateClosedSurfaceRepresentation()
    segments = segmentation.GetSegmentation()
    kept = segments.GetSegment("spleen").GetRepresentation("Closed surface")
    small = labels_of({LIVER: ball(ct, radius=5), AORTA: ball(ct, middle_of(ct) + 10, 4)})
    write_result(segmentation, ct, small, {}, [LIVER, AORTA], FACTS)
    bounds = [0.0] * 6
    segments.GetSegment("liver").GetRepresentation("Closed surface").GetBounds(bounds)
    assert max(np.diff(np.reshape(bounds, (3, 2)), axis=1)) < 16
    assert segments.GetSegment("aorta").GetRepresentation("Closed surface").GetNumberOfPoints() > 0
    assert segments.GetSegment("spleen").GetRepresentation("Closed surface") is kept


def test_a_result_can_be_undone(app: Application, segmentation: Segmentation, ct: Volume) -> None:
    write_result(segmentation, ct, spots(6), {}, [LIVER, SPLEEN, AORTA], FACTS)
    clicked = ClickList((StoredClick((1.0, 2.0, 3.0)),), LIVER.index)
    store_clicks(segmentation, "liver", clicked)
    editor = app.editor(segmentation, ct, "liver")
    editor.writer.save_state()
    write_result(segmentation, ct, spots(6, 1), {}, [LIVER, SPLEEN], {"model": "mini"})
    assert not read_clicks(segmentation, "liver").clicks
    editor.logic.Undo()
    assert read_clicks(segmentation, "liver") == clicked
    for structure in (LIVER, SPLEEN, AORTA):
        assert np.array_equal(read_mask(segmentation, structure.name, ct), spots(6) == structure.index)
    assert read_provenance(segmentation, "liver")["model"] == "vista3d-ct"
    editor.logic.Redo()
    assert np.array_equal(read_mask(segmentation, "liver", ct), spots(6, 1) == LIVER.index)


def test_the_node_tells_of_everything_at_once(segmentation: Segmentation, ct: Volume) -> None:
    heard = []
    for event in ("SegmentAdded", "SegmentModified", "SourceRepresentationModified", "RepresentationModified"):
        number = getattr(slicer.vtkSegmentation, event)
        segmentation.AddObserver(number, lambda *_, event=event: heard.append(event))
    write_result(segmentation, ct, spots(100), {}, CATALOGUE.everything, FACTS)
    assert sorted(heard) == ["RepresentationModified", "SegmentAdded", "SourceRepresentationModified"]
    heard.clear()
    write_result(segmentation, ct, spots(100, 1), {}, CATALOGUE.everything, FACTS)
    assert sorted(heard) == ["RepresentationModified", "SegmentModified", "SourceRepresentationModified"]


# What cannot be written


def _other_shape(app: Application, node: Segmentation, ct: Volume) -> None:
    ct.SetAndObserveImageData(app.add_volume((5, 6, 7), np.eye(4)).GetImageData())


def _no_voxels(app: Application, node: Segmentation, ct: Volume) -> None:
    ct.SetAndObserveImageData(None)


def _bent(app: Application, node: Segmentation, ct: Volume) -> None:
    ct.SetAndObserveTransformNodeID(app.add_bending_transform().GetID())


def _moved(app: Application, node: Segmentation, ct: Volume) -> None:
    ct.SetOrigin(1, 2, 3)


def _surfaces(app: Application, node: Segmentation, ct: Volume) -> None:
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")


SPOILED = {_other_shape: "does not fit", _no_voxels: "does not fit", _bent: "non-linear", _surfaces: "is stored as"}


@pytest.mark.parametrize(("spoil", "reason"), SPOILED.items(), ids=[one.__name__ for one in SPOILED])
def test_what_cannot_be_written_is_an_error_and_changes_nothing(
    app: Application, segmentation: Segmentation, ct: Volume, spoil: Callable, reason: str
) -> None:
    ensure_segment(segmentation, SPLEEN)
    spoil(app, segmentation, ct)
    with pytest.raises(InputError, match=reason):
        write_result(segmentation, ct, spots(3), {}, [LIVER, SPLEEN], FACTS)
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["spleen"]


@pytest.mark.parametrize("spoil", [_other_shape, _no_voxels, _bent, _moved, _surfaces])
def test_changes_between_the_steps_are_noticed(
    app: Application, segmentation: Segmentation, ct: Volume, spoil: Callable
) -> None:
    ensure_segment(segmentation, SPLEEN)
    steps = write_in_steps(segmentation, ct, spots(3), {}, [LIVER, SPLEEN], FACTS)
    next(steps)
    spoil(app, segmentation, ct)
    with pytest.raises(InputError):
        list(steps)
    assert list(segmentation.GetSegmentation().GetSegmentIDs()) == ["spleen"]


# Memory and time


@pytest.mark.alone
def test_many_structures_of_a_large_volume_take_the_memory_of_one_labelmap(app: Application) -> None:
    """Measured once with 512 x 512 x 300: 0.34 s, 65 MB more than before."""
    shape = (320, 320, 160)
    ct = app.add_volume(shape, AFFINES["oblique"], np.uint8)
    node, everything = create_segmentation(app.scene, ct), CATALOGUE.everything
    labels = np.zeros(shape, np.uint16, order="F")
    for n, one in enumerate(everything):
        i, j, k = 32 * (n % 10), 32 * (n // 10 % 10), 80 * (n // 100)
        labels[i : i + 30, j : j + 30, k : k + 70] = one.index
    before, started, longest = _memory(), time.perf_counter(), 0.0
    for _step in write_in_steps(node, ct, labels, {}, everything, FACTS):
        longest, started = max(longest, time.perf_counter() - started), time.perf_counter()
    assert node.GetSegmentation().GetNumberOfSegments() == 117
    assert longest < 1.0
    if before:
        assert _memory() - before < 4 * labels.size


def _memory() -> int:
    """Return the most memory that this process has used, bytes; 0 where it cannot be told."""
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
