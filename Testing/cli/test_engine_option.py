"""`--engine worker`: the same files, sentences and exit codes from an engine process."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.slow

ENGINES = ("in-process", "worker")


@pytest.fixture
def both(vista3d: Callable, tmp_path: Path) -> Callable:
    """Run a command with each engine; return exit code, the summary without times, sentences and the written bytes."""

    def run(*arguments: object) -> list[tuple]:
        results = []
        for engine in ENGINES:
            output = tmp_path / engine / "result.seg.nrrd"
            output.parent.mkdir(exist_ok=True)
            result = vista3d(*arguments, "--output", output, "--engine", engine, "--json")
            summary = json.loads(result.stdout) if result.stdout else {}
            for varying in ("files", "seconds"):
                summary.pop(varying, None)
            content = output.read_bytes() if output.exists() else None
            said = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]  # how far it is
            results.append((result.exit_code, summary, said, content))
            assert [file.name for file in output.parent.iterdir()] == ["result.seg.nrrd"] * (content is not None)
        return results

    return run


def test_segment_writes_the_same_bytes(both, ct_file, tiny_model):
    local, remote = both("segment", ct_file, "--model", tiny_model)
    assert local[0] == 0
    assert local[3] is not None
    assert remote == local


def test_the_patients_grid_is_an_option_and_the_result_says_so(both, ct_file, tiny_model):
    local, remote = both("segment", ct_file, "--model", tiny_model, "--grid", "patient")
    assert local[1]["provenance"]["grid"] == "patient"
    assert remote == local


def test_click_on_a_group_writes_the_same_bytes(both, ct_file, tiny_model):
    place = "--positive", "20,16,18", "--voxel"
    local, remote = both("click", ct_file, "--model", tiny_model, "--class", "kidney", *place)
    assert local[0] == 0
    assert local[1]["provenance"]["model"] == "tiny.safetensors"
    assert remote == local


def test_errors_of_the_engine_are_the_same_sentences(both, ct_file, tiny_model):
    local, remote = both("click", ct_file, "--model", tiny_model, "--class", "liver", "--positive", "9000,0,0")
    assert local[0] == 3
    assert "lies outside the volume, which covers R " in local[2][-1]
    assert remote == local


def test_a_python_that_is_not_there_is_a_sentence(vista3d, ct_file, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("VISTA3D_WORKER_PYTHON", str(tmp_path / "python"))
    result = vista3d("segment", ct_file, "-o", tmp_path / "a.nii.gz", "-m", tiny_model, "--engine", "worker")
    assert result.exit_code == 1
    assert "The engine process cannot be started with" in result.stderr
    assert list(tmp_path.glob("a.*")) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
def test_ctrl_c_stops_the_engine_process_too(vista3d_process, tiny_model, tmp_path):
    noise = np.random.default_rng(0).normal(0, 200, (128, 128, 128)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.diag([24.0, 24.0, 24.0, 1.0])), tmp_path / "slow.nii.gz")
    output = tmp_path / "a.seg.nrrd"
    process = vista3d_process("segment", tmp_path / "slow.nii.gz", "-o", output, "-m", tiny_model, "--engine", "worker")
    while "Running on" not in process.stderr.readline():
        assert process.poll() is None
    (engine,) = psutil.Process(process.pid).children()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Canceled" in process.stderr.read()
    assert not engine.is_running()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["slow.nii.gz"]
