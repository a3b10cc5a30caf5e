"""The command line offers what a model claims, refuses the rest, and measures everything."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

REFUSAL = (
    "The model 'tiny' cannot segment 'spleen' (Dice 0.41 in validation) well enough; nearest to it, it offers "
    "liver and right kidney. Use the full model: `vista3d models download vista3d-ct`."
)


def test_classes_shows_figures_and_how_many_need_the_full_model(vista3d: Callable, claiming_model: Path) -> None:
    result = vista3d("classes", "--model", claiming_model)
    assert re.search(r"1 +liver +organs +0\.91 \(24\) ", result.stdout)
    assert re.search(r"5 +right kidney +organs +0\.62 \(20 painted\) ", result.stdout)
    assert "spleen" not in result.stdout
    assert "122 more need the full model: vista3d models download vista3d-ct" in result.stderr
    result = vista3d("classes", "--model", claiming_model, "--search", "spleen")
    assert result.stderr.splitlines() == ["1 more needs the full model: vista3d models download vista3d-ct"]


def test_classes_for_programs(vista3d: Callable, claiming_model: Path, tiny_model: Path) -> None:
    entries = json.loads(vista3d("classes", "--model", claiming_model, "--json").stdout)
    assert {entry["index"]: entry["validation"] for entry in entries} == {
        1: {"dice": 0.912, "cases": 24, "painted": False},
        5: {"dice": 0.62, "cases": 20, "painted": True},
    }
    entries = json.loads(vista3d("classes", "--model", tiny_model, "--json").stdout)
    assert [entry["validation"] for entry in entries] == [None] * 5


def test_an_unclaimed_structure_is_refused(
    vista3d: Callable, ct_file: Path, claiming_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.nii.gz"
    result = vista3d("segment", ct_file, "-o", out, "-m", claiming_model, "-c", "liver,spleen")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == REFUSAL
    assert not out.exists()


@pytest.mark.parametrize("engine", ["in-process", pytest.param("worker", marks=pytest.mark.slow)])
def test_a_group_takes_its_claimed_members_and_the_others_are_noted(
    vista3d: Callable, ct_file: Path, claiming_model: Path, tmp_path: Path, engine: str
) -> None:
    arguments = "-o", tmp_path / "out.seg.nrrd", "-m", claiming_model, "-c", "kidney", "--engine", engine, "--json"
    result = vista3d("segment", ct_file, *arguments)
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert [row["index"] for row in summary["structures"]] == [5]
    assert summary["notes"] == ["Left out of 'kidney': left kidney; it needs the full model."]


def test_an_unclaimed_structure_can_be_clicked(
    vista3d: Callable, ct_file: Path, claiming_model: Path, tmp_path: Path
) -> None:
    place = "--positive", "20,16,18", "--voxel"
    result = vista3d(
        "click", ct_file, "-o", tmp_path / "out.nii.gz", "-m", claiming_model, "-c", "spleen", *place, "--json"
    )
    assert result.exit_code == 0, result.stderr
    (note,) = json.loads(result.stdout)["notes"]
    assert note.startswith("Nothing was found")  # and not that it is a new object: it was trained


def test_evaluation_measures_what_is_not_claimed(
    vista3d: Callable, ct_file: Path, claiming_model: Path, tmp_path: Path
) -> None:
    image = nibabel.load(ct_file)
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[5:15, 5:15, 5:15], labels[20:30, 5:15, 5:15] = 1, 3
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), tmp_path / "label.nii.gz")
    entry = {"name": "case", "image": str(ct_file), "label": "label.nii.gz"}
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"name": "phantoms", "labels": {"1": 1, "3": 3}, "testing": [entry]}))
    arguments = "--data", data, "--protocol", "auto", "-m", claiming_model, "-o", tmp_path / "report", "--json"
    result = vista3d("evaluate", *arguments)
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert {row["structure"] for row in rows} == {"liver", "spleen"}
