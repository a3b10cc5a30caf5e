"""The command in odd surroundings: consoles of any encoding, full disks, users without an account or a home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp932", "cp1252"])
def test_every_console_shows_the_help(
    vista3d_process: Callable, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    process = vista3d_process("segment", "--help", encoding=encoding)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "--classes" in stdout


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("classes", "--json"), ("classes",), ("--help",), ("--version",)])
def test_a_full_disk_behind_standard_output_is_one_sentence(vista3d_process: Callable, arguments: tuple) -> None:
    with FULL.open("w") as full:
        process = vista3d_process(*arguments, stdout=full)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 6
    assert stderr.strip().startswith("Standard output cannot be written (No space left on device)")
    assert stderr.strip().count("\n") == 0


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_notes_that_cannot_be_printed_cost_no_result(
    vista3d_process: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.nii.gz"
    with FULL.open("w") as full:
        process = vista3d_process("segment", ct_file, "-o", output, "-c", "liver", "-m", tiny_model, stderr=full)
        process.communicate(timeout=300)
    assert output.is_file()


@pytest.fixture
def open_folder(ct_file: Path, tiny_model: Path) -> Iterator[Path]:
    """A folder that every user may use, with a CT and a model; pytest's own belong to one user."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    for path in (ct_file, tiny_model):
        Path(shutil.copy(path, folder)).chmod(0o644)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs another user"
)
@pytest.mark.parametrize("home", ["/", None])
@pytest.mark.parametrize("engine", ["in-process", "worker"])
def test_a_user_id_without_an_account_segments(open_folder: Path, home: str | None, engine: str) -> None:
    """As ``docker run --user 54321``; Python itself may be readable for root alone, hence the capabilities."""
    rights = "+dac_override,+dac_read_search"
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", f"--inh-caps={rights}"]
    command = ["segment", "ct.nii.gz", "-o", "a.nii.gz", "-c", "liver", "-m", "tiny.safetensors", "-q"]
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "OMP_NUM_THREADS", "VISTA3D_RUNTIME"}}
    done = subprocess.run(
        [*user, f"--ambient-caps={rights}", sys.executable, "-m", "VISTA3DCore.cli", *command, "--engine", engine],
        env={**kept, "PYTHONPATH": str(REPOSITORY), **({"HOME": home} if home else {})},
        cwd=open_folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (open_folder / "a.nii.gz").is_file()


def test_a_home_that_cannot_be_written_is_no_news(
    vista3d_process: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    files = ("-o", tmp_path / "a.nii.gz", "--preview", tmp_path / "a.png")
    process = vista3d_process("segment", ct_file, *files, "-c", "liver", "-m", tiny_model, "-q")
    _, stderr = process.communicate(timeout=300)
    assert (process.returncode, stderr) == (0, "")
