"""What the command line's tests share: phantoms as files, and ways to run the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from VISTA3DCore.imaging.phantom import paint_phantom

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tests out of the user's data folder, and off the network."""
    folder = tmp_path / "home"
    monkeypatch.setenv("VISTA3D_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return folder


@pytest.fixture
def vista3d(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run the command in this process: ``vista3d("classes", "--json")`` -> result with exit_code, stdout, stderr."""
    from VISTA3DCore.cli.main import app

    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def vista3d_process() -> Callable:
    """Run the command in a process of its own; keywords as of ``subprocess.Popen``."""

    def start(*arguments: object, **options: object) -> subprocess.Popen:
        command = [sys.executable, "-m", "VISTA3DCore.cli", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        # Shells start background jobs with SIGINT ignored, and children would inherit that.
        default = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
        settings = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "preexec_fn": default,
            **options,
        }
        return subprocess.Popen(command, env=environment, **settings)

    return start


@pytest.fixture(scope="session")
def ct_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small phantom as NIfTI."""
    volume, _ = paint_phantom((40, 32, 36))
    path = tmp_path_factory.mktemp("ct") / "ct.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.array.astype(np.int16), volume.affine), path)
    return path
