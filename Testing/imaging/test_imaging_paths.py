"""Names of files that are no UTF-8, as old CDs and network drives have them, and ``~`` that no shell replaced."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.seg_reading import read_mask
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume

COLOGNE = os.fsdecode(b"K\xf6ln")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such names")


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """One image in each format that ITK reads."""
    array = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.int16)
    image = sitk.GetImageFromArray(array.T)
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in ("ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "ct.nii.gz"):
        sitk.WriteImage(image, str(folder / name))
    return folder, array


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nhdr", "ct.mha", "ct.mhd", "ct.nii.gz"])
def test_images_with_such_a_folder_or_name_are_read(images: tuple[Path, np.ndarray], name: str, tmp_path: Path) -> None:
    folder, array = images
    strange = Path(shutil.copytree(folder, tmp_path / COLOGNE))
    np.testing.assert_array_equal(Volume.read(strange / name).array, array)
    renamed = (folder / name).rename(folder / f"{COLOGNE}{name[2:]}")
    volume = Volume.read(renamed)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.name == f"K?ln{name[2:]}"


def test_dicom_series_in_such_a_folder_or_with_such_names_are_read(
    tmp_path: Path, write_dicom: Callable[..., Path]
) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.float64)
    folder = write_dicom(tmp_path / COLOGNE, array)
    np.testing.assert_array_equal(Volume.read(folder).array, array)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"{COLOGNE}{number}")
    np.testing.assert_array_equal(Volume.read(folder).array, array)
    np.testing.assert_array_equal(Volume.read(folder / f"{COLOGNE}3").array, array)


def test_segmentations_with_such_names_are_written_and_read(tmp_path: Path) -> None:
    labels = np.zeros((6, 7, 8), np.uint16)
    labels[2:4, 2:5, 3:6] = 1
    structure = catalogue()[1]
    written = Segmentation(labels, {}, (structure,), np.eye(4), {"base": f"{COLOGNE}.nrrd"})
    for name in (f"{COLOGNE}.seg.nrrd", f"{COLOGNE}.nrrd", f"{COLOGNE}.mha", f"{COLOGNE}.nii"):
        written.write(tmp_path / name)
        mask = read_mask(tmp_path / name, Volume(labels, np.eye(4)), structure)
        np.testing.assert_array_equal(mask, labels == 1)


def test_a_tilde_in_quotes_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkInt16), str(tmp_path / "ct.nrrd"))
    assert Volume.read("~/ct.nrrd").shape == (4, 4, 4)
    for nobody in ("~nobody-of-this-name/ct.nrrd", "~/none.nrrd"):
        with pytest.raises(InputError, match="does not exist"):
            Volume.read(nobody)


@pytest.mark.parametrize("pattern", ["*.dcm", "IM00??"])
def test_a_pattern_that_no_shell_replaced_is_answered_by_the_folder(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=r"give the folder \('.*/dicom'\)"):
        Volume.read(tmp_path / "dicom" / pattern)
