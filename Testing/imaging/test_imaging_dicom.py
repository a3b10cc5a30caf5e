"""DICOM series: the right one, complete, in Hounsfield units, in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.readers import check_ct
from VISTA3DCore.imaging.volume import Volume

WriteDicom = Callable[..., Path]


@pytest.fixture
def ct() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 2000, (12, 10, 6)).astype(np.int16)


def test_a_series_is_read_in_hounsfield_units_and_in_place(
    tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom
) -> None:
    volume = Volume.read(write_dicom(tmp_path / "ct", ct))
    np.testing.assert_array_equal(volume.array, ct)
    expected = np.diag([-0.8, -0.9, 2.5, 1.0])
    expected[:3, 3] = 10.0, 20.0, 0.0
    np.testing.assert_allclose(volume.affine, expected)
    assert volume.modality == "CT"
    assert volume.name == "CT series 3 'Abdomen' (6 slices)"
    assert volume.array.dtype == np.int16


def test_files_in_any_order_are_stacked_along_their_normal(
    tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom
) -> None:
    positions = np.array([(-10.0, -20.0, 50.0 - 2.5 * k) for k in range(6)])
    volume = Volume.read(write_dicom(tmp_path / "ct", ct, positions))
    np.testing.assert_array_equal(volume.array, ct[:, :, ::-1])
    np.testing.assert_allclose(volume.affine[:3, 3], (10.0, 20.0, 37.5))


def test_an_oblique_series_equals_what_itk_reads(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("xyz", [10, -15, 20], degrees=True).as_matrix()
    positions = np.array([np.array([1.0, 2.0, 3.0]) + 2.5 * k * turn[:, 2] for k in range(6)])
    orientation = [round(float(value), 10) for value in turn[:, :2].T.ravel()]
    folder = write_dicom(tmp_path / "ct", ct, positions.round(6), ImageOrientationPatient=orientation)
    volume = Volume.read(folder)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    columns = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    np.testing.assert_allclose(volume.affine[:3, :3], np.diag([-1, -1, 1]) @ columns, atol=1e-4)


def test_fractional_slopes_that_differ_between_slices_are_applied(tmp_path: Path, write_dicom: WriteDicom) -> None:
    folder = tmp_path / "ct"
    for k, slope in enumerate((1.0, 0.25, 0.5, 2.5)):
        values = np.array([[-1024.0, -1024 + 10 * slope], [-1024 + 100 * slope, 40 * slope - 1024]])[:, :, None]
        write_dicom(folder, values, np.array([[0.0, 0.0, 2.0 * k]]), RescaleSlope=slope, SeriesInstanceUID="1.2.3")
    volume = Volume.read(folder)
    np.testing.assert_allclose(volume.array[1, 0], np.array([-924.0, -999.0, -974.0, -774.0]))


def test_the_largest_ct_series_is_chosen_and_named(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    folder = tmp_path / "study"
    write_dicom(folder / "a", ct[:, :, :4], SeriesDescription="Short")
    write_dicom(folder / "b", ct, SeriesDescription="Long")
    write_dicom(folder / "c", np.tile(ct, 2), Modality="MR", SeriesDescription="Other")
    write_dicom(folder / "d", ct[:, :, :1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.warns(UserWarning, match="'Long' \\(6 slices\\)"):
        volume = Volume.read(folder)
    np.testing.assert_array_equal(volume.array, ct)


def test_one_file_names_its_series(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    folder = tmp_path / "study"
    write_dicom(folder, ct, SeriesDescription="Soft", SeriesInstanceUID="1.2.3.4.100001")
    write_dicom(folder, -ct, SeriesDescription="Hard", SeriesInstanceUID="1.2.3.4.100002", RescaleIntercept=-2000)
    with pytest.raises(
        InputError, match=r"equally large series: .*'Soft' \(6 slices\).*'Hard' \(6 slices\)|'Hard'.*'Soft'"
    ):
        Volume.read(folder)
    from pydicom import dcmread

    hard = next(file for file in folder.iterdir() if dcmread(file).SeriesDescription == "Hard")
    np.testing.assert_array_equal(Volume.read(hard).array, -ct)


def test_a_localizer_inside_the_series_is_left_out(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    folder = write_dicom(tmp_path / "ct", ct, SeriesInstanceUID="1.2.3")
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    write_dicom(folder, ct[:, :, :1], SeriesInstanceUID="1.2.3", **localizer)
    np.testing.assert_array_equal(Volume.read(folder).array, ct)


def test_other_files_do_no_harm(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    folder = write_dicom(tmp_path / "ct", ct)
    (folder / "readme.txt").write_text("notes")
    (folder / "report.dcm").write_bytes(bytes(128) + b"DICM" + b"broken")
    np.testing.assert_array_equal(Volume.read(folder).array, ct)


def test_jpeg_2000_lossless_series_are_read(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    from pydicom import dcmread

    plain, packed = write_dicom(tmp_path / "plain", ct), tmp_path / "packed"
    packed.mkdir()
    for file in sorted(plain.iterdir()):
        original = sitk.ReadImage(str(file))
        image = sitk.Cast(original, sitk.sitkInt16)
        for key in original.GetMetaDataKeys():
            if not key.startswith("0028|"):
                image.SetMetaData(key, original.GetMetaData(key))
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.UseCompressionOn()
        writer.SetFileName(str(packed / file.name))
        writer.Execute(image)
    syntax = dcmread(next(packed.iterdir())).file_meta.TransferSyntaxUID
    assert syntax == "1.2.840.10008.1.2.4.90"
    np.testing.assert_array_equal(Volume.read(packed).array, ct)


def test_missing_slices_are_counted(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    positions = np.array([(0.0, 0.0, z) for z in (0, 2.5, 5.0, 12.5, 15.0, 17.5)])
    with pytest.raises(InputError, match="missing slices: about 2 of 8"):
        Volume.read(write_dicom(tmp_path / "ct", ct, positions))


def test_uneven_slices_are_refused_and_nearly_even_ones_told(
    tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom
) -> None:
    uneven = np.array([(0.0, 0.0, z) for z in (0, 2.5, 5.0, 8.2, 10.0, 12.5)])
    with pytest.raises(InputError, match="uneven slice distances"):
        Volume.read(write_dicom(tmp_path / "uneven", ct, uneven))
    nearly = np.array([(0.0, 0.0, z) for z in (0, 2.5, 5.0, 7.6, 10.0, 12.5)])
    with pytest.warns(UserWarning, match="slightly uneven"):
        assert Volume.read(write_dicom(tmp_path / "nearly", ct, nearly)).spacing[2] == pytest.approx(2.5)


def test_gantry_tilt_is_refused(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    tilted = [1, 0, 0, 0, np.cos(np.radians(15)).round(8), np.sin(np.radians(15)).round(8)]
    with pytest.raises(InputError, match=r"gantry tilt of 15\.0 degrees"):
        Volume.read(write_dicom(tmp_path / "ct", ct, ImageOrientationPatient=tilted))


def test_mixed_sizes_are_refused(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    folder = write_dicom(tmp_path / "ct", ct, SeriesInstanceUID="1.2.3")
    above = np.array([(-10.0, -20.0, 15.0 + 2.5 * k) for k in range(2)])
    write_dicom(folder, ct[:8, :8, :2], above, SeriesInstanceUID="1.2.3")
    with pytest.raises(InputError, match="different sizes or pixel spacings: 12 x 10"):
        Volume.read(folder)


def test_two_phases_in_one_series_are_refused(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    folder = write_dicom(tmp_path / "ct", ct, SeriesInstanceUID="1.2.3")
    for file in list(folder.iterdir()):
        file.rename(folder / f"first_{file.name}")
    write_dicom(folder, ct, SeriesInstanceUID="1.2.3")
    with pytest.raises(InputError, match="same position"):
        Volume.read(folder)


def test_folders_without_a_series(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty"):
        Volume.read(tmp_path / "empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="no DICOM images"):
        Volume.read(tmp_path / "text")
    with pytest.raises(InputError, match="only localizers"):
        Volume.read(write_dicom(tmp_path / "scout", ct, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    with pytest.raises(InputError, match=r"only 2 slice\(s\)"):
        Volume.read(write_dicom(tmp_path / "short", ct[:, :, :2]))


def test_another_modality_is_read_but_not_as_ct(tmp_path: Path, ct: np.ndarray, write_dicom: WriteDicom) -> None:
    volume = Volume.read(write_dicom(tmp_path / "mr", ct, Modality="MR"))
    assert volume.modality == "MR"
    with pytest.raises(InputError, match="modality MR"):
        check_ct(volume)


def test_a_real_series(ct_data: Path) -> None:
    folder = ct_data / "crlm_ct_1004_dicom"
    if not folder.is_dir():
        pytest.skip("this series is not here")
    volume = Volume.read(folder)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).T)
    np.testing.assert_allclose(volume.spacing, image.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(volume.affine[:3, 3] * (-1, -1, 1), image.GetOrigin(), atol=1e-4)
    assert volume.shape == (512, 512, 41)
    assert check_ct(volume) == []
