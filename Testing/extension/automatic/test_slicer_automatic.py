"""Volume -> structures -> segments, with real nodes, a real engine process and the bundled model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
import vtk
from engine_helpers import EngineUnderTest, running_engine
from engine_processes import coarse_phantom
from logic_helpers import (
    SHAPE,
    Heard,
    MemoryStore,
    add_transform,
    add_volume,
    assert_sentence,
    new_scene,
    rotated,
)
from vtk.util.numpy_support import vtk_to_numpy

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DSegmentLib.logic.automatic import AutomaticRun, RunRequest
from VISTA3DSegmentLib.logic.regions import roi_box, volume_box
from VISTA3DSegmentLib.logic.settings import Rate, Settings
from VISTA3DSegmentLib.logic.volumes import OpenedVolumes
from VISTA3DSegmentLib.mrml.provenance import read_provenance
from VISTA3DSegmentLib.mrml.segments import read_mask, structure_of

pytestmark = pytest.mark.slow

LIVER, SPLEEN, TUMOR = 1, 3, 23
STRUCTURES = (LIVER, SPLEEN)
#: All that the tiny model knows.
KNOWN = (1, 3, 5, 14, 23)
FRAIL_ENGINE = Path(__file__).resolve().parents[1] / "worker" / "frail_engine.py"
CT = catalogue("vista3d-ct")


@pytest.fixture(scope="module")
def under_test() -> Iterator[EngineUnderTest]:
    """Return an engine that the tests of this file share."""
    with running_engine() as under_test:
        yield under_test


class Running:
    """A scene, a CT in it, and everything that a run needs."""

    def __init__(self, under_test: EngineUnderTest, volume: Volume | None, model: str) -> None:
        self.under_test, self.model = under_test, model
        self.scene = new_scene()
        self.hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        self.volume = add_volume(self.scene, volume)
        self.store = MemoryStore()
        self.settings = Settings(self.store)
        self.volumes = OpenedVolumes(under_test.engine)
        self.run = AutomaticRun(under_test.engine, self.volumes, self.scene, self.hierarchy, self.settings)
        self.heard = Heard(self.run)

    def request(self, **changes: object) -> RunRequest:
        """Return a request for liver and spleen, with some fields changed."""
        return RunRequest(**{"volume": self.volume, "structures": STRUCTURES, "model": self.model, **changes})

    def start(self, **changes: object) -> None:
        self.run.start(self.request(**changes))

    def finish(self) -> None:
        """Wait for the end of the run."""
        self.under_test.loop.run_until(lambda: not self.run.running)

    def segment(self, **changes: object) -> tuple[slicer.vtkMRMLSegmentationNode, list[str], list[str]]:
        """Run to the end, which must be a good one."""
        self.heard.events.clear()
        self.start(**changes)
        self.finish()
        assert self.heard.all("failed") == []
        (found,) = self.heard.all("finished")
        return found

    def wait_for_work(self) -> None:
        """Wait until the network runs."""
        self.under_test.loop.run_until(
            lambda: any(update[1] == "Segmenting" and update[0] > 0.16 for update in self.updates)
        )

    @property
    def updates(self) -> list[tuple[float, str, float | None]]:
        return self.heard.all("progressed")

    @property
    def segmentations(self) -> int:
        return self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")


@pytest.fixture
def tiny(under_test: EngineUnderTest, tiny_model: Path) -> Iterator[Running]:
    """Return a coarse CT and a model that answers something, quickly."""
    running = Running(under_test, None, str(tiny_model))
    yield running
    running.run.close()
    running.volumes.close_all()


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
    assert notes == []
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


def test_structures_that_are_not_there_are_told(tiny: Running, tiny_model: Path) -> None:
    whole = Segmenter.from_pretrained(tiny_model, "cpu").open(coarse_phantom(SHAPE)).segment((LIVER, 14))
    i, j, k = next(voxel for voxel in np.ndindex(SHAPE) if not near(whole[LIVER], voxel).any())
    region = (*(12.0 * np.array([i, j, k])).tolist(), *(12.0 * np.array([i, j, k])).tolist())
    _segmentation, ids, notes = tiny.segment(structures=(LIVER, 14), region=tuple(np.add(region, [-1] * 3 + [1] * 3)))
    assert len(ids) == 2
    assert notes[0].startswith("Not found in the volume: Liver")


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


# Endings


def test_cancel_writes_nothing_and_the_next_run_works(tiny: Running) -> None:
    tiny.start(preset="paper")
    tiny.wait_for_work()
    tiny.run.cancel()
    assert not tiny.run.running
    assert tiny.heard.events[-1] == ("cancelled", ())
    tiny.under_test.loop.run_for(0.3)
    assert tiny.heard.events[-1] == ("cancelled", ())
    assert tiny.segmentations == 0
    tiny.run.cancel()
    assert len(tiny.heard.all("cancelled")) == 1
    assert tiny.segment()


def test_cancel_while_the_volume_is_opened(tiny: Running) -> None:
    tiny.start()
    tiny.run.cancel()
    assert tiny.heard.all("cancelled") == [()]
    assert tiny.segment()


def test_cancel_while_the_segments_are_written(tiny: Running) -> None:
    tiny.start()
    tiny.under_test.loop.run_until(lambda: tiny.updates and tiny.updates[-1][1] == "Writing the segments")
    while not tiny.segmentations:
        tiny.under_test.loop.run_once(0.0)
    tiny.run.cancel()
    tiny.under_test.loop.run_for(0.1)
    assert tiny.segmentations == 0
    assert [name for name in tiny.under_test.files() if name.startswith("result")] == []


@pytest.mark.parametrize("moment", ["opening", "segmenting"])
def test_a_volume_that_is_deleted_ends_the_run(tiny: Running, moment: str) -> None:
    tiny.start(preset="paper")
    if moment == "segmenting":
        tiny.wait_for_work()
    tiny.scene.RemoveNode(tiny.volume)
    assert tiny.heard.sentence("failed") == "The volume 'CT' was removed; the run was stopped."
    tiny.under_test.loop.run_for(0.3)
    assert len(tiny.heard.all("failed")) == 1
    assert tiny.segmentations == 0


def test_a_segmentation_that_is_deleted_ends_the_run(tiny: Running) -> None:
    segmentation, _ids, _notes = tiny.segment()
    tiny.heard.events.clear()
    tiny.start(segmentation=segmentation, preset="paper")
    tiny.wait_for_work()
    tiny.scene.RemoveNode(segmentation)
    assert tiny.heard.sentence("failed") == "The segmentation 'CT segmentation' was removed; the run was stopped."
    assert tiny.segmentations == 0


def test_a_scene_that_is_closed_ends_the_run(tiny: Running) -> None:
    tiny.start(preset="paper")
    tiny.wait_for_work()
    tiny.scene.Clear(False)
    assert tiny.heard.sentence("failed") == "The scene was closed; the run was stopped."
    tiny.under_test.loop.run_for(0.3)
    assert tiny.segmentations == 0
    assert tiny.volumes._entries == {}
    tiny.volume = add_volume(tiny.scene)
    assert tiny.segment()


def test_a_volume_that_changes_gets_no_wrong_segments(tiny: Running) -> None:
    tiny.start()
    tiny.wait_for_work()
    add_transform(tiny.volume, rotated((0, 0, 5)))
    tiny.finish()
    assert tiny.heard.sentence("failed").startswith("'CT' was changed during the run")
    assert tiny.segmentations == 0
    assert [name for name in tiny.under_test.files() if name.startswith("result")] == []


def test_a_killed_engine_is_one_sentence_and_the_next_run_works(tiny: Running) -> None:
    tiny.start(preset="paper")
    tiny.wait_for_work()
    tiny.under_test.kill()
    tiny.finish()
    assert "ended unexpectedly" in tiny.heard.sentence("failed")
    assert tiny.segmentations == 0
    assert tiny.segment()


# Bad input


def test_what_is_missing_is_told_before_anything_starts(tiny: Running) -> None:
    for changes in ({"volume": None}, {"structures": ()}, {"model": ""}):
        tiny.heard.events.clear()
        tiny.start(**changes)
        assert_sentence(tiny.request(**changes).problem())
        assert tiny.heard.sentence("failed") == tiny.request(**changes).problem()
        assert len(tiny.heard.events) == 1
    assert tiny.request().problem() is None


def test_a_region_beside_the_volume_is_told(tiny: Running) -> None:
    tiny.start(region=(5000, 5000, 5000, 5010, 5010, 5010))
    assert tiny.heard.sentence("failed") == "The region lies outside the volume; move it."


def test_a_model_that_is_not_here_says_how_to_get_it(tiny: Running) -> None:
    tiny.start(model="vista3d-ct")
    tiny.finish()
    sentence = tiny.heard.sentence("failed")
    assert sentence.startswith("The model 'vista3d-ct' is not on this computer")
    assert "Setup" in sentence


def test_a_structure_that_the_model_does_not_know_is_told(tiny: Running) -> None:
    tiny.start(structures=("pancreas",))
    tiny.finish()
    assert "pancreas" in tiny.heard.sentence("failed")
    assert tiny.segmentations == 0


def test_an_image_that_is_no_ct_is_told(tiny: Running) -> None:
    slicer.util.arrayFromVolume(tiny.volume)[:] = np.abs(slicer.util.arrayFromVolume(tiny.volume)) % 256
    slicer.util.arrayFromVolumeModified(tiny.volume)
    tiny.start()
    tiny.finish()
    assert "not a CT" in tiny.heard.sentence("failed")


@pytest.mark.parametrize("shape", [(40, 40, 1), (0, 0, 0)])
def test_a_flat_or_empty_volume_is_told(tiny: Running, shape: tuple[int, int, int]) -> None:
    empty = not all(shape)
    node = tiny.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "flat")
    if not empty:
        node = add_volume(tiny.scene, Volume(np.zeros(shape, dtype=np.int16), np.eye(4)))
    tiny.start(volume=node)
    tiny.heard.sentence("failed")


def test_a_volume_with_several_components_is_told(tiny: Running) -> None:
    node = tiny.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "color")
    image = vtk.vtkImageData()
    image.SetDimensions(10, 10, 10)
    image.AllocateScalars(vtk.VTK_SHORT, 3)
    node.SetAndObserveImageData(image)
    tiny.start(volume=node)
    tiny.heard.sentence("failed")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_is_full_for_the_result_is_told(tiny_model: Path) -> None:
    with running_engine(command=[sys.executable, str(FRAIL_ENGINE), "disk", "50000"]) as frail:
        running = Running(frail, None, str(tiny_model))
        running.start()
        running.finish()
        assert "cannot be written" in running.heard.sentence("failed")
        assert running.segmentations == 0
        assert [name for name in frail.files() if name.startswith("result")] == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_is_full_for_the_volume_is_told(tiny: Running) -> None:
    import resource

    files, before = tiny.under_test.files(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        tiny.start()
        tiny.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written" in tiny.heard.sentence("failed")
    assert tiny.under_test.files() == files
    assert tiny.segment()


def test_a_second_run_waits_for_the_first(tiny: Running) -> None:
    tiny.start()
    with pytest.raises(InputError, match="cancel it first"):
        tiny.start()
    tiny.finish()
    assert len(tiny.heard.all("finished")) == 1


# Time


def test_measured_times_become_words(tiny: Running) -> None:
    assert tiny.run.estimate(tiny.request(structures=())) is None
    tiny.segment()
    assert tiny.store.values["rates"]
    assert tiny.run.estimate(tiny.request()).endswith(" on this processor.")


def test_a_retained_map_teaches_nothing(tiny: Running) -> None:
    tiny.segment()
    before = tiny.store.values["rates"]
    tiny.segment(structures=(5,))
    assert tiny.store.values["rates"] == before


def test_a_slow_run_names_what_is_faster(tiny: Running) -> None:
    assert tiny.run.estimate(tiny.request()).startswith("Not measured on this processor yet")
    rate = Rate(60_000.0, (32, 32, 32), (12.0, 12.0, 12.0))
    tiny.settings.note_rate(tiny.model, "cpu", "bundle", rate)
    tiny.settings.note_rate(tiny.model, "cpu", "paper", rate)
    words = tiny.run.estimate(tiny.request(preset="paper"))
    assert "for a region of 20 cm" in words
    assert "in standard quality" in words
    assert_sentence(words)
    tiny.settings.note_rate(tiny.model, "cuda", "bundle", Rate(20.0, rate.window, rate.spacing))
    assert tiny.run.estimate(tiny.request(device="cuda")) == "A few seconds on the GPU."
