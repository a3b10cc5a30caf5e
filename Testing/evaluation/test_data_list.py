"""Data lists: what they say, what is refused, and the folder of real CTs read as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import labeled, read_data_list

LIST = {
    "name": "my livers",
    "labels": {"0": "background", "1": 1, "2": [25, 26], "3": "spleen", "4": "my lesion"},
    "complete": True,
    "weight": 2,
    "training": [
        {"image": "a.nii.gz", "label": "a_seg.nii.gz", "fold": 1, "supervoxel": "sv/a.nii.gz"},
        {
            "image": "b.nii.gz",
            "label": "b_seg.nii.gz",
            "labels": {"7": 5},
            "complete": False,
            "pseudo_label": "p.nii",
            "predicted": [1, 3],
        },
    ],
    "testing": ["./c.nii.gz", {"name": "d", "image": "dicom/d/", "label": "d.seg.nrrd"}],
    "validation": [{"image": "e.mha", "label": "e_seg.mha"}],
}


def _written(folder: Path, content: object, name: str = "dataset.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content) if not isinstance(content, str) else content)
    return path


def test_everything_that_a_list_says(tmp_path: Path) -> None:
    data = read_data_list(_written(tmp_path, LIST))
    first, second = data.training
    assert (data.name, first.name, first.fold, first.weight, first.complete) == ("my livers", "a", 1, 2.0, True)
    assert first.image == tmp_path / "a.nii.gz"
    assert first.classes == {1: (1,), 2: (25, 26), 3: (3,), 4: ()}
    assert first.names == {1: "liver", 2: "hepatic vessel + hepatic tumor", 3: "spleen", 4: "my lesion"}
    assert (second.classes, second.complete, second.fold) == ({7: (5,)}, False, None)
    assert (first.supervoxel, second.pseudo_label) == (tmp_path / "sv/a.nii.gz", tmp_path / "p.nii")
    assert (first.predicted, second.predicted) == (None, (1, 3))
    assert [(item.name, item.label is None) for item in data.testing] == [("c", True), ("d", False)]
    assert labeled(data.testing) == [data.testing[1]]
    assert data.section("train") == data.training
    assert [item.name for item in data.section("validation")] == ["e"]
    with pytest.raises(InputError, match="no section 'demo'; it has: training, testing, validation"):
        data.section("demo")


def test_paths_are_relative_to_the_root_that_a_list_names(tmp_path: Path) -> None:
    data = read_data_list(_written(tmp_path, {**LIST, "root": "images"}))
    assert data.training[0].image == tmp_path / "images" / "a.nii.gz"
    assert read_data_list(tmp_path).testing == read_data_list(tmp_path / "dataset.json").testing


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "not valid JSON"),
        ("3", "no data list"),
        ({"labels": {}}, "neither 'training' nor 'testing'"),
        ({"training": {"image": "a"}}, "must be a list"),
        ({"training": [3]}, "Entry 1 of 'training'"),
        ({"training": [{"fold": 0}]}, "'image' in entry 1 of 'training'"),
        ({"training": [{"image": "a", "fold": "x"}]}, "'fold'"),
        ({"training": [{"image": "a", "complete": 1}]}, "'complete'"),
        ({"training": [{"image": "a", "predicted": [1.5]}]}, "'predicted'"),
        ({"training": [{"image": "a"}], "labels": {"liver": 1}}, "'liver' is no whole number"),
        ({"training": [{"image": "a"}], "labels": {"1": 999}}, "no structure number 999"),
        ({"training": [{"image": "a"}], "labels": {"1": [1.5]}}, "must be an index"),
        ({"training": [{"image": "a"}], "labels": [1]}, "'labels'"),
        ({"training": [{"image": "a", "label_names": ["x"]}]}, "'label_names'"),
        ({"training": [{"image": "a"}, {"image": "a"}]}, "holds 'a' twice"),
        ([{"id": "a"}], "lacks 'split'"),
    ],
)
def test_a_damaged_list_is_one_sentence(tmp_path: Path, content: object, word: str) -> None:
    with pytest.raises(InputError) as error:
        read_data_list(_written(tmp_path, content))
    assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_without_a_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither index\.json nor dataset\.json"):
        read_data_list(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_data_list(tmp_path / "nowhere.json")


def test_the_folder_of_real_cts_is_a_list(ct_data: Path) -> None:
    data = read_data_list(ct_data)
    assert {"training", "testing", "demo", "unlabelled"} <= set(data.sections)
    subject = next(item for item in data.training if item.name == "totalseg_s0003")
    assert subject.complete
    assert subject.image.is_file()
    lungs = next(item for item in data.training if item.name == "elastix_lung_baseline")
    assert (lungs.complete, lungs.classes, lungs.names) == (False, {1: (30, 31, 32)}, {1: "right lung"})
    lesion = next(item for item in data.testing if item.name == "ibsi_sts_011")
    assert lesion.classes == {1: ()}
    assert labeled(data.section("unlabelled")) == []
