"""Reference label maps: what they hold, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError, UnknownStructureError
from VISTA3DCore.evaluation.data_list import DataItem, read_data_list
from VISTA3DCore.evaluation.evaluator import tasks_of
from VISTA3DCore.evaluation.references import (
    Meaning,
    Reference,
    labeled_image,
    read_labels,
    read_meanings,
    read_reference,
)
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
KNOWN = (1, 3, 5, 14, 23)


def _labels() -> np.ndarray:
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[0], labels[1], labels[2], labels[3] = 1, 3, 26, 6
    return labels


def test_values_are_indices_unless_said_otherwise() -> None:
    reference = Reference([_labels()], None, catalogue())
    assert reference.names == ("liver", "spleen", "aorta", "hepatic tumor")
    names = [target.name for target in reference.targets(["everything"], KNOWN)]
    assert names == ["liver", "spleen"]
    (spleen,) = reference.targets(["Spleen"], KNOWN)
    np.testing.assert_array_equal(reference.mask(spleen), _labels() == 3)
    assert spleen.structure is catalogue()["spleen"]


def test_an_organ_contains_its_tumor() -> None:
    reference = Reference([_labels()], None, catalogue())
    (liver,) = reference.targets(["liver"], KNOWN)
    np.testing.assert_array_equal(reference.mask(liver), np.isin(_labels(), (1, 26)))
    only_tumor = Reference([np.where(_labels() == 26, 26, 0)], None, catalogue())
    assert only_tumor.targets(["liver"], KNOWN) == []


def test_other_values_unions_and_objects_without_class() -> None:
    meanings = {1: Meaning("kidneys", (5, 14)), 3: Meaning("GTV_Mass"), 6: Meaning("kidney_left", (14,))}
    reference = Reference([_labels()], meanings, catalogue())
    assert [target.name for target in reference.targets(["everything"], KNOWN)] == ["left kidney"]
    assert [target.name for target in reference.targets(["kidney"], KNOWN)] == ["left kidney"]
    objects = reference.objects(["everything"])
    assert [one.name for one in objects] == ["kidneys", "GTV_Mass", "kidney_left"]
    assert all(one.structure is None for one in objects)
    np.testing.assert_array_equal(reference.mask(objects[1]), _labels() == 3)
    assert [one.name for one in reference.objects(["gtv_mass", "left kidney"])] == ["GTV_Mass", "kidney_left"]
    assert reference.objects(["no such thing"]) == []


def test_unknown_and_untrained_structures_are_named() -> None:
    reference = Reference([_labels()], None, catalogue())
    with pytest.raises(UnknownStructureError, match="did you mean 'liver'"):
        reference.targets(["livr"], KNOWN)
    with pytest.raises(UnknownStructureError, match="not in this model"):
        reference.targets(["aorta"], KNOWN)


def _written(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def test_reference_lies_on_the_grid_of_the_image(tmp_path: Path) -> None:
    volume = Volume(np.zeros((6, 6, 6), np.int16), AFFINE, "ct.nii.gz")
    read = read_labels(_written(tmp_path / "labels.nii.gz", _labels()), volume)
    np.testing.assert_array_equal(read, _labels())
    whole = read_labels(_written(tmp_path / "float.nii.gz", _labels().astype(np.float32)), volume)
    assert whole.dtype.kind == "i"
    moved = AFFINE.copy()
    moved[0, 3] = 2.0
    for name, array, affine in (("moved", _labels(), moved), ("cut", _labels()[1:], AFFINE)):
        with pytest.raises(InputError, match=r"another geometry than the image 'ct\.nii\.gz'"):
            read_labels(_written(tmp_path / f"{name}.nii.gz", array, affine), volume)
    with pytest.raises(InputError, match="fractions"):
        read_labels(_written(tmp_path / "half.nii.gz", _labels().astype(np.float32) / 2), volume)


def test_segmentations_of_slicer_name_their_segments(tmp_path: Path) -> None:
    volume = Volume(np.zeros((6, 6, 6), np.int16), AFFINE, "ct.nii.gz")
    labels, tumor = _labels(), np.zeros((6, 6, 6), bool)
    labels[labels == 26] = 0
    tumor[0, :3] = True  # within the liver
    structures = tuple(catalogue()[name] for name in ("liver", "spleen", "aorta", "hepatic tumor"))
    Segmentation(labels, {26: tumor}, structures, AFFINE).write(tmp_path / "a.seg.nrrd")
    case = labeled_image(tmp_path / "ct.nii.gz", tmp_path / "a.seg.nrrd")
    reference = read_reference(case, volume, catalogue())
    targets = {target.name: reference.mask(target) for target in reference.targets(["everything"], range(1, 133))}
    np.testing.assert_array_equal(targets["spleen"], labels == 3)
    np.testing.assert_array_equal(targets["liver"], labels == 1)
    np.testing.assert_array_equal(targets["hepatic tumor"], tumor)
    assert len(reference.objects(["everything"])) == 4
    moved = Volume(volume.array, np.diag([2.0, 2.0, 2.5, 1.0]), "ct.nii.gz")
    with pytest.raises(InputError, match="resample it onto the image"):
        read_reference(case, moved, catalogue())


def test_meanings_from_json(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"1": "leber" if "leber" in catalogue() else "liver", "2": 14, "3": [30, 31], "4": "x"}))
    meanings = read_meanings(path, catalogue())
    assert meanings[1] == Meaning("liver", (1,))
    assert meanings[2] == Meaning("left kidney", (14,))
    assert meanings[3].indices == (30, 31)
    assert meanings[4] == Meaning("x")


@pytest.mark.parametrize("text", ["[1]", '{"one": "liver"}', '{"1": null}', '{"1": true}', "{", '{"1": 999}'])
def test_damaged_json_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"\.$"):
        read_meanings(path, catalogue())


def _cases(folder: Path, section: str) -> list[DataItem]:
    return [task.item for task in tasks_of(read_data_list(folder), section)]


def test_cases_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither index\.json"):
        _cases(tmp_path, "test")
    entry = {"id": "a", "split": "test", "image": "a/ct.nii.gz", "label": "a/label.nii.gz"}
    known = {**entry, "label_names": {"1": "GTV"}, "vista3d_ids": {"2": [5, 14]}}
    (tmp_path / "index.json").write_text(
        json.dumps([known, {**entry, "split": "train"}, {**entry, "id": "b", "label": None}])
    )
    (case,) = _cases(tmp_path, "test")
    assert (case.name, case.label) == ("a", tmp_path / "a" / "label.nii.gz")
    assert case.classes == {1: (), 2: (5, 14)}
    assert case.names == {1: "GTV", 2: "right kidney + left kidney"}
    with pytest.raises(InputError, match="no section 'demo'; it has: testing, training"):
        _cases(tmp_path, "demo")
    (tmp_path / "index.json").write_text('[{"id": "a"}]')
    with pytest.raises(InputError, match="lacks 'split'"):
        _cases(tmp_path, "test")


def test_real_cases_are_understood(ct_data: Path) -> None:
    cases = {split: _cases(ct_data, split) for split in ("train", "test", "demo")}
    assert all(cases.values())
    (demo,) = cases["demo"]
    volume = Volume.read(demo.image)
    reference = read_reference(demo, volume, catalogue())
    targets = reference.targets(["liver", "vertebrae"], range(1, 133))
    assert targets[0].name == "liver"
    assert np.count_nonzero(reference.mask(targets[0])) > 10_000
    lesions = [case for case in cases["test"] if not any(case.classes.values())]
    assert lesions


def test_objects_have_official_names_where_they_stand_for_one_structure() -> None:
    meanings = {1: Meaning("kidneys", (5, 14)), 3: Meaning("GTV_Mass"), 6: Meaning("kidney_left", (14,))}
    reference = Reference([_labels()], meanings, catalogue())
    found = {one.name: reference.structure_of(one) for one in reference.objects(["everything"])}
    assert found == {"kidneys": None, "GTV_Mass": None, "kidney_left": catalogue()["left kidney"]}


@pytest.mark.parametrize("orientation", ["LAS", "RPS", "SRA", "PIL"])
def test_a_reference_may_be_stored_along_other_axes(orientation: str, tmp_path: Path) -> None:
    labels = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)
    stored = nibabel.orientations.axcodes2ornt(orientation)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), stored)
    other = nibabel.Nifti1Image(labels, AFFINE).as_reoriented(turn)
    nibabel.save(other, tmp_path / "labels.nii.gz")
    assert not np.array_equal(other.affine, AFFINE)
    found = read_labels(tmp_path / "labels.nii.gz", Volume(np.zeros((6, 5, 4), np.int16), AFFINE))
    np.testing.assert_array_equal(found, labels)


def test_a_part_of_the_image_is_no_reference(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 6, 5), np.uint8), AFFINE), tmp_path / "part.nii.gz")
    with pytest.raises(InputError, match="another geometry"):
        read_labels(tmp_path / "part.nii.gz", Volume(np.zeros((6, 6, 6), np.int16), AFFINE))
