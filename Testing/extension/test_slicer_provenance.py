"""What travels with segments into files, and comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer
from mrml_scene import AFFINES, SHAPE, Application, ball, middle_of, places_in_world, rigid

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.seg_reading import StoredSegmentation
from VISTA3DCore.imaging.segmentation import Segmentation as EngineSegmentation
from VISTA3DSegmentLib.mrml.clicks import ClickList, StoredClick, read_clicks, store_clicks
from VISTA3DSegmentLib.mrml.provenance import KEYS, read_provenance, store_provenance
from VISTA3DSegmentLib.mrml.results import write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation, get_tag, read_mask, set_tag, structure_of
from VISTA3DSegmentLib.mrml.volumes import to_volume

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
CATALOGUE = catalogue()
LIVER, SPLEEN, AORTA, TUMOR = (CATALOGUE[name] for name in ("liver", "spleen", "aorta", "hepatic tumor"))
FACTS = dict.fromkeys(KEYS, "value: a, 'b' and \"c\" = {[ü]}")
CLICKS = ClickList(
    (StoredClick((1.5, -2.25, 1e-3)), StoredClick((7, 8, 9), False)), 1, "vista3d-ct", 1, "a-1", "b-2", False
)


@pytest.fixture
def made(app: Application, ct: Volume) -> Segmentation:
    """Return a segmentation as it is after a run and clicks."""
    node = create_segmentation(app.scene, ct)
    labels = np.zeros(SHAPE, np.uint16, order="F")
    labels[ball(ct)] = LIVER.index
    labels[ball(ct, middle_of(ct) + 12, 5)] = SPLEEN.index
    masks = {TUMOR.index: ball(ct, radius=5)}
    write_result(node, ct, labels, masks, [LIVER, SPLEEN, AORTA, TUMOR], FACTS)
    store_clicks(node, "liver", CLICKS)
    return node


def save(app: Application, node: Segmentation, path: str) -> None:
    """Save a segmentation as Slicer does."""
    storage = app.scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(path)
    assert storage.WriteData(node)


def load(app: Application, path: str) -> Segmentation:
    """Load a segmentation as Slicer does."""
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = app.scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(path)
    assert storage.ReadData(node)
    return node


def assert_kept(node: Segmentation, ct: Volume, original: Segmentation, original_ct: Volume) -> None:
    """Check that everything came back."""
    assert list(node.GetSegmentation().GetSegmentIDs()) == list(original.GetSegmentation().GetSegmentIDs())
    for structure in (LIVER, SPLEEN, AORTA, TUMOR):
        segment_id = structure.name.replace(" ", "_")
        segment = node.GetSegmentation().GetSegment(segment_id)
        assert structure_of(node, segment_id, CATALOGUE) == structure
        assert segment.GetName() == structure.display_name
        assert segment.GetTerminology().rstrip("|") == structure.terminology_entry()
        assert np.allclose(segment.GetColor(), np.array(structure.color) / 255, atol=1e-4)
        assert read_provenance(node, segment_id) == FACTS
        assert np.array_equal(read_mask(node, segment_id, ct), read_mask(original, segment_id, original_ct))
    assert read_clicks(node, "liver") == CLICKS
    assert not read_clicks(node, "spleen")


def test_provenance_is_stored_and_replaced(made: Segmentation) -> None:
    assert read_provenance(made, "liver") == FACTS
    store_provenance(made, "liver", {"model": "a|b", "revision": "", "version": "2"})
    assert read_provenance(made, "liver") == {"model": "a/b", "version": "2"}
    with pytest.raises(InputError, match="was deleted"):
        store_provenance(made, "gone", FACTS)


def test_every_fact_that_the_engine_tells_is_kept(tiny_model: Path, app: Application, ct: Volume) -> None:
    from VISTA3DCore.inference.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(tiny_model, device="cpu")
    found = segmenter.open(to_volume(ct)).segment(["liver"])
    node = create_segmentation(app.scene, ct)
    ids = write_result(node, ct, found.labels, found.masks, found.structures, found.provenance)
    assert read_provenance(node, ids[0]) == {key: str(value) for key, value in found.provenance.items() if value}


def test_a_segmentation_file_keeps_everything(app: Application, ct: Volume, made: Segmentation, tmp_path: Path) -> None:
    path = str(tmp_path / "organs.seg.nrrd")
    save(app, made, path)
    node = load(app, path)
    assert_kept(node, ct, made, ct)
    assert node.GetSegmentation().GetNumberOfLayers() == 2


@pytest.mark.parametrize("under_a_transform", [False, True])
def test_a_saved_scene_keeps_everything(
    app: Application, ct: Volume, made: Segmentation, tmp_path: Path, under_a_transform: bool
) -> None:
    if under_a_transform:
        transform = app.add_transform(rigid((4, 5, 6), (7, 8, 9)))
        for node in (ct, made):
            node.SetAndObserveTransformNodeID(transform.GetID())
    other = Application()
    other.load(app.save(tmp_path))
    node = other.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    volume = other.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    assert_kept(node, volume, made, ct)
    assert np.allclose(
        places_in_world(node, "liver").mean(axis=0), places_in_world(made, "liver").mean(axis=0), atol=1e-3
    )
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume


def test_the_engine_reads_what_slicer_saved(app: Application, ct: Volume, made: Segmentation, tmp_path: Path) -> None:
    save(app, made, str(tmp_path / "organs.seg.nrrd"))
    stored = StoredSegmentation.read(tmp_path / "organs.seg.nrrd")
    for structure in (LIVER, SPLEEN, TUMOR):
        mask = stored.mask(stored.find(structure), to_volume(ct), resample=True)
        assert np.array_equal(mask, read_mask(made, structure.name.replace(" ", "_"), ct))


def test_slicer_reads_what_the_engine_saved(app: Application, ct: Volume, tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint16, order="F")
    labels[ball(ct)] = LIVER.index
    masks = {TUMOR.index: ball(ct, radius=5)}
    EngineSegmentation(labels, masks, (LIVER, SPLEEN, TUMOR), AFFINES["oblique"], FACTS).write(tmp_path / "a.seg.nrrd")
    node = load(app, str(tmp_path / "a.seg.nrrd"))
    for structure, mask in ((LIVER, ball(ct)), (SPLEEN, np.zeros(SHAPE, bool)), (TUMOR, masks[TUMOR.index])):
        segment_id = structure.name.replace(" ", "_")
        assert structure_of(node, segment_id, CATALOGUE) == structure
        assert np.array_equal(read_mask(node, segment_id, ct), mask)
        assert read_provenance(node, segment_id) == FACTS


def test_a_bar_would_cut_a_tag_off_in_a_file(app: Application, ct: Volume, tmp_path: Path) -> None:
    """Why tags refuse it."""
    node = create_segmentation(app.scene, ct)
    (liver,) = write_result(node, ct, np.ones(SHAPE, np.uint16), {}, [LIVER], FACTS)
    with pytest.raises(InputError):
        set_tag(node, liver, "VISTA3D.Test", "a|b")
    node.GetSegmentation().GetSegment(liver).SetTag("VISTA3D.Test", "a|b")
    path = str(tmp_path / "a.seg.nrrd")
    save(app, node, path)
    assert get_tag(load(app, path), liver, "VISTA3D.Test") == "a"
