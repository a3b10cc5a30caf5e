"""Reading files: the same voxels and geometry as nibabel and SimpleITK, and a sentence for everything else."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import lps_to_ras
from VISTA3DCore.imaging.readers import check_ct
from VISTA3DCore.imaging.volume import Volume


@pytest.fixture
def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 2000, (9, 8, 7)).astype(np.int16)


def _sitk_image(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image, lps = sitk.GetImageFromArray(array.T), lps_to_ras(affine)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mhd"])
def test_files_of_simpleitk(tmp_path: Path, ct: np.ndarray, oblique: np.ndarray, ending: str) -> None:
    path = tmp_path / f"ct{ending}"
    sitk.WriteImage(_sitk_image(ct, oblique), str(path), ending != ".mhd")
    volume = Volume.read(path)
    np.testing.assert_array_equal(volume.array, ct)
    np.testing.assert_allclose(volume.affine, oblique, atol=1e-5)
    assert volume.array.dtype == np.int16
    assert volume.name == path.name
    assert volume.modality is None


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_files_of_nibabel(tmp_path: Path, oblique: np.ndarray, dtype: str, kind: type) -> None:
    array = np.random.default_rng(1).integers(0, 200, (5, 6, 7)).astype(dtype)
    header = kind.header_class(endianness="<>"[dtype.startswith(">")])
    header.set_data_dtype(array.dtype)
    image = kind(array, oblique, header)
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = Volume.read(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_array_equal(volume.affine, nib.load(tmp_path / "ct.nii.gz").affine)


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (1, 0), (2, 4)], ids=["both", "sform", "qform", "other codes"])
def test_nifti_affine_is_nibabels(tmp_path: Path, ct: np.ndarray, oblique: np.ndarray, codes: tuple[int, int]) -> None:
    for affine in (oblique, oblique @ np.diag([1.0, -1.0, 1.0, 1.0]), oblique[:, [2, 0, 1, 3]]):
        image = nib.Nifti1Image(ct, affine)
        image.set_qform(affine, codes[0])
        image.set_sform(affine, codes[1])
        nib.save(image, tmp_path / "ct.nii")
        np.testing.assert_allclose(
            Volume.read(tmp_path / "ct.nii").affine, nib.load(tmp_path / "ct.nii").affine, atol=1e-6
        )


def test_nifti_without_orientation_is_read_as_itk_reads_it(tmp_path: Path, ct: np.ndarray) -> None:
    image = nib.Nifti1Image(ct, None)
    image.header.set_zooms((0.8, 0.9, 2.5))
    nib.save(image, tmp_path / "ct.nii")
    found = sitk.ReadImage(str(tmp_path / "ct.nii"))
    expected = np.diag([*found.GetSpacing(), 1.0])
    expected[:3, :3] = np.reshape(found.GetDirection(), (3, 3)) * found.GetSpacing()
    np.testing.assert_allclose(Volume.read(tmp_path / "ct.nii").affine, lps_to_ras(expected), atol=1e-6)


def test_nifti_scaling_is_applied(tmp_path: Path, oblique: np.ndarray) -> None:
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nib.Nifti1Image(stored, oblique)
    image.header.set_slope_inter(2.5, -1024.0)
    image.to_filename(tmp_path / "ct.nii")
    raw = bytearray((tmp_path / "ct.nii").read_bytes())
    raw[112:120] = struct.pack("<2f", 2.5, -1024.0)
    (tmp_path / "ct.nii").write_bytes(raw)
    volume = Volume.read(tmp_path / "ct.nii")
    np.testing.assert_array_equal(volume.array, nib.load(tmp_path / "ct.nii").get_fdata().astype(np.float32))
    assert volume.array.dtype == np.float32


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_slightly_sheared_files_are_straightened_with_a_warning(
    tmp_path: Path, ct: np.ndarray, oblique: np.ndarray, ending: str
) -> None:
    bent = oblique.copy()
    bent[:3, 1] += 0.01 * 0.9 * oblique[:3, 0] / 0.8
    path = tmp_path / f"ct{ending}"
    if ending == ".nii.gz":
        image = nib.Nifti1Image(ct, bent)
        image.set_qform(None, 0)
        nib.save(image, path)
    else:
        _write_nrrd(path, ct, bent)
    with pytest.warns(UserWarning, match="not exactly perpendicular"):
        volume = Volume.read(path)
    np.testing.assert_array_equal(volume.array, ct)
    np.testing.assert_allclose(volume.affine, oblique, atol=0.02)
    directions = volume.affine[:3, :3] / volume.spacing
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)


def _write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    directions = " ".join(f"({','.join(map(repr, affine[:3, axis].tolist()))})" for axis in range(3))
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\n"
        f"sizes: {' '.join(map(str, array.shape))}\n"
        f"space directions: {directions}\nspace origin: ({','.join(map(repr, affine[:3, 3].tolist()))})\n"
        "endian: little\nencoding: raw\n\n"
    )
    path.write_bytes(header.encode() + array.tobytes(order="F"))


def test_a_sform_that_is_no_grid_gives_way_to_the_qform(tmp_path: Path, ct: np.ndarray, oblique: np.ndarray) -> None:
    image = nib.Nifti1Image(ct, oblique)
    image.set_qform(oblique, 1)
    image.set_sform(oblique + np.array([[0, 0.6, 0, 0]] + [[0] * 4] * 3), 4)
    nib.save(image, tmp_path / "ct.nii")
    with pytest.warns(UserWarning, match="qform is used"):
        np.testing.assert_allclose(Volume.read(tmp_path / "ct.nii").affine, oblique, atol=1e-5)


def test_a_disagreement_of_sform_and_qform_is_told(tmp_path: Path, ct: np.ndarray, oblique: np.ndarray) -> None:
    image = nib.Nifti1Image(ct, oblique)
    image.set_sform(oblique, 1)
    image.set_qform(np.eye(4), 1)
    nib.save(image, tmp_path / "ct.nii")
    with pytest.warns(UserWarning, match="the sform is used"):
        np.testing.assert_allclose(Volume.read(tmp_path / "ct.nii").affine, oblique, atol=1e-5)


def test_a_qform_that_nobody_uses_may_be_wrong(tmp_path: Path, ct: np.ndarray, oblique: np.ndarray) -> None:
    image = nib.Nifti1Image(ct, oblique)
    image.set_sform(oblique, 1)
    image.header["qform_code"] = 1
    for name in ("quatern_b", "quatern_c", "quatern_d"):
        image.header[name] = 0.9
    nib.save(image, tmp_path / "ct.nii")
    np.testing.assert_allclose(Volume.read(tmp_path / "ct.nii").affine, oblique, atol=1e-5)


def test_trailing_axes_of_one_are_dropped(tmp_path: Path, ct: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(ct[..., None, None], np.eye(4)), tmp_path / "ct.nii.gz")
    assert Volume.read(tmp_path / "ct.nii.gz").shape == ct.shape
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(ct)]), str(tmp_path / "ct.nrrd"))
    assert Volume.read(tmp_path / "ct.nrrd").shape == ct.T.shape


def _nifti(path: Path, array: np.ndarray, **header: object) -> None:
    image = nib.Nifti1Image(array, np.eye(4))
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    for offset, data in header.get("patch", {}).items():
        raw[offset : offset + len(data)] = data
    path.write_bytes(raw)


def _cases() -> dict[str, tuple[str, object, str]]:
    """Name -> (file name, function that writes it, expected words)."""
    volume = np.zeros((5, 6, 7), np.int16)
    colour = np.zeros((5, 6, 7), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    no_codes = {252: bytes(4)}
    meta = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 2 2 2\n{}ElementType = MET_SHORT\n"
    meta += "ElementDataFile = LOCAL\n"
    nrrd = "NRRD0004\ntype: short\ndimension: 3\n{}encoding: raw\nendian: little\n\n"

    def text(content: str) -> object:
        return lambda path: path.write_bytes(content.encode() + bytes(16))

    def itk(image: sitk.Image) -> object:
        return lambda path: sitk.WriteImage(image, str(path))

    return {
        "text file": ("ct.nii.gz", text("hello"), "cannot be read"),
        "text named txt": ("ct.txt", text("hello"), "cannot be read"),
        "empty file": ("ct.nrrd", lambda path: path.touch(), "cannot be read"),
        "picture": ("ct.png", itk(sitk.Image(8, 8, sitk.sitkUInt8)), "2 dimensions"),
        "single slice": ("ct.nii", lambda path: _nifti(path, volume[:, :, :1]), "single slice"),
        "2D nifti": ("ct.nii", lambda path: _nifti(path, volume[:, :, 0]), "2 dimensions"),
        "4D nifti": ("ct.nii", lambda path: _nifti(path, np.zeros((3, 3, 3, 2), np.int16)), "4 dimensions"),
        "4D nrrd": ("ct.nrrd", itk(sitk.JoinSeries([sitk.Image(3, 3, 3, sitk.sitkInt16)] * 2)), "4 dimensions"),
        "vector": ("ct.nrrd", itk(sitk.Image([3, 3, 3], sitk.sitkVectorUInt8, 3)), "color or vector"),
        "colour nifti": ("ct.nii", lambda path: _nifti(path, colour), "color image"),
        "complex nifti": ("ct.nii", lambda path: _nifti(path, volume.astype(np.complex64)), "unsupported type"),
        "no voxels": ("ct.nii", lambda path: _nifti(path, volume, patch={42: struct.pack("<h", 0)}), "no voxels"),
        "no voxels nrrd": ("ct.nrrd", text(nrrd.format("sizes: 0 2 2\n")), "no voxels"),
        "spacing 0": (
            "ct.nii",
            lambda path: _nifti(path, volume, patch=no_codes | {80: bytes(4)}),
            "spacing of 0 x 1 x 1",
        ),
        "zero sform": (
            "ct.nii",
            lambda path: _nifti(path, volume, patch={252: b"\0\0\1\0", 280: bytes(16)}),
            "spacing",
        ),
        "absurd spacing": ("ct.nii", lambda path: _nifti(path, volume, patch={280: struct.pack("<f", 9e9)}), "spacing"),
        "spacing 0 mha": ("ct.mha", text(meta.format("ElementSpacing = 0 1 1\n")), "spacing"),
        "spacing 0 nrrd": (
            "ct.nrrd",
            text(nrrd.format("space: LPS\nsizes: 2 2 2\nspace directions: (0,0,0) (0,1,0) (0,0,1)\n")),
            "spacing",
        ),
        "singular nrrd": (
            "ct.nrrd",
            text(nrrd.format("space: LPS\nsizes: 2 2 2\nspace directions: (1,0,0) (1,0,0) (0,0,1)\n")),
            "singular",
        ),
        "sheared nrrd": (
            "ct.nrrd",
            text(nrrd.format("space: LPS\nsizes: 2 2 2\nspace directions: (1,0,0) (0.3,1,0) (0,0,1)\n")),
            "not perpendicular",
        ),
        "bad quaternion": (
            "ct.nii",
            lambda path: _nifti(path, volume, patch={252: b"\1\0\0\0", 256: struct.pack("<3f", 1, 1, 1)}),
            "qform",
        ),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", _cases())
def test_what_is_no_usable_volume_is_refused_in_one_sentence(
    tmp_path: Path, case: str, capfd: pytest.CaptureFixture
) -> None:
    name, write, words = _cases()[case]
    write(tmp_path / name)
    with pytest.raises(InputError, match=words) as caught:
        Volume.read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "ITK" not in str(caught.value)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_truncated_files_are_noticed(tmp_path: Path, ending: str, kept: float) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (20, 21, 22)).astype(np.int16)
    path = tmp_path / f"ct{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), True)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(InputError, match=r"damaged|incomplete"):
        Volume.read(path)


def test_a_damaged_gzip_stream_is_noticed(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(27000, dtype=np.int16).reshape(30, 30, 30), np.eye(4)), tmp_path / "ct.nii")
    data = bytearray(gzip.compress((tmp_path / "ct.nii").read_bytes()))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "ct.nii.gz").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        Volume.read(tmp_path / "ct.nii.gz")


def test_missing_and_forbidden_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Volume.read(tmp_path / "nothing.nii.gz")
    (tmp_path / "ct.nii").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, whom no permission stops
    with pytest.raises(InputError, match="permission denied"):
        Volume.read(tmp_path / "ct.nii")


def _volume(values: np.ndarray, modality: str | None = None) -> Volume:
    return Volume(np.asarray(values).reshape(2, 2, -1), np.eye(4), modality=modality)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full(8, -1024), "same value"),
        (np.linspace(0, 1, 8), "normalized"),
        (np.linspace(-1, 1, 8), "normalized"),
        (np.linspace(-3.2, 4.1, 8), "normalized"),
        (np.arange(8, dtype=np.uint8) * 36, "normalized"),
        (np.linspace(0, 4095, 8), "intercept"),
        (np.array([-1000.0, 0, np.nan, 40, 1, 2, 3, 4]), "1 voxels without a number"),
        (np.array([-1000.0, 0, np.inf, 40, 1, 2, 3, -np.inf]), "2 voxels without a number"),
    ],
)
def test_images_that_are_certainly_not_in_hounsfield_units_are_refused(values: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_ct(_volume(values))


@pytest.mark.parametrize("modality", ["MR", "PT"])
def test_other_modalities_are_refused(modality: str) -> None:
    with pytest.raises(InputError, match=modality):
        check_ct(_volume(np.linspace(-1000, 1000, 8), modality))


def test_doubtful_images_are_let_pass_with_a_warning() -> None:
    assert "at least fat" in check_ct(_volume(np.linspace(-120, 400, 8)))[0]
    assert "far beyond" in check_ct(_volume(np.linspace(-1000, 65535, 8)))[0]
    assert check_ct(_volume(np.linspace(-1000, 1500, 8), "CT")) == []


def test_every_real_ct_is_read_and_accepted(ct_data: Path) -> None:
    images = sorted(ct_data.glob("*/ct.nii.gz"))
    assert images
    for path in images:
        volume = Volume.read(path)
        np.testing.assert_array_equal(volume.affine, nib.load(path).affine)
        assert check_ct(volume) == []


def test_the_labels_of_real_cts_lie_on_their_grid(ct_data: Path) -> None:
    for path in sorted(ct_data.glob("*/label.nii.gz"))[:12]:
        image, label = Volume.read(path.with_name("ct.nii.gz")), Volume.read(path)
        assert label.shape == image.shape
        np.testing.assert_allclose(label.affine, image.affine, atol=1e-3)
