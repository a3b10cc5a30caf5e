"""The recipe of the small model: one command that survives being killed, and claims that follow from figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from VISTA3DCore.models.claims import Claim, read_claims
from VISTA3DCore.models.store import ModelStore

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "Resources" / "Models" / "recipes"
MODEL = "model={name: tiny, width: 8, click_width: 8, blocks_down: [1, 1, 1], window: [16, 16, 16], spacing: [8, 8, 8]}"
EXACT = ("saving.every=1", "precision=fp32")
TINY = {
    "cases": [
        {"from": "anatomies", "id": "a", "weight": 1.0, "fold": 0},
        {"from": "anatomies", "id": "b", "weight": 1.0, "fold": 1},
        {"from": "data", "id": "c", "weight": 1.0, "fold": 1, "unlabeled": True, "predict": True},
    ],
    "runs": [
        {"name": "coarse", "stage": "mini", "steps": 8, "fold": 0, "measured": True, "set": [MODEL, *EXACT]},
        {
            "name": "fine",
            "stage": "mini",
            "steps": 4,
            "predictions": True,
            "set": [MODEL.replace("8, 8, 8", "6, 6, 6"), *EXACT],
        },
    ],
    "validation": {"folds": [1], "runs": ["coarse"], "share": 0.5},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """Two label maps of a liver beside a spleen, without images, and a CT without labels."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "anatomies").mkdir()
    (folder / "data").mkdir()
    hu = np.random.default_rng(0).normal(40, 20, (30, 28, 26)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([6.0, 6.0, 6.0, 1.0])), folder / "data" / "c.nii.gz")
    (folder / "data" / "index.json").write_text(json.dumps([{"id": "c", "split": "unlabelled", "image": "c.nii.gz"}]))
    entries = []
    for number, name in enumerate("ab"):
        label = np.zeros((40, 32, 30), np.uint8)
        label[4 + number : 20, 6:26, 4:26], label[24:36, 8:20, 6:22] = 1, 2
        nibabel.save(nibabel.Nifti1Image(label, np.diag([6.0, 6.0, 6.0, 1.0])), folder / "anatomies" / f"{name}.nii.gz")
        entries.append(
            {
                "id": name,
                "split": "train",
                "label": f"{name}.nii.gz",
                "label_names": {"1": "liver", "2": "spleen"},
                "vista3d_ids": {"1": [1], "2": [3]},
                "label_protocol": "totalsegmentator",
            }
        )
    (folder / "anatomies" / "index.json").write_text(json.dumps(entries))
    (folder / "tiny.json").write_text(json.dumps(TINY))
    return folder


def command(shared: Path, run: Path) -> list[str]:
    options = ["--shared", shared, "--run", run, "--recipe", shared / "tiny.json", "--processes", "1"]
    return [sys.executable, str(RECIPES / "model.py"), *map(str, options)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def killed_during_training(shared: Path, run: Path) -> None:
    """Start the recipe and kill it, with all its processes, after the second state of the second run."""
    child = subprocess.Popen(command(shared, run), env=environment(), start_new_session=True)
    states = run / "fine" / "checkpoints"
    deadline = time.monotonic() + 300
    while not (states.is_dir() and any(states.glob("step-0000000[23].pt"))):
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a group of processes as POSIX does")
def test_killed_and_started_again_it_makes_the_same_file(shared, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(shared, whole), env=environment(), check=True)

    killed_during_training(shared, killed)
    assert not (killed / "vista3d-mini.safetensors").exists()
    subprocess.run(command(shared, killed), env=environment(), check=True)

    results = [(folder / "vista3d-mini.safetensors").read_bytes() for folder in (whole, killed)]
    assert results[0] == results[1]
    claims = read_claims(whole / "vista3d-mini.safetensors")
    assert {index: (claim.cases, claim.painted) for index, claim in claims.structures.items()} == {
        1: (2, True),
        3: (2, True),
    }
    learned = json.loads((whole / "predicted" / "predict.json").read_text())["training"]
    assert [one["name"] for one in learned if "pseudo_label" in one] == ["c"]
    assert "image of 'c' (predict)" in json.loads((whole / "fine" / "run.json").read_text())["files"]


def test_claims_are_means_over_real_patients_and_over_painted_ones_only_without_them(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    import validate

    figures = [
        {"case": "ct", "fold": 0, "painted": False, "dice": {"1": 0.9, "3": 0.4}},
        {"case": "other", "fold": 1, "painted": False, "dice": {"1": 0.7}},
        {"case": "map", "fold": 1, "painted": True, "dice": {"1": 0.1, "15": 0.8}},
    ]
    claims = validate.claims_of(figures)
    assert claims.structures == {1: Claim(0.8, 2, False), 3: Claim(0.4, 1, False), 15: Claim(0.8, 1, True)}
    assert claims.claimed == (1, 15)


def test_the_claims_of_the_bundled_model_follow_from_its_figures():
    """The very command that the card names."""
    figures = ROOT / "Resources" / "Models" / "vista3d-mini.figures.json"
    model = ModelStore().resolve("mini")
    done = subprocess.run(
        [sys.executable, str(RECIPES / "validate.py"), "check", str(model), str(figures)],
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cases = {case["id"] for case in json.loads((RECIPES / "mini.json").read_text())["cases"]}
    assert {figure["case"] for figure in json.loads(figures.read_text())} <= cases
