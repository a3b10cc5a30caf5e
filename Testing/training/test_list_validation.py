"""A data list is read once, and everything that is wrong with it is told in one go."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import case_of, split_cases
from VISTA3DCore.training.datasets import IGNORE, load_case
from VISTA3DCore.training.validation import ERROR, WARNING, has_errors, validate

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
SHAPE = (10, 11, 12)


class Folder:
    """Writes small CTs and labels, and lists of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def image(self, name: str, seed: int = 0, low: float = -1000.0, hole: bool = False) -> str:
        array = np.random.default_rng(seed).uniform(low, 800, SHAPE).astype(np.float32)
        if hole:
            array[3, 3, 3] = np.nan
        return self._save(name, array, AFFINE)

    def scaled(self, name: str) -> str:
        array = np.random.default_rng(0).uniform(0, 1, SHAPE).astype(np.float32)
        array[0, 0, 0], array[0, 0, 1] = 0, 1
        return self._save(name, array, AFFINE)

    def label(self, name: str, values: tuple[float, ...] = (1,), shape=SHAPE, affine=AFFINE, dtype=np.uint8) -> str:
        array = np.zeros(shape, dtype)
        for place, value in enumerate(values):
            array[2:5, 2:5, 2 * place : 2 * place + 2] = value
        return self._save(name, array, affine)

    def data(self, training: list[dict], testing: tuple[dict, ...] = (), **more):
        content = {"name": "mine", "labels": {"1": 1, "2": 3}, "training": training, "testing": list(testing), **more}
        (self.path / "dataset.json").write_text(json.dumps(content))
        return read_data_list(self.path)

    def _save(self, name: str, array: np.ndarray, affine: np.ndarray) -> str:
        nibabel.save(nibabel.Nifti1Image(array, affine), self.path / f"{name}.nii.gz")
        return f"{name}.nii.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


MODEL = ModelConfig()


def test_nothing_is_wrong_with_a_good_list(folder):
    flipped = folder.label("b_seg", (1, 2))
    image = nibabel.load(folder.path / flipped)
    nibabel.save(image.as_reoriented(nibabel.io_orientation(np.diag([-1, 1, 1, 1]))), folder.path / flipped)
    data = folder.data(
        [
            {"image": folder.image("a", 1), "label": folder.label("a_seg"), "fold": 0},
            {"image": folder.image("b", 2), "label": flipped, "fold": 1},
        ],
        ({"image": folder.image("c", 3), "label": folder.label("c_seg")},),
    )
    assert validate([data], MODEL, fold=0) == []


def test_everything_is_told_in_one_go(folder):
    (folder.path / "broken.nii.gz").write_bytes(b"no image")
    shifted = AFFINE.copy()
    shifted[0, 3] = 1.0
    data = folder.data(
        [
            {"image": "gone.nii.gz", "label": "gone_seg.nii.gz", "fold": 0},
            {"image": "broken.nii.gz", "label": folder.label("broken_seg"), "fold": 0},
            {"image": folder.image("short", 1), "label": folder.label("s", shape=(5, 11, 12)), "fold": 0},
            {"image": folder.image("shifted", 2), "label": folder.label("h", affine=shifted), "fold": 0},
            {"image": folder.image("strange", 3), "label": folder.label("t", (1, 7, 9)), "fold": 0},
            {"image": folder.image("empty", 4), "label": folder.label("e", ()), "fold": 0},
            {"image": folder.image("mask", 13), "label": folder.label("m", (255,)), "fold": 0},
            {"image": folder.image("signed", 14), "label": folder.label("g", (1, -1), dtype=np.int16), "fold": 0},
            {"image": folder.label("exchanged"), "label": folder.image("as_label", 15), "fold": 0},
            {"image": folder.scaled("scaled"), "label": folder.label("u"), "fold": 0},
            {"image": folder.image("holes", 16, hole=True), "label": folder.label("v"), "fold": 0},
            {"image": folder.image("half", 5), "label": folder.label("f", (0.5,), dtype=np.float32), "fold": 0},
            {"image": folder.image("normal", 6, low=0.0), "label": folder.label("n"), "fold": -1},
            {"image": folder.image("weak", 7), "label": folder.label("w"), "weight": 0},
            {"image": folder.image("one", 8), "label": folder.label("o"), "fold": 1},
            {"image": folder.image("two", 8), "label": folder.label("p"), "fold": 2},
            {"image": folder.image("three", 9), "label": folder.label("q"), "fold": 1, "labels": {"1": 7}},
            {"image": folder.image("bare", 10), "fold": 1},
            {
                "image": folder.image("extra", 12),
                "label": folder.label("x"),
                "fold": 1,
                "pseudo_label": folder.label("pseudo", (200,)),
                "supervoxel": "none.nii.gz",
            },
        ],
        ({"name": "tested", "image": folder.image("three_again", 9), "label": folder.label("r")},),
    )
    problems = validate([data], ModelConfig(classes=(1, 3)), fold=5)
    texts = [str(problem) for problem in problems]

    for words in (
        "The image of 'gone' is missing",
        "The label of 'gone' is missing",
        "The image of 'broken' cannot be read",
        "'short' and its image have different grids: 5 x 11 x 12",
        "'shifted' and its image have different grids",
        "'strange' has values that 'labels' does not explain: 7, 9",
        "The label of 'empty' is empty",
        "No voxel of the label of 'mask' belongs to a structure: it holds 255, and 'labels' explains 1, 2",
        "The label of 'signed' must hold whole numbers from 0 on; it holds -1",
        "The label of 'exchanged' must hold whole numbers from 0 on, and",
        "'exchanged': The image's values run from 0 to 1",
        "'scaled': The image's values run from 0 to 1",
        "'holes': The image has 1 voxels without a number",
        "No label of 'mine' shows what 'labels' explains as 'spleen'",
        "The label of 'half' must hold whole numbers from 0 on, and 18 of its voxels do not, such as 0.5",
        "'normal': The image's values run from",
        "The fold of 'normal' is -1",
        "The weight of 'weak' is 0",
        "'weak' lack 'fold'",
        "The same image is in several folds: 'one', 'two'",
        "The same image is learned from and tested on: 'three', 'tested'",
        "The model does not learn 'inferior vena cava' (7)",
        "'bare' has neither label nor supervoxels",
        "The pseudo-label of 'extra' has values that are no classes: 200",
        "The supervoxels of 'extra' is missing",
        "Fold 5 has no labeled case to validate with; the folds of the data are: -1, 0, 1, 2",
    ):
        assert sum(words in text for text in texts) == 1, (words, texts)
    assert len(texts) == 26, texts
    assert all(text.endswith(".") and "\n" not in text for text in texts)
    assert has_errors(problems)
    warned = ("'bare' has neither", "'strange' has values", "'empty' is empty", "No label of 'mine' shows")
    assert {problem.severity for problem in problems if any(words in problem.text for words in warned)} == {WARNING}


def test_the_same_ct_is_found_in_whatever_way_it_is_stored(folder):
    volume = nibabel.load(folder.path / folder.image("a"))
    array = np.rint(np.asarray(volume.dataobj))
    nibabel.save(nibabel.Nifti1Image(array.astype(np.float32), AFFINE), folder.path / "a.nii.gz")
    integers = nibabel.Nifti1Image(array.astype(np.int16), AFFINE)
    flipped = integers.as_reoriented(nibabel.io_orientation(np.diag([-1, 1, 1, 1])))
    nibabel.save(flipped, folder.path / "b.nii.gz")
    entries = [
        {"image": "a.nii.gz", "label": folder.label("s", (1, 2)), "fold": 0},
        {"image": "b.nii.gz", "label": "s.nii.gz", "fold": 1},
    ]
    data = folder.data(entries)

    found = [(one.text, one.severity) for fold in (0, None) for one in validate([data], MODEL, fold)]
    text = "The same image is in several folds: 'a', 'b'."
    assert found == [(text, ERROR), (text, WARNING)]
    section = folder.data(entries[:1], validation=[{**entries[1], "name": "v"}])
    assert "learned from and validated with: 'a', 'v'" in str(validate([section], MODEL)[0])
    one, two = folder.data(entries[:1], name="one"), folder.data(entries[1:], name="two")
    assert has_errors(validate([one, two], MODEL, 0))
    assert has_errors(validate([one], MODEL, 0, old=[two]))


def test_the_folds_of_several_lists_are_judged_together(folder):
    entries = [{"image": folder.image(str(n), n), "label": folder.label(f"s{n}", (1, 2)), "fold": n} for n in range(2)]
    first = folder.data(entries)
    second = folder.data([{"image": folder.image("more", 5), "label": folder.label("t", (1, 2))}], name="without folds")
    assert validate([first, second], MODEL, 1) == []
    assert validate([first], MODEL, 1, old=[second]) == []


def test_labels_that_show_nothing_of_what_they_mean_are_an_error(folder):
    data = folder.data([{"image": folder.image("a"), "label": folder.label("s", ())}])
    assert [one.severity for one in validate([data], MODEL)] == [WARNING, ERROR]


def test_a_fraction_in_a_label_is_refused_when_it_is_read_too(folder):
    entry = {"image": folder.image("a"), "label": folder.label("s", (1, 1.4), dtype=np.float32)}
    with pytest.raises(InputError, match=r"18 of its voxels do not, such as 1\.4; if it was resampled, use nearest"):
        load_case(case_of(folder.data([entry]).training[0]), MODEL, 16)
    rounded = folder.label("r", (1, 2.0004), dtype=np.float32)
    loaded = load_case(case_of(folder.data([{**entry, "label": rounded}]).training[0]), MODEL, 16)
    assert set(np.unique(loaded.label)) == {0, 1, 3, IGNORE}


def test_a_list_without_a_training_case(folder):
    data = folder.data([], ({"image": folder.image("c"), "label": folder.label("s")},))
    assert [problem.severity for problem in validate([data], MODEL)] == [ERROR]
    with pytest.raises(InputError, match="no training case"):
        split_cases([data])


def test_all_cases_in_the_held_out_fold(folder):
    data = folder.data([{"image": folder.image("a"), "label": folder.label("s"), "fold": 2}])
    assert "no training case outside fold 2" in str(validate([data], MODEL, fold=2)[0])
    with pytest.raises(InputError, match="outside fold 2"):
        split_cases([data], 2)


def test_a_class_that_the_label_set_lacks(folder):
    data = folder.data([{"image": folder.image("a"), "label": folder.label("s")}], labels={"1": "my mass"})
    assert [problem.severity for problem in validate([data], MODEL)] == [WARNING]
    assert case_of(data.training[0]).classes == {1: ()}


def test_planning_volumes_are_nothing_to_learn(folder):
    entries = [{"image": folder.image("a"), "label": folder.label("s", (1, 2)), "labels": {"1": "PTV70", "2": "GTV"}}]
    data = folder.data(entries)
    assert case_of(data.training[0]).classes == {2: ()}
    assert not has_errors(validate([data], MODEL))


def test_folds_split_cases_and_groups_become_their_members(folder):
    entries = [
        {"image": folder.image(str(n), n), "label": folder.label(f"s{n}"), "fold": n % 3, "supervoxel": "sv.nii.gz"}
        for n in range(6)
    ]
    data = folder.data(entries, labels={"1": "kidney"})
    learned, held_out = split_cases([data, data], fold=1)
    assert [case.fold for case in held_out] == [1] * 4
    assert len(learned) == 8
    assert learned[0].dataset == "mine"
    assert learned[0].supervoxel == folder.path / "sv.nii.gz"
    assert learned[0].classes == {1: (14, 5)}


def test_a_fold_that_does_not_exist_is_refused(folder):
    entries = [{"image": f"{n}.nii.gz", "label": f"{n}_seg.nii.gz", "fold": n} for n in range(2)]
    entries.append({"image": "bare.nii.gz", "supervoxel": "sv.nii.gz", "fold": 2})
    with pytest.raises(InputError, match=r"Fold 9 has no labeled case .* the folds of the data are: 0, 1, 2\."):
        split_cases([folder.data(entries)], 9)
    with pytest.raises(InputError, match="Fold 2 has no labeled case"):
        split_cases([folder.data(entries)], 2)
    without = [{key: value for key, value in one.items() if key != "fold"} for one in entries]
    with pytest.raises(InputError, match="no entry of the data has a 'fold'"):
        split_cases([folder.data(without)], 0)


def test_a_validation_section_validates_where_no_fold_is_chosen(folder):
    entries = [{"image": f"{n}.nii.gz", "label": f"{n}_seg.nii.gz", "fold": n} for n in range(2)]
    section = [{"image": "v.nii.gz", "label": "v_seg.nii.gz"}, {"image": "bare.nii.gz"}]
    data = folder.data(entries, validation=section)

    learned, held_out = split_cases([data])
    assert ([case.name for case in learned], [case.name for case in held_out]) == (["0", "1"], ["v"])
    assert held_out[0].classes == {1: (1,), 2: (3,)}
    learned, held_out = split_cases([data], 1)
    assert ([case.name for case in learned], [case.name for case in held_out]) == (["0"], ["1"])


def test_the_folder_of_real_cts_is_in_order(ct_data):
    problems = validate([read_data_list(ct_data)], MODEL)
    assert not has_errors(problems), problems


def test_a_label_map_without_an_image_is_checked_by_itself(tmp_path):
    array = np.eye(12, dtype=np.uint8).reshape(12, 12, 1).repeat(4, 2)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "map.nii.gz")
    entries = [{"name": "map", "label": "map.nii.gz"}, {"name": "gone", "label": "gone.nii.gz"}]
    (tmp_path / "list.json").write_text(json.dumps({"labels": {"1": 1}, "training": entries}))
    problems = validate([read_data_list(tmp_path / "list.json")], ModelConfig())
    assert [problem.case for problem in problems if problem.severity == ERROR] == ["gone"]
