"""An evaluation of many cases: resumed where it was, never stopped by a broken case, reported in files that open."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from evaluation_cases import AFFINE
from matplotlib.image import imread

from VISTA3DCore.errors import Cancelled, InputError, OutputError, UnknownStructureError
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.evaluation.evaluator import Evaluation, evaluate, joined, tasks_of
from VISTA3DCore.evaluation.report import write_report
from VISTA3DCore.evaluation.results import read_results
from VISTA3DCore.evaluation.settings import Settings
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.progress import Progress, ProgressUpdate

AUTO = Settings(preset="bundle")


@pytest.fixture
def run(tiny_segmenter: Segmenter, tmp_path: Path) -> Callable[..., Evaluation]:
    """Evaluate a list into one report folder."""

    def start(path: Path, settings: Settings = AUTO, progress: Progress | None = None) -> Evaluation:
        tasks = tasks_of(read_data_list(path), "testing")
        return evaluate(tiny_segmenter, tasks, settings, tmp_path / "report", progress)

    return start


def test_every_structure_of_every_case(run: Callable, write_list: Callable) -> None:
    found = run(write_list())
    assert (found.cases, found.resumed, found.failures) == (2, 0, ())
    names = [(row.case, row.structure) for row in found.rows]
    # The list labels a left kidney (7: 14) that no case shows.
    assert names == [
        (case, name) for case in ("case 0", "case 1") for name in ("liver", "spleen", "right kidney", "left kidney")
    ]
    for row in found.rows:
        assert (row.dice is None) == (row.structure == "left kidney") == (row.outcome in ("invented", "absent"))
        assert (row.dataset, row.protocol, row.variant, row.clicks) == ("phantoms", "auto", "honest", 0)


def test_what_was_measured_is_not_measured_again(run: Callable, write_list: Callable, tmp_path: Path) -> None:
    path = write_list()
    first = run(path)
    files = sorted((tmp_path / "report" / "cases").iterdir())
    stamps = [file.stat().st_mtime_ns for file in files]
    again = run(path)
    assert (again.rows, again.resumed) == (first.rows, 2)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    files[0].write_text("{")  # as after a crash of the disk
    assert run(path).resumed == 1
    assert run(path, Settings(preset="bundle", clicks=9, seed=3)).resumed == 2  # auto does not look at these
    assert run(path, Settings(preset="paper")).resumed == 0
    label = path.parent / "label0.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.flip(nibabel.load(label).get_fdata(), 0).astype(np.uint8), AFFINE), label)
    changed = run(path, Settings(preset="paper"))
    assert changed.resumed == 1
    assert changed.rows[0] != first.rows[0]


def test_curves_of_clicks_are_stored_with_their_clicks(run: Callable, write_list: Callable) -> None:
    settings = Settings(("clicks", "clicks-from-nothing"), ("honest", "oracle_best_so_far"), ("liver",), clicks=2)
    path = write_list(count=1)
    first, again = run(path, settings), run(path, settings)
    assert (again.rows, again.resumed) == (first.rows, 1)
    assert [(row.start, row.simulation) for row in first.rows] == [
        (start, variant) for start in ("automatic", "nothing") for variant in ("honest", "oracle_best_so_far")
    ]
    for row in first.rows:
        assert len(row.curve) == 3
        assert len(row.placed) == len(row.click_seconds) == row.clicks > 0


def test_an_interrupted_evaluation_goes_on(run: Callable, write_list: Callable) -> None:
    path, progress = write_list(count=3), Progress()

    def stop_at_the_second(update: ProgressUpdate) -> None:
        if update.stage == "Reading" and update.message == "case 1":
            progress.cancel()

    progress._on_update = stop_at_the_second
    with pytest.raises(Cancelled):
        run(path, progress=progress)
    found = run(path)
    assert (found.resumed, found.cases) == (1, 3)
    assert len({row.case for row in found.rows}) == 3


def test_broken_cases_stop_nothing(run: Callable, write_list: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "phantoms"
    broken = [
        {"name": "gone", "image": "nowhere.nii.gz", "label": "label0.nii.gz"},
        {"name": "moved", "image": "ct0.nii.gz", "label": "moved.nii.gz"},
        {"name": "damaged", "image": "damaged.nii.gz", "label": "label0.nii.gz"},
        {"name": "whole", "image": "ct0.nii.gz", "label": "label0.nii.gz"},
    ]
    path = write_list(count=1, testing=broken)
    (folder / "damaged.nii.gz").write_bytes(b"no image")
    other = AFFINE.copy()
    other[2, 3] += 40
    nibabel.save(nibabel.Nifti1Image(np.ones((44, 40, 30), np.uint8), other), folder / "moved.nii.gz")
    found = run(path)
    assert {row.case for row in found.rows} == {"whole"}
    assert [one.case for one in found.failures] == ["gone", "moved", "damaged"]
    assert "another geometry" in found.failures[1].reason
    assert all(one.reason.endswith(".") and "\n" not in one.reason for one in found.failures)


def test_nothing_to_measure_is_one_sentence(run: Callable, write_list: Callable, tmp_path: Path) -> None:
    path = write_list()
    with pytest.raises(InputError, match="None of the 2 cases holds a structure"):
        run(path, Settings(classes=("lung tumor",)))
    with pytest.raises(UnknownStructureError, match="did you mean 'liver'"):
        run(path, Settings(classes=("livr",)))
    for file in path.parent.glob("ct*"):
        file.unlink()
    with pytest.raises(InputError, match="None of the 2 cases could be measured; the first one, 'case 0'"):
        run(path)
    with pytest.raises(InputError, match="no labeled case in fold 3"):
        tasks_of(read_data_list(path), "testing", 3)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be created"):
        evaluate(None, [], AUTO, tmp_path / "file")


def test_names_of_the_reference_serve_zero_shot(run: Callable, write_list: Callable) -> None:
    path = write_list(count=1, labels={"1": "my lesion", "3": 3})
    found = run(path, Settings(protocols=("zero-shot",), classes=("my lesion",), clicks=2))
    (row,) = found.rows
    assert (row.structure, row.index, len(row.curve)) == ("my lesion", None, 3)


def test_the_report_opens_again(run: Callable, write_list: Callable, tmp_path: Path) -> None:
    settings = Settings(protocols=("auto", "auto+point", "zero-shot"), preset="bundle", clicks=2)
    found = joined([run(write_list("first", 2), settings), run(write_list("second", 1), settings)])
    files = write_report(tmp_path / "report", "tiny on phantoms", {"Model": "tiny"}, found)
    names = {file.name for file in files}
    assert names == {"results.csv", "curves.csv", "report.md", "report.png", "curves.png"}
    again = read_results(tmp_path / "report")
    assert [row.key for row in again] == [row.key for row in found.rows]
    for row, read in zip(found.rows, again, strict=True):
        assert read.dice == (None if row.dice is None else pytest.approx(row.dice, rel=1e-5))
        assert (read.index, read.outcome, read.clicks) == (row.index, row.outcome, row.clicks)
    text = (tmp_path / "report" / "report.md").read_text()
    for part in (
        "# tiny on phantoms",
        "## first",
        "## second",
        "### auto+point",
        "Mean Dice after 0, 1, 2",
        "![report.png]",
    ):
        assert part in text
    assert all(imread(tmp_path / "report" / name).shape[0] > 300 for name in ("report.png", "curves.png"))
    curves = list(csv.DictReader((tmp_path / "report" / "curves.csv").open()))
    assert {line["protocol"] for line in curves} == {"auto+point", "zero-shot"}


def test_what_is_no_report_is_one_sentence(tmp_path: Path) -> None:
    for content, word in ((None, "cannot be read"), ("a,b\n1,2\n", "no table of results"), ("", "holds no results")):
        if content is not None:
            (tmp_path / "results.csv").write_text(content)
        with pytest.raises(InputError, match=word):
            read_results(tmp_path)


def test_kept_numbers_are_json_without_surprises(run: Callable, write_list: Callable, tmp_path: Path) -> None:
    run(write_list(count=1))
    (file,) = (tmp_path / "report" / "cases").iterdir()
    kept = json.loads(file.read_text())
    assert set(kept) == {"key", "rows"}
    assert file.name.startswith("phantoms_case_0.")
    assert file.name.endswith(".auto.honest.json")
