"""Segmentations as files: reopened with SimpleITK, nibabel and Slicer's storage node, they show what was written."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import Cancelled, InputError, OutputError, UnknownStructureError
from VISTA3DCore.imaging.geometry import lps_to_ras
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

LIVER, SPLEEN, KIDNEY, VESSEL, TUMOUR = 1, 3, 14, 25, 26
SHAPE = (20, 18, 16)


@pytest.fixture
def segmentation(oblique: np.ndarray) -> Segmentation:
    """Liver and kidney; vessel and tumour overlap the liver and each other; the spleen was not found."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:9, 3:9, 3:9] = LIVER
    labels[12:15, 3:9, 2:12] = KIDNEY
    vessel, tumour = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    vessel[2:6, 5, 5] = True
    tumour[3:6, 3:6, 3:6] = True
    structures = tuple(catalogue()[index] for index in (LIVER, KIDNEY, SPLEEN, TUMOUR, VESSEL))
    provenance = {"model": "vista3d-ct", "licence": "NCLS | v1", "url": "https://example.org/a:b", "version": "0.1"}
    return Segmentation(labels, {VESSEL: vessel, TUMOUR: tumour}, structures, oblique, provenance)


def test_structures_are_found_by_any_of_their_names(segmentation: Segmentation) -> None:
    kidney = catalogue()[KIDNEY]
    for key in (KIDNEY, kidney, kidney.name, kidney.display_name, "LEFT_kidney", np.int64(KIDNEY)):
        np.testing.assert_array_equal(segmentation[key], segmentation.labels == KIDNEY)
    np.testing.assert_array_equal(segmentation["hepatic tumor"], segmentation.masks[TUMOUR])
    assert not segmentation["spleen"].any()
    assert segmentation["liver"].dtype == bool


def test_a_structure_that_was_not_segmented_is_named(segmentation: Segmentation) -> None:
    with pytest.raises(UnknownStructureError, match="'pancreas' is not in this segmentation; it holds: liver"):
        segmentation["pancreas"]


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="one shape"):
        Segmentation(np.zeros((3, 3, 3)), {1: np.zeros((3, 3, 2))}, (catalogue()[1],), np.eye(4))


def test_slicer_shows_the_same_segments(
    tmp_path: Path, segmentation: Segmentation, open_in_slicer: Callable[..., list]
) -> None:
    path = tmp_path / "organs.seg.nrrd"
    assert segmentation.write(path) == [path]
    segments = open_in_slicer(path, SHAPE)
    assert len(segments) == len(segmentation.structures)
    for segment, structure in zip(segments, segmentation.structures, strict=True):
        assert segment.id == structure.name.replace(" ", "_")
        assert segment.name == structure.display_name
        assert segment.terminology == structure.terminology_entry()
        assert segment.model == "vista3d-ct"
        np.testing.assert_allclose(segment.color, np.array(structure.color) / 255, atol=1e-5)
        np.testing.assert_array_equal(segment.mask, segmentation[structure])
        np.testing.assert_allclose(segment.affine, segmentation.affine, atol=1e-9)


def test_slicer_opens_a_segmentation_without_any_voxel(
    tmp_path: Path, oblique: np.ndarray, open_in_slicer: Callable[..., list]
) -> None:
    structures = (catalogue()[LIVER], catalogue()[TUMOUR])
    empty = Segmentation(np.zeros(SHAPE), {TUMOUR: np.zeros(SHAPE)}, structures, oblique)
    empty.write(tmp_path / "empty.seg.nrrd")
    segments = open_in_slicer(tmp_path / "empty.seg.nrrd", SHAPE)
    assert [segment.name for segment in segments] == [structure.display_name for structure in structures]
    assert not any(segment.mask.any() for segment in segments)


def test_slicer_opens_all_structures_of_the_large_label_set(
    tmp_path: Path, oblique: np.ndarray, open_in_slicer: Callable[..., list]
) -> None:
    structures = tuple(catalogue("vista3d-ctmr").structures)
    labels = np.zeros((30, 20, 4), np.uint16)
    labels.ravel()[: len(structures)] = [structure.index for structure in structures]
    Segmentation(labels, {}, structures, oblique).write(tmp_path / "all.seg.nrrd")
    segments = open_in_slicer(tmp_path / "all.seg.nrrd", labels.shape)
    assert len(segments) == len(structures) > 300
    for segment, structure in zip(segments, structures, strict=True):
        np.testing.assert_array_equal(segment.mask, labels == structure.index)


def test_slicer_keeps_the_grid_of_the_image(
    tmp_path: Path, segmentation: Segmentation, open_in_slicer: Callable[..., list]
) -> None:
    import slicer

    segmentation.write(tmp_path / "organs.seg.nrrd")
    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "organs.seg.nrrd"))
    storage.ReadData(node)
    geometry = node.GetSegmentation().GetConversionParameter("Reference image geometry").rstrip(";").split(";")
    np.testing.assert_allclose(np.array(geometry[:16], float).reshape(4, 4), segmentation.affine, atol=1e-9)
    assert list(map(int, geometry[16:])) == [0, 19, 0, 17, 0, 15]
    storage.SetFileName(str(tmp_path / "again.seg.nrrd"))
    assert storage.WriteData(node) == 1
    again = open_in_slicer(tmp_path / "again.seg.nrrd", SHAPE)
    for segment, structure in zip(again, segmentation.structures, strict=True):
        np.testing.assert_array_equal(segment.mask, segmentation[structure])
        assert segment.terminology == structure.terminology_entry()


def test_structures_that_overlap_nothing_share_a_layer(tmp_path: Path, segmentation: Segmentation) -> None:
    segmentation.write(tmp_path / "organs.seg.nrrd")
    image = sitk.ReadImage(str(tmp_path / "organs.seg.nrrd"))
    assert image.GetNumberOfComponentsPerPixel() == 3  # organs; vessel and tumour on two more
    apart = np.zeros(SHAPE, bool)
    apart[18:, 16:, 14:] = True
    Segmentation(segmentation.labels, {TUMOUR: apart}, segmentation.structures, segmentation.affine).write(
        tmp_path / "apart.seg.nrrd"
    )
    image = sitk.ReadImage(str(tmp_path / "apart.seg.nrrd"))
    assert image.GetNumberOfComponentsPerPixel() == 1
    expected = segmentation.labels + np.where(apart, TUMOUR, 0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, expected)


def test_values_in_tags_cannot_break_them(tmp_path: Path, segmentation: Segmentation) -> None:
    segmentation.provenance["note"] = "a|b\nc\\d"
    segmentation.write(tmp_path / "organs.seg.nrrd")
    image = sitk.ReadImage(str(tmp_path / "organs.seg.nrrd"))
    tags = image.GetMetaData("Segment0_Tags")
    assert "VISTA3D.licence:NCLS / v1|" in tags
    assert "VISTA3D.note:a/b\nc\\d|" in tags
    assert "VISTA3D.url:https://example.org/a:b|" in tags


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_label_maps_in_simpleitk_and_in_our_reader(tmp_path: Path, segmentation: Segmentation, ending: str) -> None:
    written = segmentation.write(tmp_path / f"organs{ending}")
    names = [f"organs{ending}", f"organs_hepatic_tumor{ending}", f"organs_hepatic_vessel{ending}"]
    assert written == [tmp_path / name for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    expected = [segmentation.labels, segmentation["hepatic tumor"], segmentation["hepatic vessel"]]
    for path, array in zip(written, expected, strict=True):
        image = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, array)
        columns = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        np.testing.assert_allclose(lps_to_ras(segmentation.affine)[:3, :3], columns, atol=1e-6)
        np.testing.assert_allclose(lps_to_ras(segmentation.affine)[:3, 3], image.GetOrigin(), atol=1e-5)
        volume = Volume.read(path)
        np.testing.assert_array_equal(volume.array, array)
        assert volume.array.dtype == np.uint8


def test_indices_above_255_are_written_as_16_bit(tmp_path: Path, oblique: np.ndarray) -> None:
    structure = catalogue("vista3d-ctmr")[345]
    labels = np.zeros(SHAPE, np.uint16)
    labels[3:5] = structure.index
    for name in ("large.nii.gz", "large.nrrd", "large.mha", "large.seg.nrrd"):
        Segmentation(labels, {}, (structure,), oblique).write(tmp_path / name)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name))).T, labels)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.3, 6.0)] * 3),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_any_grid_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, angles: tuple, spacing: tuple, order: list, flips: tuple, origin: tuple
) -> None:
    affine = np.eye(4)
    signed = np.where(flips, -1.0, 1.0) * spacing
    affine[:3, :3] = (Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(signed))[:, order]
    affine[:3, 3] = origin
    labels = np.random.default_rng(0).choice([0, LIVER, SPLEEN, KIDNEY], (4, 5, 6))
    structures = tuple(catalogue()[index] for index in (LIVER, SPLEEN, KIDNEY))
    folder = tmp_path_factory.mktemp("round")
    for name in ("a.nii.gz", "a.nrrd", "a.mha", "a.seg.nrrd"):
        Segmentation(labels, {}, structures, affine).write(folder / name)
        volume = Volume.read(folder / name)
        np.testing.assert_array_equal(volume.array, labels)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4 if name.endswith("gz") else 1e-9)
    image = nib.load(folder / "a.nii.gz")
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-3)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_one_file_per_structure(tmp_path: Path, segmentation: Segmentation) -> None:
    written = segmentation.write(f"{tmp_path}/organs/")
    names = ["liver", "left_kidney", "spleen", "hepatic_tumor", "hepatic_vessel"]
    assert [path.name for path in written] == [f"{name}.nii.gz" for name in names]
    for path, structure in zip(written, segmentation.structures, strict=True):
        image = nib.load(path)
        np.testing.assert_array_equal(np.asarray(image.dataobj), segmentation[structure])
        np.testing.assert_allclose(image.affine, segmentation.affine, atol=1e-5)
    assert segmentation.write(tmp_path / "again", format="separate")[0] == tmp_path / "again" / "liver.nii.gz"


def test_a_format_can_be_given_whatever_the_name(tmp_path: Path, segmentation: Segmentation) -> None:
    segmentation.write(tmp_path / "result", format="seg.nrrd")
    assert (tmp_path / "result").read_bytes().startswith(b"NRRD")
    with pytest.raises(OutputError, match=r"'organs\.stl' is not a known type of file"):
        segmentation.write(tmp_path / "organs.stl")
    with pytest.raises(OutputError, match="format 'stl'"):
        segmentation.write(tmp_path / "organs", format="stl")


def test_impossible_places_are_refused(tmp_path: Path, segmentation: Segmentation) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.seg.nrrd").mkdir()
    with pytest.raises(OutputError, match="does not exist; create it first"):
        segmentation.write(tmp_path / "nowhere" / "organs.seg.nrrd")
    with pytest.raises(OutputError, match="does not exist; create it first"):
        segmentation.write(tmp_path / "file" / "organs.seg.nrrd")
    with pytest.raises(OutputError, match="cannot be created"):
        segmentation.write(f"{tmp_path}/nowhere/organs/")
    with pytest.raises(OutputError, match="is a file"):
        segmentation.write(tmp_path / "file", format="separate")
    with pytest.raises(OutputError, match="is a folder"):
        segmentation.write(tmp_path / "folder.seg.nrrd", format="seg.nrrd")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.seg.nrrd"]


def test_a_folder_that_may_not_be_written_is_refused(
    tmp_path: Path, segmentation: Segmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, whom no permission stops
    with pytest.raises(OutputError, match="not writable"):
        segmentation.write(tmp_path / "organs.seg.nrrd")


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX matter")
@pytest.mark.parametrize(
    "target", ["organs.seg.nrrd", "organs.nii.gz", "organs.nii", "organs.nrrd", "organs.mha", "organs/"]
)
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, target: str) -> None:
    """The child process may write files of 20 kB at most: the first ones fit, the large one fails."""
    if target == "organs.nrrd":
        (tmp_path / target).write_bytes(b"an older result")
    code = f"""
        import resource, signal
        import numpy as np
        from VISTA3DCore.anatomy.catalogue import catalogue
        from VISTA3DCore.errors import OutputError
        from VISTA3DCore.imaging.segmentation import Segmentation

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        random = np.random.default_rng(0)
        noise = random.random((80, 80, 80)) < 0.5
        labels = np.zeros(noise.shape, np.uint16) if {target.endswith("/")} else random.integers(0, 2, noise.shape)
        segmentation = Segmentation(labels, {{26: noise}}, (catalogue()[1], catalogue()[26]), np.eye(4))
        try:
            segmentation.write({str(tmp_path)!r} + "/" + {target!r})
        except OutputError as error:
            print(error)
    """
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, check=True
    )
    assert "cannot be written (File too large); nothing was left behind." in result.stdout
    left = [(path.name, path.read_bytes()) for path in tmp_path.iterdir()]
    assert left == ([("organs.nrrd", b"an older result")] if target == "organs.nrrd" else [])


def test_cancelling_leaves_nothing_behind(tmp_path: Path, segmentation: Segmentation) -> None:
    def stop(update: object) -> None:
        if update.fraction > 0.3:
            progress.cancel()

    progress = Progress(stop)
    with pytest.raises(Cancelled):
        segmentation.write(f"{tmp_path}/organs/", progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_is_replaced(tmp_path: Path, segmentation: Segmentation) -> None:
    (tmp_path / "organs.seg.nrrd").write_text("old")
    segmentation.write(tmp_path / "organs.seg.nrrd")
    assert [path.name for path in tmp_path.iterdir()] == ["organs.seg.nrrd"]
    assert (tmp_path / "organs.seg.nrrd").read_bytes().startswith(b"NRRD")
