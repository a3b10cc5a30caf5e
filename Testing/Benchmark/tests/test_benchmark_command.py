"""Run the benchmark beside the reference with a tiny model, as its command does."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from beside_reference.command import app
from click.testing import Result
from typer.testing import CliRunner

BENCHMARK = Path(__file__).parents[1] / "beside_reference"

MEASURES = {
    ("window", "window"), ("first click", "window"), ("click 1", "window"), ("click 5", "window"),
    ("click 10", "window"), ("everything", "30@12"), ("one class", "30@12"), ("second class", "30@12"),
}  # fmt: skip


@pytest.mark.slow
class TestAWholeRun:
    @pytest.fixture(scope="class")
    def report(self, tmp_path_factory, tiny_model) -> Path:
        """Run all measures of all sides once, in the processes of a real run."""
        folder = tmp_path_factory.mktemp("benchmark") / "report"
        sides = "ours,reference,ours:cuda,nninteractive"
        options = ["--weights", tiny_model, "--sides", sides, "--size", "30@12", "--what", "all", "--threads", 1]
        options += ["--device", "cpu", "--repetitions", 2, "--warmups", 1]
        result = CliRunner().invoke(app, ["-o", str(folder), *map(str, options)])
        assert result.exit_code == 0, result.output
        return folder

    @pytest.fixture(scope="class")
    def found(self, report) -> dict:
        return json.loads((report / "benchmark.json").read_text(encoding="utf-8"))

    def test_both_sides_have_every_measure(self, found):
        for side in ("ours", "reference"):
            ours = [one for one in found["measurements"] if one["side"] == side]
            assert {(one["measure"], one["volume"]) for one in ours} == MEASURES
            for one in ours:
                seconds = one["seconds"]
                assert 0 < seconds["minimum"] <= seconds["lower_quartile"] <= seconds["median"]
                assert seconds["median"] <= seconds["upper_quartile"]
                assert seconds["repetitions"] == 2
                assert seconds["cold"] > 0
                assert sum(one["stages"].values()) > 0

    def test_times_stand_beside_the_hardware_and_the_reference(self, found):
        assert found["roof"]["gemm"]["float32"]["1"] > 0
        assert found["roof"]["copy"]["1"] > 0
        everything = next(
            one for one in found["measurements"] if (one["measure"], one["side"]) == ("everything", "ours")
        )
        assert everything["faster"] > 0
        assert everything["labels"] >= 0.999
        assert everything["of_peak"] > 0
        assert {"reading", "preprocessing", "segmenting", "writing"} <= set(everything["stages"])

    def test_a_cached_click_encodes_no_window_and_the_first_one_does(self, found):
        encoded = {
            one["measure"]: one["facts"]["windows_encoded"]
            for one in found["measurements"]
            if one["side"] == "ours" and "click" in one["measure"]
        }
        assert encoded == {"first click": 1, "click 1": 0, "click 5": 0, "click 10": 0}

    def test_stages_say_what_is_outside_the_network(self, found):
        assert {one["side"] for one in found["profiles"]} == {"ours", "reference"}
        for one in found["profiles"]:
            assert {"reading", "preprocessing", "network", "labels", "restoration", "writing"} <= set(one["stages"])
            assert 0 < one["outside"] < 1

    def test_memory_is_that_of_a_process_of_its_own(self, found):
        assert {one["side"] for one in found["memory"]} == {"ours", "reference"}
        assert all(one["peak"] >= one["one_window"] > 1e7 for one in found["memory"])

    def test_a_missing_runtime_is_said_and_not_timed(self, found):
        reasons = {one["name"]: one["refused"] for one in found["sides"]}
        assert reasons["ours"] is None
        assert reasons["reference"] is None
        assert "'cuda' was asked for, but 'torch' would run" in reasons["ours:cuda"]
        assert not [one for one in found["measurements"] if one["side"] == "ours:cuda"]

    @pytest.mark.skipif(importlib.util.find_spec("nnInteractive") is not None, reason="nnInteractive is installed")
    def test_an_absent_rival_is_said(self, found):
        reasons = {one["name"]: one["refused"] for one in found["sides"]}
        assert "nnInteractive cannot be loaded" in reasons["nninteractive"]
        assert "nninteractive" in reasons["nninteractive"].split("install the package")[1]

    def test_people_get_tables_and_a_picture(self, report):
        from matplotlib.image import imread

        text = (report / "benchmark.md").read_text(encoding="utf-8")
        for heading in ("What the hardware gives", "Agreement", "Everything, volume 30@12", "Memory"):
            assert f"## {heading}" in text
        picture = imread(report / "benchmark.png")
        assert min(picture.shape[:2]) > 300
        assert np.ptp(picture) > 0.5


@pytest.fixture
def benchmark(monkeypatch, tmp_path) -> Callable[..., Result]:
    """Run the benchmark's command in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("VISTA3D_HOME", str(tmp_path / "home"))
    return lambda *arguments: CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("package", ["matplotlib", "nibabel"])
def test_one_sentence_names_a_missing_package(benchmark, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = benchmark("-o", tmp_path / "report")

    assert result.exit_code == 5, result.stderr
    assert result.stderr.strip().endswith(f"install with: pip install {package}.")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--what", "speed"], "'speed' cannot be measured"),
        (["--sides", "theirs"], "no side 'theirs'"),
        (["--size", "huge"], "is no size"),
        (["--size", ""], "Nothing to segment was named"),
        (["--image", "nowhere.nii.gz"], "no file or folder 'nowhere.nii.gz'"),
        (["--repetitions", "0"], "at least one repetition"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(benchmark, tmp_path, options, words):
    result = benchmark("-o", tmp_path / "report", *options)

    assert result.exit_code == 3
    assert words in result.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
def test_a_terminated_run_leaves_no_files_and_no_processes(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = "--sides", "ours", "--size", "30@12", "--device", "cpu", "--weights", tiny_model
    command = [sys.executable, BENCHMARK, "-o", tmp_path / "report", *options]
    process = subprocess.Popen(
        [str(one) for one in command], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path,
        # Shells start background jobs with SIGINT ignored, and children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )  # fmt: skip
    while not list(tmp_path.glob("vista3d-benchmark-*/*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=60) == 130
    assert "Canceled" in process.stderr.read()
    assert not [one for one in tmp_path.iterdir() if one.name.startswith("vista3d")]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
