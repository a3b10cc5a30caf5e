"""`vista3d evaluate clicks` from end to end: a tiny network of random weights, and the bundled model on a real CT."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume


@pytest.fixture(scope="module")
def labels_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the labels of the phantom that ``ct_file`` holds; values are catalogue indices."""
    volume, labels = paint_phantom((40, 32, 36))
    path = tmp_path_factory.mktemp("reference") / "labels.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), volume.affine), path)
    return path


@pytest.fixture
def clicks(vista3d: Callable, ct_file: Path, labels_file: Path, tiny_model: Path) -> Callable:
    """Run ``evaluate clicks`` on the phantom."""

    def run(*more: object, image: Path = ct_file, reference: Path = labels_file) -> object:
        return vista3d("evaluate", "clicks", "-i", image, "-r", reference, "-m", tiny_model, "-d", "cpu", *more)

    return run


@pytest.fixture
def refuses(clicks: Callable, tmp_path: Path) -> Callable:
    """Check that a run ends with one sentence and without any output."""

    def run(exit_code: int, *words: str, more: tuple = (), **options: Path) -> None:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        result = clicks("-o", out / "a.csv", "--plot", out / "a.png", "-q", *more, **options)
        assert result.exit_code == exit_code, result.stderr
        last = result.stderr.strip().splitlines()[-1]
        for word in words:
            assert word.lower() in last.lower()
        assert "Traceback" not in result.stderr
        assert (result.stdout, list(out.iterdir())) == ("", [])

    return run


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_table_csv_and_picture(clicks: Callable, tmp_path: Path) -> None:
    result = clicks(
        "-o", tmp_path / "a.csv", "--plot", tmp_path / "a.png", "-c", "liver,spleen", "-n", 2,
        "-s", "automatic", "-s", "nothing",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "mean of 2" in result.stdout
    assert "honest clicks from nothing" in result.stdout
    assert f"Wrote {tmp_path / 'a.csv'}" in result.stderr
    rows = _rows(tmp_path / "a.csv")
    assert {(row["structure"], row["start"]) for row in rows} == {
        (name, start) for name in ("liver", "spleen") for start in ("automatic", "nothing")
    }
    assert len(rows) == 2 * 2 * 3
    assert all(0.0 <= float(row["dice"]) <= 1.0 for row in rows)
    assert all(float(row["dice"]) == 0.0 for row in rows if row["start"] == "nothing" and row["clicks"] == "0")
    assert imread(tmp_path / "a.png").shape[0] > 500
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["a.csv", "a.png"]


def test_only_what_is_claimed_and_what_one_structure_lost(
    vista3d: Callable, ct_file: Path, labels_file: Path, claiming_model: Path, tmp_path: Path
) -> None:
    command = ("evaluate", "clicks", "-i", ct_file, "-r", labels_file, "-m", claiming_model, "-d", "cpu", "-n", 3)
    more = ("-o", tmp_path / "a.csv", "--claimed")
    summary = json.loads(vista3d(*command, *more, "--json", "-q").stdout)
    everything = json.loads(vista3d(*command, "-o", tmp_path / "b.csv", "--json", "-q").stdout)
    offered = {one["name"] for one in json.loads(vista3d("classes", "-m", claiming_model, "--json").stdout)}
    measured = {curve["structure"] for curve in summary["curves"]}
    assert measured < {curve["structure"] for curve in everything["curves"]}
    assert measured <= offered
    (found,) = summary["summaries"]
    for clicks in range(4):
        losses = {curve["structure"]: curve["dice"][0] - curve["dice"][clicks] for curve in summary["curves"]}
        assert found["losses"][clicks] == pytest.approx(max(0.0, *losses.values()))
        assert found["losers"][clicks] in ("", *losses)
    said = vista3d(*command, *more, "-q", "-c", sorted(measured)[0]).exit_code, vista3d(*command, *more).stdout
    assert said[0] == 0
    assert "Mean Dice after 0, 1, 3 clicks: " in said[1]
    assert "Largest loss of one structure: " in said[1]


def test_every_protocol_for_programs(clicks: Callable, tmp_path: Path) -> None:
    protocols = ("honest", "oracle_best_so_far", "oracle_trials")
    more = [word for name in protocols for word in ("-p", name)]
    result = clicks("-o", tmp_path / "a.csv", "-c", "left kidney", "-n", 3, "--json", *more)
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert [one["protocol"] for one in summary["curves"]] == list(protocols)
    assert all(len(one["dice"]) == 4 for one in summary["curves"])
    assert summary["summaries"][0]["count"] == 1
    best, trials = (one["dice"] for one in summary["curves"][1:])
    assert best[1:] == sorted(best[1:])
    assert trials == sorted(trials)


def test_new_objects_by_the_names_of_the_reference(clicks: Callable, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text('{"1": "my lesion", "3": "spleen"}')
    result = clicks(
        "-o", tmp_path / "a.csv", "--labels-json", tmp_path / "names.json", "-c", "my lesion", "-n", 1, "--zero-shot"
    )
    assert result.exit_code == 0, result.stderr
    rows = _rows(tmp_path / "a.csv")
    assert {(row["structure"], row["start"], row["zero_shot"]) for row in rows} == {("my lesion", "nothing", "1")}
    assert "class unknown" in result.stdout


def test_a_folder_of_cases(
    vista3d: Callable, ct_file: Path, labels_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    entry = {"id": "one", "split": "test", "image": str(ct_file), "label": str(labels_file), "vista3d_ids": {"1": [1]}}
    other = {**entry, "id": "two", "vista3d_ids": {"3": [3]}}
    (tmp_path / "index.json").write_text(json.dumps([entry, other]))
    command = ("evaluate", "clicks", "--data", tmp_path, "-m", tiny_model, "-n", 1, "-o", tmp_path / "a.csv")
    result = vista3d(*command)
    assert result.exit_code == 0, result.stderr
    assert {(row["case"], row["structure"]) for row in _rows(tmp_path / "a.csv")} == {
        ("one", "liver"),
        ("two", "spleen"),
    }
    refused = vista3d(*command, "-c", "lung tumor")
    assert refused.exit_code == 3
    assert "None of the 2 cases" in refused.stderr


def test_bad_requests(refuses: Callable, ct_file: Path, tmp_path: Path) -> None:
    refuses(3, "does not hold 'lung tumor'", "liver", more=("-c", "lung tumor"))
    refuses(2, "livr", "did you mean", more=("-c", "livr"))
    refuses(3, "zero-shot", "nothing", more=("--zero-shot", "-s", "automatic"))
    refuses(3, "oracle_trials", "automatic", more=("-p", "oracle_trials", "-s", "nothing"))
    refuses(3, "--image", "--data", more=("--data", tmp_path))
    refuses(3, "does not exist", reference=tmp_path / "nowhere.nii.gz")
    refuses(3, "another geometry", reference=_moved(ct_file, tmp_path))


def _moved(path: Path, folder: Path) -> Path:
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[2, 3] += 5.0
    nibabel.save(nibabel.Nifti1Image(np.ones(image.shape, np.uint8), affine), folder / "moved.nii.gz")
    return folder / "moved.nii.gz"


def test_outputs_are_checked_first(clicks: Callable, vista3d: Callable, tmp_path: Path) -> None:
    for output, word in ((tmp_path / "a.txt", ".csv"), (tmp_path / "missing" / "a.csv", "does not exist")):
        result = clicks("-o", output)
        assert result.exit_code == 6
        assert word in result.stderr
    assert "--data" in vista3d("evaluate", "clicks", "-o", tmp_path / "a.csv").stderr


def test_bundled_model_on_a_real_ct(vista3d: Callable, ct_data: Path, tmp_path: Path) -> None:
    ct, labels = _crop_around(ct_data / "ts_example_ct", "left kidney", tmp_path)
    result = vista3d(
        "evaluate", "clicks", "-i", ct, "-r", labels, "-c", "left kidney", "-m", "mini", "-n", 2,
        "-s", "automatic", "-s", "nothing", "--preset", "bundle", "-o", tmp_path / "a.csv", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    automatic, nothing = json.loads(result.stdout)["curves"]
    assert automatic["start"] == "automatic"
    assert nothing["dice"][0] == 0.0
    assert all(len(curve["dice"]) == 3 for curve in (automatic, nothing))
    assert nothing["clicks"][0]["positive"]


def _crop_around(case: Path, name: str, folder: Path, margin: int = 20) -> tuple[Path, Path]:
    """Write a real CT and its labels, cut to the surroundings of one structure."""
    from VISTA3DCore.anatomy.catalogue import catalogue

    ct, labels = Volume.read(case / "ct.nii.gz"), Volume.read(case / "label_vista3d.nii.gz")
    voxels = np.argwhere(labels.array == catalogue()[name].index)
    low = np.maximum(voxels.min(axis=0) - margin, 0)
    box = tuple(slice(a, b) for a, b in zip(low, voxels.max(axis=0) + margin + 1, strict=True))
    affine = ct.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    for file, array in (("ct.nii.gz", ct.array), ("labels.nii.gz", labels.array)):
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array[box]).astype(np.int16), affine), folder / file)
    return folder / "ct.nii.gz", folder / "labels.nii.gz"


@pytest.fixture
def data_list(ct_file: Path, labels_file: Path, tmp_path: Path) -> Path:
    """Return a list of two cases of the phantom, one of which is broken."""
    whole = {"name": "whole", "image": str(ct_file), "label": str(labels_file)}
    broken = {"name": "broken", "image": str(ct_file), "label": "nowhere.nii.gz"}
    path = tmp_path / "list.json"
    content = {"name": "phantom", "labels": {"1": 1, "3": 3, "5": 5}, "testing": [whole, broken], "training": [whole]}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def lists(vista3d: Callable, data_list: Path, tiny_model: Path) -> Callable:
    """Run ``evaluate`` on the list."""
    return lambda *more: vista3d("evaluate", "--data", data_list, "-m", tiny_model, "-d", "cpu", *more)


def test_a_list_is_measured_reported_and_resumed(lists: Callable, tmp_path: Path) -> None:
    report = tmp_path / "report"
    result = lists("-p", "auto", "-p", "zero-shot", "-n", 2, "-o", report)
    assert result.exit_code == 0, result.stderr
    assert "zero-shot" in result.stdout
    assert "Not measured: broken of phantom" in result.stderr
    names = {path.name for path in report.iterdir()}
    assert names == {"cases", "results.csv", "curves.csv", "report.md", "report.png", "curves.png"}
    rows = _rows(report / "results.csv")
    assert {(row["case"], row["protocol"]) for row in rows} == {("whole", "auto"), ("whole", "zero-shot")}
    assert "**broken** of phantom (auto, zero-shot)" in (report / "report.md").read_text()
    again = lists("-p", "auto", "-p", "zero-shot", "-n", 2, "-o", report, "--json")
    told = json.loads(again.stdout)
    assert (told["resumed"], len(told["rows"]), len(told["failures"])) == (1, len(rows), 2)


def test_two_reports_are_compared(lists: Callable, vista3d: Callable, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    assert lists("-o", before, "-q", "--preset", "bundle").exit_code == 0
    assert lists("-o", after, "-q", "--restoration", "nearest").exit_code == 0
    result = vista3d("evaluate", "compare", before, after, "-o", tmp_path / "c.md")
    assert result.exit_code == 0, result.stderr
    assert "undecided" in result.stdout
    assert "too narrow" in result.stderr
    assert "# " in (tmp_path / "c.md").read_text()
    told = json.loads(vista3d("evaluate", "compare", before, after, "--json").stdout)
    assert {one["metric"] for one in told} >= {"Dice", "Surface Dice", "Volume error"}
    refused = vista3d("evaluate", "compare", before, tmp_path)
    assert (refused.exit_code, "cannot be read" in refused.stderr) == (3, True)


def test_the_papers_table(
    vista3d: Callable, tiny_model: Path, ct_file: Path, labels_file: Path, tmp_path: Path
) -> None:
    template = tmp_path / "table.json"
    assert vista3d("evaluate", "paper", template, "--template").exit_code == 0
    filled = json.loads(template.read_text())
    assert len(filled) == 14
    assert vista3d("evaluate", "paper", template, "--template").exit_code == 6
    (tmp_path / "spleens.json").write_text(
        json.dumps({"testing": [{"image": ct_file.name, "label": str(labels_file)}]})
    )
    labels = {"3": 3}
    filled["MSD09 spleen"] = {"list": "spleens.json", "root": str(ct_file.parent), "labels": labels}
    template.write_text(json.dumps(filled))
    report = tmp_path / "report"
    result = vista3d("evaluate", "paper", template, "-m", tiny_model, "-d", "cpu", "-o", report)
    assert result.exit_code == 0, result.stderr
    rows = _rows(report / "results.csv")
    assert {(row["structure"], row["protocol"], row["variant"]) for row in rows} == {
        ("spleen", protocol, "paper") for protocol in ("auto", "point", "auto+point")
    }
    table = (report / "table1.md").read_text()
    assert "| MSD09 spleen | 0.965 | 0.967 | 0.966 | 0.952 | 0.938 | 0.954 |" in table
    assert "Average of the 1 measured" in table


def test_bad_lists(lists: Callable, vista3d: Callable, data_list: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for more, code, word in (
        (("-o", out, "--section", "magic"), 3, "no section 'magic'"),
        (("-o", out, "-c", "livr"), 2, "did you mean"),
        (("-o", out, "--fold", 4), 3, "no labeled case in fold 4"),
        (("-o", out, "--data", data_list), 3, "same name"),
        (("-o", data_list), 6, "is a file"),
        ((), 3, "--output"),
    ):
        result = lists("-q", *more)
        assert result.exit_code == code, result.stderr
        assert word in result.stderr.strip().splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert "--data" in vista3d("evaluate", "-o", out).stderr
    assert vista3d("evaluate", "--data", tmp_path / "nowhere.json", "-o", out).exit_code == 3


def test_the_bundled_model_on_a_real_list(vista3d: Callable, ct_data: Path, tmp_path: Path) -> None:
    result = vista3d(
        "evaluate", "--data", ct_data, "--section", "demo", "-c", "liver,aorta", "-m", "mini", "--preset", "bundle",
        "-o", tmp_path / "report", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    rows = {row["structure"]: row for row in json.loads(result.stdout)["rows"]}
    assert rows["liver"]["dice"] > 0.3
    assert rows["liver"]["reference_ml"] == pytest.approx(1125.7, abs=0.1)
    assert rows["aorta"]["outcome"] == "both"
