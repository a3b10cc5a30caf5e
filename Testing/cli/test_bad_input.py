"""Bad input on the command line: one clear sentence, the right exit code, nothing written."""

from __future__ import annotations

import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from VISTA3DCore.imaging.phantom import paint_phantom

AFFINE = np.diag([9.0, 9.0, 9.0, 1.0])


@pytest.fixture
def refuses(vista3d: Callable, tiny_model: Path, ct_file: Path, tmp_path: Path) -> Callable:
    """Run ``segment`` and check that it ends with one sentence and without any output."""

    def run(exit_code: int, *words: str, image: Path = ct_file, model: object = tiny_model, more: tuple = ()) -> None:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        extras = ("--statistics", out / "a.csv", "--preview", out / "a.png")
        result = vista3d("segment", image, "-o", out / "a.seg.nrrd", "-m", model, *extras, "-q", *more)
        assert result.exit_code == exit_code, result.stderr
        last = result.stderr.strip().splitlines()[-1]
        for word in words:
            assert word.lower() in last.lower()
        assert "Traceback" not in result.stderr
        assert result.stdout == ""
        assert list(out.iterdir()) == []

    return run


def _nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def _ct() -> np.ndarray:
    return paint_phantom((40, 32, 36))[0].array.copy()


def test_not_an_image(refuses: Callable, tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_text("Dear colleague,")
    refuses(3, "text.nii.gz", image=tmp_path / "text.nii.gz")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7")
    refuses(3, "report.pdf", image=tmp_path / "report.pdf")


def test_missing_image(refuses: Callable, tmp_path: Path) -> None:
    refuses(3, "does not exist", image=tmp_path / "nowhere.nii.gz")


@pytest.mark.parametrize("shape", [(40, 32), (40, 32, 36, 3)])
def test_two_or_four_dimensions(refuses: Callable, tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    refuses(3, image=_nifti(tmp_path / "flat.nii.gz", array))


def test_no_voxels(refuses: Callable, tmp_path: Path) -> None:
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 0 4 4\nencoding: raw\nendian: little\n\n"
    (tmp_path / "empty.nrrd").write_text(header)
    refuses(3, "empty.nrrd", image=tmp_path / "empty.nrrd")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(refuses: Callable, tmp_path: Path, value: float) -> None:
    array = _ct()
    array[3, 4, 5] = value
    refuses(3, "NaN", image=_nifti(tmp_path / "nan.nii.gz", array))


def test_constant_image(refuses: Callable, tmp_path: Path) -> None:
    refuses(3, "same value", image=_nifti(tmp_path / "flat.nii.gz", np.full((20, 20, 20), -1000, np.int16)))


def test_normalised_image(refuses: Callable, tmp_path: Path) -> None:
    array = (_ct() + 1000) / 2000
    refuses(3, "Hounsfield", image=_nifti(tmp_path / "scaled.nii.gz", array.astype(np.float32)))


def test_grey_levels_are_refused_or_warned_about(vista3d: Callable, tiny_model: Path, tmp_path: Path) -> None:
    array = np.clip((_ct() + 160) * 255 / 400, 0, 255).astype(np.uint8)
    image = _nifti(tmp_path / "grey.nii.gz", array)
    result = vista3d("segment", image, "-o", tmp_path / "a.nrrd", "-m", tiny_model, "-q")
    assert result.exit_code in (0, 3)
    assert "Hounsfield" in result.stderr
    assert ".py" not in result.stderr


@pytest.mark.parametrize("spacing", [0.0, 1e-6, 900.0])
def test_absurd_spacing(refuses: Callable, tmp_path: Path, spacing: float) -> None:
    path = _nifti(tmp_path / "spacing.nii.gz", _ct().astype(np.int16))
    image = nibabel.load(path)
    data = np.asarray(image.dataobj)
    image.header["pixdim"][1:4] = spacing
    image.header["sform_code"] = 0
    image.header["qform_code"] = 1
    _write_raw(path, image.header, data)
    refuses(3, "spacing", image=path)


def test_singular_affine(refuses: Callable, tmp_path: Path) -> None:
    path = tmp_path / "singular.nii.gz"
    header = nibabel.Nifti1Image(_ct().astype(np.int16), AFFINE).header
    header["sform_code"], header["qform_code"] = 1, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = (9, 9, 0, 0), (9, 9, 0, 0), (0, 0, 9, 0)
    _write_raw(path, header, _ct().astype(np.int16))
    refuses(3, image=path)


def _write_raw(path: Path, header: nibabel.Nifti1Header, data: np.ndarray) -> None:
    """Write header fields as they are; nibabel itself would correct them."""
    import gzip

    header["vox_offset"] = 352
    with gzip.open(path, "wb") as file:
        file.write(header.binaryblock + b"\0\0\0\0" + data.tobytes(order="F"))


def _dicom_series(folder: Path, slices: int = 20, skip: tuple[int, ...] = (), **tags: object) -> Path:
    """Write an axial series of 64 x 64 pixels; keywords are DICOM attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    series, study = generate_uid(), generate_uid()
    rng = np.random.default_rng(0)
    for k in set(range(slices)) - set(skip):
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = uid = generate_uid()
        data = pydicom.FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, uid, "CT"
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, study
        data.PatientID, data.SeriesNumber, data.InstanceNumber = "phantom", 1, k + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 5.0 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [5.0, 5.0], 5.0
        data.Rows = data.Columns = 64
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.update({})
        for keyword, value in tags.items():
            setattr(data, keyword, value)
        data.PixelData = rng.integers(0, 2000, (data.Rows, data.Columns), dtype=np.int16).tobytes()
        data.save_as(folder / f"{series[-6:]}_{k:03d}.dcm", enforce_file_format=True)
    return folder


def test_good_dicom_series_is_accepted(vista3d: Callable, tiny_model: Path, tmp_path: Path) -> None:
    folder = _dicom_series(tmp_path / "dicom")
    result = vista3d("segment", folder, "-o", tmp_path / "a.nrrd", "-m", tiny_model)
    assert result.exit_code == 0, result.stderr


def test_several_equally_large_series_are_named(refuses: Callable, tmp_path: Path) -> None:
    folder = _dicom_series(tmp_path / "dicom", SeriesDescription="Arterial")
    _dicom_series(folder, SeriesDescription="Venous", SeriesNumber=2)
    refuses(3, "Arterial", "Venous", image=folder)


def test_missing_slices(refuses: Callable, tmp_path: Path) -> None:
    refuses(3, "missing slices", image=_dicom_series(tmp_path / "dicom", skip=(7, 8)))


def test_mixed_sizes(refuses: Callable, tmp_path: Path) -> None:
    folder = _dicom_series(tmp_path / "dicom")
    file = sorted(folder.iterdir())[5]
    data = pydicom.dcmread(file)
    data.Rows = data.Columns = 32
    data.PixelData = data.PixelData[: 32 * 32 * 2]
    data.save_as(file)
    refuses(3, "sizes", image=folder)


def test_localizers_only(refuses: Callable, tmp_path: Path) -> None:
    folder = _dicom_series(tmp_path / "dicom", slices=2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refuses(3, "localizer", image=folder)


def test_folder_without_images(refuses: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuses(3, "empty", image=tmp_path / "empty")


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_other_modalities_are_refused(refuses: Callable, tmp_path: Path, modality: str) -> None:
    refuses(3, modality, image=_dicom_series(tmp_path / modality, Modality=modality))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("livr", ("livr", "liver")),
        ("wing", ("wing",)),
        ("999", ("999",)),
        ("rectum", ("rectum",)),  # a dead slot: no trained weights
        ("aorta", ("not in this model",)),
        ("vertebrae", ("vertebrae",)),  # a group of which the model knows nothing
    ],
)
def test_structures_that_cannot_be_had(refuses: Callable, name: str, words: tuple[str, ...]) -> None:
    refuses(2, *words, more=("--classes", name))


def test_a_misspelt_name_is_found_before_the_image_is_read(refuses: Callable, tmp_path: Path) -> None:
    refuses(2, "livr", model="vista3d-ct", image=tmp_path / "nowhere.nii.gz", more=("--classes", "livr"))


def test_model_that_is_not_here(refuses: Callable, tmp_path: Path) -> None:
    refuses(4, "vista3d-ct", model="vista3d-ct")
    refuses(4, "no model", model="vista4d")
    refuses(4, "does not exist", model=tmp_path / "none.pt")


def test_truncated_model(refuses: Callable, tiny_model: Path, tmp_path: Path) -> None:
    content = tiny_model.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[: len(content) // 2])
    refuses(4, "short.safetensors", model=tmp_path / "short.safetensors")


def test_model_of_another_kind(refuses: Callable, tmp_path: Path) -> None:
    import torch

    torch.save({"encoder.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    refuses(4, "not a VISTA3D checkpoint", model=tmp_path / "other.pt")


def test_malicious_model_does_not_run(refuses: Callable, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "exploded",)

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    refuses(4, "refused", model=tmp_path / "evil.pt")
    assert not (tmp_path / "exploded").exists()


def test_output_folder_that_is_missing(vista3d: Callable, ct_file: Path, tmp_path: Path) -> None:
    result = vista3d("segment", ct_file, "-o", tmp_path / "missing" / "a.nrrd")
    assert result.exit_code == 6
    assert "does not exist" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_input_is_never_overwritten(vista3d: Callable, ct_file: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(ct_file, tmp_path / "ct.nii.gz"))
    before = copy.read_bytes()
    result = vista3d("segment", copy, "-o", copy)
    assert result.exit_code == 6
    assert copy.read_bytes() == before


def test_full_disk(vista3d_process: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the system refuses to write on."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.nrrd").write_text("the old result")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # noqa: E731
    process = vista3d_process("segment", ct_file, "-o", out / "a.nrrd", "-m", tiny_model, preexec_fn=limit)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 6, stderr
    assert "Traceback" not in stderr
    assert [path.name for path in out.iterdir()] == ["a.nrrd"]
    assert (out / "a.nrrd").read_text() == "the old result"


def test_device_that_is_not_there(refuses: Callable) -> None:
    refuses(5, "cuda:99", more=("--device", "cuda:99"))
    refuses(5, "abacus", more=("--device", "abacus"))


def test_region_outside_the_volume(refuses: Callable) -> None:
    refuses(3, "outside the volume", more=("--roi", "5000", "5000", "5000", "6000", "6000", "6000"))
    refuses(3, "minimum", more=("--roi", "50", "0", "0", "-50", "9", "9"))


@pytest.mark.parametrize("more", [("--preset", "fast"), ("--roi", "1", "2"), ("--format", "dicom"), ("--unknown",)])
def test_wrong_usage(vista3d: Callable, ct_file: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    result = vista3d("segment", ct_file, "-o", tmp_path / "a.nrrd", *more)
    assert result.exit_code == 2


def test_unexpected_errors_are_one_sentence_unless_debugging(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("VISTA3DCore.evaluation.statistics.measure", broken)
    arguments = ("segment", ct_file, "-o", tmp_path / "a.nrrd", "-m", tiny_model, "-q")
    result = vista3d(*arguments)
    assert result.exit_code == 1
    assert result.stderr.strip().count("\n") == 0
    assert "--debug" in result.stderr
    assert isinstance(vista3d("--debug", *arguments).exception, ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []
