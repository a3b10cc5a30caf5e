"""Volume -> structures -> segments, with real nodes, a real engine process and the bundled model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from automatic_cases import KNOWN, LIVER, TUMOR, Running
from engine_helpers import EngineUnderTest
from engine_processes import coarse_phantom
from logic_helpers import (
    SHAPE,
    add_transform,
    add_volume,
    assert_sentence,
    rotated,
)
from vtk.util.numpy_support import vtk_to_numpy

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DSegmentLib.logic.regions import roi_box, volume_box
from VISTA3DSegmentLib.logic.settings import Rate
from VISTA3DSegmentLib.mrml.provenance import read_provenance
from VISTA3DSegmentLib.mrml.results import empty_segments
from VISTA3DSegmentLib.mrml.segments import read_mask, structure_of

pytestmark = pytest.mark.slow

CT = catalogue("vista3d-ct")


def turned(volume: Volume, kind: str) -> Volume:
    """Return the CT as another scanner would have stored it, or of a patient who lies otherwise."""
    if kind == "oblique":
        return Volume(volume.array, rotated((8, -6, 11), (30, -20, 400)) @ volume.affine)
    if kind == "flipped":
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        flip[:2, 3] = np.array(volume.shape[:2]) - 1
        return Volume(volume.array[::-1, ::-1], volume.affine @ flip)
    return volume


def center_of(segmentation: slicer.vtkMRMLSegmentationNode, segment_id: str) -> np.ndarray:
    """Return a segment's center of mass, world RAS mm, by Slicer's classes alone."""
    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, image)
    image.GetImageToWorldMatrix(matrix)
    extent = np.array(image.GetExtent()).reshape(3, 2)
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape((extent[:, 1] - extent[:, 0] + 1)[::-1])
    center = np.argwhere(voxels > 0).mean(axis=0)[::-1] + extent[:, 0]
    world, parent = vtk.vtkGeneralTransform(), segmentation.GetParentTransformNode()
    if parent is not None:
        parent.GetTransformToWorld(world)
    return np.array(world.TransformPoint(matrix.MultiplyPoint((*center, 1.0))[:3]))


@pytest.mark.parametrize("kind", ["straight", "oblique", "flipped", "transformed"])
def test_segments_lie_where_the_engine_saw_the_structures(tiny: Running, tiny_model: Path, kind: str) -> None:
    volume = coarse_phantom(SHAPE)
    tiny.scene.RemoveNode(tiny.volume)
    tiny.volume, moved = add_volume(tiny.scene, turned(volume, kind)), np.eye(4)
    if kind == "transformed":
        moved = rotated((0, 5, -9), (100, 50, -70))
        add_transform(tiny.volume, moved)
    expected = volume if kind == "flipped" else Volume(volume.array, moved @ turned(volume, kind).affine)
    truth = Segmenter.from_pretrained(tiny_model, "cpu").open(expected).segment(KNOWN)
    segmentation, ids, notes = tiny.segment(structures=KNOWN)
    assert notes == ["5 structures were found."]
    for index, segment_id in zip(KNOWN, ids, strict=True):
        inside = np.append(np.argwhere(truth[index]).mean(axis=0), 1.0)
        assert np.linalg.norm(center_of(segmentation, segment_id) - (expected.affine @ inside)[:3]) < 1.0  # mm, of 12


def test_a_real_ct_gives_the_liver(under_test: EngineUnderTest, ct_data: Path) -> None:
    volume = Volume.read(ct_data / "ts_example_ct" / "ct.nii.gz")
    truth = Volume.read(ct_data / "ts_example_ct" / "label_vista3d.nii.gz").array == LIVER
    running = Running(under_test, volume, "mini")
    segmentation, (segment_id,), _notes = running.segment(structures=("liver",))
    found = read_mask(segmentation, segment_id, running.volume)
    running.volumes.close_all()
    assert 2 * np.count_nonzero(found & truth) > 0.7 * (np.count_nonzero(found) + np.count_nonzero(truth))


def test_a_result_is_what_the_engine_says_and_tells_where_it_came_from(tiny: Running, tiny_model: Path) -> None:
    segmentation, ids, _notes = tiny.segment(structures=(LIVER, 5, TUMOR))
    expected = Segmenter.from_pretrained(tiny_model, "cpu").open(coarse_phantom(SHAPE)).segment((LIVER, 5, TUMOR))
    for index, segment_id in zip((LIVER, 5, TUMOR), ids, strict=True):
        differing = np.count_nonzero(read_mask(segmentation, segment_id, tiny.volume) != expected[index])
        assert differing <= 3  # another number of threads rounds otherwise
        assert structure_of(segmentation, segment_id, CT).index == index
    provenance = read_provenance(segmentation, ids[0])
    assert (provenance["model"], provenance["preset"]) == ("tiny.safetensors", "bundle")
    assert segmentation.GetNodeReference("referenceImageGeometryRef") is tiny.volume


def test_specks_are_removed_on_request_and_the_segment_says_so(tiny: Running, tiny_model: Path) -> None:
    session = Segmenter.from_pretrained(tiny_model, "cpu").open(coarse_phantom(SHAPE))
    for asked, said in ((None, "no"), (False, "no"), (True, "share 0.02, minimum 0.1 ml")):
        segmentation, (segment_id,), _notes = tiny.segment(structures=(LIVER,), cleanup=asked)
        expected = session.segment((LIVER,), cleanup=asked)
        differing = np.count_nonzero(read_mask(segmentation, segment_id, tiny.volume) != expected[LIVER])
        assert differing <= 3  # another number of threads rounds otherwise
        assert read_provenance(segmentation, segment_id)["cleanup"] == expected.provenance["cleanup"] == said


def test_progress_goes_up_and_ends_with_one_signal(tiny: Running) -> None:
    segmentation, _ids, _notes = tiny.segment(preset="paper")
    fractions = [fraction for fraction, _text, _remaining in tiny.updates]
    assert fractions == sorted(fractions)
    assert (fractions[0], 0.95 < fractions[-1] <= 1) == (0, True)
    assert {"Segmenting", "Writing the segments"} <= {text for _fraction, text, _remaining in tiny.updates}
    assert any(remaining for _fraction, _text, remaining in tiny.updates)
    assert tiny.heard.events[0] == ("started", ())
    assert tiny.heard.events[-1][0] == "finished"
    assert segmentation.GetName() == "CT segmentation"
    assert not tiny.run.running


def near(mask: np.ndarray, voxel: tuple[int, int, int]) -> np.ndarray:
    """Return a mask around a voxel."""
    return mask[tuple(slice(max(one - 2, 0), one + 3) for one in voxel)]


def region_without_the_liver(tiny_model: Path) -> tuple[float, ...]:
    """Return a box of the phantom in which the tiny model finds no liver, RAS mm."""
    whole = Segmenter.from_pretrained(tiny_model, "cpu").open(coarse_phantom(SHAPE)).segment((LIVER, 14))
    voxel = next(voxel for voxel in np.ndindex(SHAPE) if whole[14][voxel] and not near(whole[LIVER], voxel).any())
    place = 12.0 * np.array(voxel)
    return (*(place - 1).tolist(), *(place + 1).tolist())


def test_structures_that_are_not_there_are_counted_and_named_and_get_no_segments(
    tiny: Running, tiny_model: Path
) -> None:
    region = region_without_the_liver(tiny_model)
    segmentation, ids, notes = tiny.segment(structures=(LIVER, 14), region=region)
    assert [structure_of(segmentation, one, CT).index for one in ids] == [14]
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert notes == ["1 of 2 structures were found.", "Not found in the region: Liver."]


def test_structures_that_are_not_there_get_empty_segments_on_request(tiny: Running, tiny_model: Path) -> None:
    region = region_without_the_liver(tiny_model)
    segmentation, ids, _notes = tiny.segment(structures=(LIVER, 14), region=region, keep_empty=True)
    assert [structure_of(segmentation, one, CT).index for one in ids] == [LIVER, 14]
    assert empty_segments(segmentation, ids) == ids[:1]


def test_one_structure_that_is_not_there_is_told_once(tiny: Running, tiny_model: Path) -> None:
    _segmentation, ids, notes = tiny.segment(structures=(LIVER,), region=region_without_the_liver(tiny_model))
    assert (ids, notes) == ([], ["Not found in the region: Liver."])
    tiny.run.last_run.undo()
    assert tiny.segmentations == 0


def test_an_existing_segmentation_is_updated_in_place(tiny: Running) -> None:
    segmentation, ids, _notes = tiny.segment()
    segmentation.GetSegmentation().GetSegment(ids[0]).SetColor(0.1, 0.2, 0.3)
    segmentation.GetSegmentation().AddEmptySegment("mine", "My own")
    announced = []
    tiny.run.writing.connect(lambda node: announced.append((node, node.GetSegmentation().GetNumberOfSegments())))
    again, new_ids, _notes = tiny.segment(segmentation=segmentation, structures=(LIVER, 5))
    assert again is segmentation
    assert announced == [(segmentation, 3)]  # in time to keep its state for undo
    assert new_ids[0] == ids[0]
    assert segmentation.GetSegmentation().GetSegment(ids[0]).GetColor() == (0.1, 0.2, 0.3)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 4
    assert tiny.segmentations == 1


def test_a_region_limits_the_result(tiny: Running) -> None:
    box = volume_box(tiny.volume)
    middle = (box[2] + box[5]) / 2
    segmentation, (segment_id,), _notes = tiny.segment(structures=(14,), region=(*box[:5], middle))
    mask = read_mask(segmentation, segment_id, tiny.volume)
    half = mask.shape[2] // 2
    assert mask[:, :, : half - 1].any()
    assert not mask[:, :, half + 1 :].any()
    tiny.segment(structures=(14,), segmentation=segmentation)
    assert read_mask(segmentation, segment_id, tiny.volume)[:, :, half + 1 :].any()


def test_a_turned_region_of_interest_limits_the_result(tiny: Running) -> None:
    roi = tiny.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    roi.SetSize(150, 100, 80)
    roi.SetCenter(0, 0, 0)
    add_transform(roi, rotated((0, 0, 30), (240, 240, 180)))
    region = roi_box(roi, tiny.volume)
    segmentation, (segment_id,), _notes = tiny.segment(structures=(14,), region=region)
    inside = 12.0 * np.argwhere(read_mask(segmentation, segment_id, tiny.volume))
    assert len(inside)
    assert (inside >= np.array(region[:3]) - 12).all()
    assert (inside <= np.array(region[3:]) + 12).all()


# What hides a result


def test_a_result_in_a_hidden_segmentation_says_so(tiny: Running) -> None:
    segmentation, ids, notes = tiny.segment()
    assert not [note for note in notes if "idden" in note]
    display = segmentation.GetDisplayNode()
    display.SetVisibility(False)
    assert tiny.segment(segmentation=segmentation)[2][-1].startswith("'CT segmentation' is hidden; click its eye")
    display.SetVisibility(True)
    display.SetSegmentVisibility(ids[1], False)
    assert tiny.segment(segmentation=segmentation)[2][-1].startswith("Hidden segments: Spleen;")
    display.SetSegmentVisibility(ids[1], True)
    assert tiny.segment(segmentation=segmentation)[2] == notes


# Time


def test_the_first_estimate_is_measured_and_the_next_ones_know_what_is_kept(tiny: Running) -> None:
    loop, told = tiny.under_test.loop, []
    tiny.run.estimate_changed.connect(lambda: told.append(tiny.run.estimate(tiny.request())))
    assert tiny.run.estimate(tiny.request()) == "Measuring how fast this computer is\N{HORIZONTAL ELLIPSIS}"
    assert tiny.run.estimate(tiny.request(structures=(5,))) is not None  # asks no second time
    loop.run_until(lambda: told)
    assert told == ["A few seconds on this processor."]  # four windows of the tiny model
    assert tiny.run.estimate(tiny.request(preset="paper")).endswith(" on this processor.")
    tiny.segment()
    tiny.settings.note_rate(tiny.model, "cpu", "bundle", Rate(600_000.0, (32, 32, 32), (12.0, 12.0, 12.0)))
    assert tiny.run.estimate(tiny.request(structures=(5,))).startswith("A few seconds: the network has already seen")
    assert "minutes" in tiny.run.estimate(tiny.request(region=(0.0, 0.0, 0.0, 200.0, 200.0, 200.0)))
    tiny.scene.RemoveNode(tiny.volume)
    tiny.volume = add_volume(tiny.scene)
    assert "already seen" not in tiny.run.estimate(tiny.request())


def test_a_run_does_not_wait_for_a_measurement(tiny: Running) -> None:
    told = []
    tiny.run.estimate_changed.connect(lambda: told.append(1))
    tiny.run.estimate(tiny.request())
    tiny.segment()
    assert not told
    assert tiny.run.estimate(tiny.request())


def test_measured_times_become_words(tiny: Running) -> None:
    assert tiny.run.estimate(tiny.request(structures=())) is None
    tiny.segment()
    assert tiny.store.values["rates"]
    tiny.under_test.engine.stop()  # what the network saw is gone, the times are not
    assert tiny.run.estimate(tiny.request(device="cpu")).endswith(" on this processor.")


def test_a_retained_map_teaches_nothing(tiny: Running) -> None:
    tiny.segment()
    before = tiny.store.values["rates"]
    tiny.segment(structures=(5,))
    assert tiny.store.values["rates"] == before


def test_a_slow_run_names_what_is_faster(tiny: Running) -> None:
    rate = Rate(60_000.0, (32, 32, 32), (12.0, 12.0, 12.0))
    tiny.settings.note_rate(tiny.model, "cpu", "bundle", rate)
    tiny.settings.note_rate(tiny.model, "cpu", "paper", rate)
    words = tiny.run.estimate(tiny.request(preset="paper"))
    assert "for a region of 20 cm" in words
    assert "in standard quality" in words
    assert_sentence(words)
    tiny.settings.note_rate(tiny.model, "cuda", "bundle", Rate(20.0, rate.window, rate.spacing))
    assert tiny.run.estimate(tiny.request(device="cuda")) == "A few seconds on the GPU."
