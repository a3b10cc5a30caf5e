"""``vista3d train`` and ``vista3d finetune`` from the outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from training_phantoms import KIDNEY, LIVER, MODEL, SPLEEN, phantom
from typer.testing import CliRunner

from VISTA3DCore.cli.main import app
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.validation import ERROR

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--device", "cpu", "--set", "data.augmentation=paper")


@pytest.fixture
def data(tmp_path) -> Path:
    """Three phantoms in two folds, as files with a data list."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    entries = []
    for number in range(3):
        case = phantom(number)
        hu = (case.image[0] * 2017.5 - 963.8).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(hu, affine), tmp_path / f"ct{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(case.label[0], affine), tmp_path / f"label{number}.nii.gz")
        entries.append({"image": f"ct{number}.nii.gz", "label": f"label{number}.nii.gz", "fold": number // 2})
    labels = {"1": LIVER, "3": "spleen", "5": "right kidney"}
    content = {"name": "phantoms", "labels": labels, "complete": True, "training": entries}
    (tmp_path / "list.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "list.json"


@pytest.fixture
def start(tmp_path) -> Path:
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, replace(MODEL, classes=(LIVER, SPLEEN)), build_network(MODEL).state_dict())
    return path


def _vista3d(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout, result.stderr


def _train(stage: str, data: Path, *more: object) -> tuple[int, str, str]:
    return _vista3d("train", stage, "--data", data, "--cache", data.parent / "cache", *QUICK, *more)


def test_a_stage_is_trained_from_a_list_and_gone_on_with(data, start, tmp_path):
    run = ("--run", tmp_path / "run", "--start", start, "--fold", 1, "--set", "validation.patches=1")

    code, _, told = _train("automatic", data, *run, "--set", "steps=3")
    assert code == 0, told
    assert "automatic: 2 cases, 3 classes, 3 steps, validation with 1 case, on cpu" in told
    assert "Stopped at step 3: the schedule is complete" in told
    assert "Best mean Dice on the held-out patches" in told
    assert load_checkpoint(tmp_path / "run" / "model.safetensors")[0].classes == (LIVER, SPLEEN, KIDNEY)

    code, _, told = _train("automatic", data, *run, "--set", "steps=3")
    assert code == 0
    assert "resumes after step 3" in told
    code, _, told = _train("automatic", data, *run, "--set", "steps=4")
    assert code == 3
    assert "holds another run (recipe.steps is 3 there and 4 here)" in " ".join(told.split())


def test_check_says_everything_that_is_wrong(data):
    code, _, told = _train("interactive", data, "--check")
    assert (code, "3 training cases checked: nothing stands in the way." in told) == (0, True)

    (data.parent / "ct1.nii.gz").unlink()
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), data.parent / "label2.nii.gz")
    code, _, told = _train("interactive", data, "--check")
    assert code == 3
    assert told.count(f"{ERROR}: ") >= 2
    assert "The image of 'ct1' is missing" in told
    assert "training would fail or learn nonsense" in told


def test_training_stops_at_errors_of_the_data_before_it_begins(data, start, tmp_path):
    mask = nibabel.load(data.parent / "label1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.asarray(mask.dataobj) * 0.5, mask.affine), data.parent / "label1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full((16,) * 3, 255, np.uint8), mask.affine), data.parent / "label2.nii.gz")
    run = ("--run", tmp_path / "run", "--start", start, "--set", "steps=1")

    code, _, told = _train("automatic", data, *run)
    assert code == 3
    assert "error: The label of 'ct1' must hold whole numbers" in " ".join(told.split())
    assert "error: No voxel of the label of 'ct2' belongs to a structure: it holds 255" in " ".join(told.split())
    assert "2 errors in the data" in told
    assert not (tmp_path / "run").exists()

    content = json.loads(data.read_text(encoding="utf-8"))
    content["training"] = [content["training"][0], content["training"][2]]
    data.write_text(json.dumps(content), encoding="utf-8")
    code, _, told = _train("automatic", data, *run, "--no-check")
    assert (code, "error:" in told) == (0, False), told


def test_finetune_adds_a_class(data, start, tmp_path):
    changes = ("--steps", 2, "--set", "prompts.iterations=1", "--cache", tmp_path / "cache")

    code, _, told = _vista3d("finetune", start, "--data", data, "--run", tmp_path / "run", *QUICK, *changes)

    assert code == 0, told
    assert "finetune: 3 cases, 3 classes, 2 steps" in told
    assert load_checkpoint(tmp_path / "run" / "model.safetensors")[0].classes == (LIVER, SPLEEN, KIDNEY)


@pytest.mark.parametrize(
    ("more", "exit_code", "sentence"),
    [
        ([], 3, "Give the run a folder with --run DIR."),
        (["--run", "run", "--fold", "7", "--set", "batch=0"], 3, "at least 1"),
        (["--run", "run", "--start", "nothing.safetensors"], 4, "nothing.safetensors"),
        (["--run", "run", "--start", "mini", "--set", "model.width=8"], 4, "width is 16 instead of 8"),
        (["--run", "run", "--set", "precision=fp16", "--set", "model.width=8"], 5, "fp16 needs an NVIDIA GPU"),
    ],
)
def test_bad_input_is_one_sentence(data, more, exit_code, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, told = _train("automatic", data, *more)

    assert code == exit_code, told
    assert sentence in " ".join(told.split())
    assert "Traceback" not in told
    assert not out


def test_an_unknown_stage_names_the_known_ones(data):
    code, _, told = _train("fifth", data)

    assert code == 3
    assert "choose one of automatic, automatic-finetuning, finetune, interactive" in " ".join(told.split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_polite_request_to_end_saves_first(data, start, tmp_path):
    command = [sys.executable, "-m", "VISTA3DCore.cli", "train", "automatic", "--data", str(data), "--run"]
    command += [str(tmp_path / "run"), "--start", str(start), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--set", "steps=5000"], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("tensorboard/*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2.0)

    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)

    assert process.returncode == 130, told
    assert "the same command goes on from there" in " ".join(told.split())
    assert list((tmp_path / "run" / "checkpoints").glob("step-*.pt"))
