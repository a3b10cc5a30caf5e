"""Masks beside a label map, and in a folder: they replace their like and nothing else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import OutputError
from VISTA3DCore.imaging.result_files import ResultFiles
from VISTA3DCore.imaging.segmentation import Segmentation

LIVER, VESSEL, TUMOR = 1, 25, 26
FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha")


def _segmentation(*indices: int, shift: int = 0) -> Segmentation:
    labels, masks = np.zeros((9, 8, 7), np.uint16), {}
    for index in indices:
        if index == LIVER:
            labels[1:6, 1 + shift : 6, 1:6] = LIVER
        else:
            masks[index] = np.zeros(labels.shape, bool)
            masks[index][2:4, 2 + shift : 5, index - 24] = True
    structures = tuple(catalogue()[index] for index in indices)
    provenance = {"model": "a model with a long name, and then some more", "version": "0.1.0", "preset": "bundle"}
    return Segmentation(labels, masks, structures, np.diag([2.0, 1.5, 3.0, 1.0]), provenance)


def _voxels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_somebody_else_is_never_replaced(tmp_path: Path, suffix: str) -> None:
    """Neither one drawn by hand, nor one of ours that was corrected by hand and kept its header."""
    main, beside = tmp_path / f"case{suffix}", tmp_path / f"case_hepatic_vessel{suffix}"
    beside.write_text("drawn by hand")
    with pytest.raises(OutputError, match=r"hepatic_vessel.*exists and would be replaced"):
        _segmentation(LIVER, VESSEL).write(main)
    assert beside.read_text() == "drawn by hand"
    assert not main.exists()
    beside.unlink()
    _segmentation(LIVER, VESSEL).write(main)
    _edit(beside)
    edited = beside.read_bytes()
    with pytest.raises(OutputError, match="would be replaced"):
        _segmentation(LIVER, VESSEL).write(main)
    _segmentation(LIVER).write(main)
    assert beside.read_bytes() == edited


def _edit(path: Path) -> None:
    if path.name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        array = np.asarray(image.dataobj).copy()
        array[0, 0, 0] = 1
        nib.save(nib.Nifti1Image(array, None, image.header), path)
    else:
        image = sitk.ReadImage(str(path))
        image[0, 0, 0] = 1
        sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_call_again_replaces_its_masks_and_removes_those_that_the_result_no_longer_has(
    tmp_path: Path, suffix: str
) -> None:
    main = tmp_path / f"case{suffix}"
    _segmentation(LIVER, VESSEL, TUMOR).write(main)
    again = _segmentation(LIVER, VESSEL, shift=1)
    written = again.write(main)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    np.testing.assert_array_equal(_voxels(written[1]), again.masks[VESSEL])


def test_results_with_similar_names_do_not_touch_each_other(tmp_path: Path) -> None:
    _segmentation(LIVER, VESSEL).write(tmp_path / "case_a.nii.gz")
    _segmentation(VESSEL).write(tmp_path / "case_hepatic_vessel.nii.gz")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    _segmentation(LIVER).write(tmp_path / "case.nii.gz")
    with pytest.raises(OutputError, match="would be replaced"):
        _segmentation(LIVER, VESSEL).write(tmp_path / "case.nii.gz")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_structure_that_is_asked_for_alone_is_in_the_file_that_was_named(tmp_path: Path, suffix: str) -> None:
    alone = _segmentation(VESSEL)
    assert alone.write(tmp_path / f"v{suffix}") == [tmp_path / f"v{suffix}"]
    np.testing.assert_array_equal(_voxels(tmp_path / f"v{suffix}"), alone.masks[VESSEL] * VESSEL)
    two = _segmentation(TUMOR, VESSEL)
    main, beside = two.write(tmp_path / f"two{suffix}")
    assert beside.name == f"two_hepatic_vessel{suffix}"
    np.testing.assert_array_equal(_voxels(main), two.masks[TUMOR] * TUMOR)
    np.testing.assert_array_equal(_voxels(beside), two.masks[VESSEL])


def test_a_folder_never_mixes_two_results(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    _segmentation(LIVER, VESSEL).write(folder, "separate")
    with pytest.raises(OutputError, match=r"earlier run.*hepatic_vessel.nii.gz"):
        _segmentation(LIVER).write(folder)
    _segmentation(LIVER, VESSEL, TUMOR, shift=1).write(folder)
    names = ["hepatic_tumor.nii.gz", "hepatic_vessel.nii.gz", "liver.nii.gz"]
    assert sorted(path.name for path in folder.iterdir()) == names
    (folder / "notes.txt").write_text("mine")
    (folder / "aorta.nii.gz").write_text("mine")
    (folder / "liver.nii.gz").write_text("drawn by hand")
    with pytest.raises(OutputError, match=r"liver\.nii\.gz' exists"):
        _segmentation(LIVER, VESSEL, TUMOR).write(folder)
    assert (folder / "liver.nii.gz").read_text() == "drawn by hand"


def test_masks_survive_a_copy_of_the_whole_result(tmp_path: Path) -> None:
    """Times of files differ then; their content decides."""
    (tmp_path / "first").mkdir()
    _segmentation(LIVER, VESSEL).write(tmp_path / "first" / "case.nii.gz")
    shutil.copytree(tmp_path / "first", tmp_path / "second", copy_function=shutil.copyfile)
    _segmentation(LIVER, VESSEL, shift=1).write(tmp_path / "second" / "case.nii.gz")


@given(st.lists(st.text(max_size=300), min_size=1, max_size=6))
def test_whatever_structures_are_called_no_two_share_a_file_and_none_leaves_the_folder(names: list[str]) -> None:
    structures = [replace(catalogue()[LIVER], index=1 + n, name=name) for n, name in enumerate(names)]
    files = ResultFiles.of("/nowhere/case.nii.gz", None, structures, {one.index for one in structures[1:]})
    assert list(files.parts.values()) == structures[1:]
    assert len({path.name.casefold() for path in files.parts}) == len(names) - 1
    assert all(path.parent == Path("/nowhere") and len(path.name) < 130 for path in files.parts)
