"""Starting the engine from anywhere: what Slicer set is gone, what the user had set is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import VISTA3DCore
from VISTA3DCore.engine.environment import clean_environment, worker_command

SLICER = {
    "APPLAUNCHER_LEVEL": "1",
    "SLICER_HOME": "/opt/Slicer",
    "PYTHONHOME": "/opt/Slicer/lib/Python",
    "PYTHONPATH": "/opt/Slicer/lib/Python/lib/python3.12",
    "PYTHONNOUSERSITE": "1",
    "LD_LIBRARY_PATH": "/opt/Slicer/lib/Slicer-5.12",
    "QT_PLUGIN_PATH": "/opt/Slicer/lib/QtPlugins",
    "ITK_AUTOLOAD_PATH": "/opt/Slicer/lib/ITKFactories",
    "SSL_CERT_FILE": "/opt/Slicer/share/Slicer.crt",
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PATH": os.pathsep.join(["/opt/Slicer/bin", "/usr/bin"]),
    "HOME": "/home/user",
    "VISTA3D_HOME": "/data/vista",
}


def saved(**variables: str) -> dict[str, str]:
    return {f"APPLAUNCHER_0_{name}": value for name, value in variables.items()}


def test_what_slicer_set_is_gone():
    assert clean_environment(SLICER | saved(PATH="/usr/bin", HOME="/home/user")) == {
        "PATH": "/usr/bin",
        "HOME": "/home/user",
        "VISTA3D_HOME": "/data/vista",
    }


def test_what_the_user_had_set_before_comes_back():
    before = {
        "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
        "PYTHONPATH": "/home/user/python",
        "QT_SCALE_FACTOR": "2",
        "PATH": "/home/user/bin",
    }
    clean = clean_environment(SLICER | saved(**before, HOME="/home/earlier"))

    assert {name: clean[name] for name in before} == before
    assert clean["HOME"] == "/home/user"
    assert "SLICER_HOME" not in clean


def test_nested_launchers_lead_back_to_the_first():
    nested = SLICER | {
        "APPLAUNCHER_LEVEL": "2",
        "APPLAUNCHER_1_LD_LIBRARY_PATH": "/opt/Slicer/lib",
        "APPLAUNCHER_1_PATH": "/opt/Slicer/bin",
    }
    clean = clean_environment(nested | saved(LD_LIBRARY_PATH="/mine", PATH="/usr/bin"))

    assert (clean["LD_LIBRARY_PATH"], clean["PATH"]) == ("/mine", "/usr/bin")
    assert not [name for name in clean if name.startswith("APPLAUNCHER")]


@pytest.mark.skipif(os.name == "nt", reason="Slicer always has its launcher on Windows")
def test_without_a_launcher_the_folders_of_slicer_leave_the_path():
    bundle = {name: value for name, value in SLICER.items() if name != "APPLAUNCHER_LEVEL"}

    assert clean_environment(bundle)["PATH"] == "/usr/bin"
    assert (
        clean_environment(bundle | {"PATH": "/opt/Slicer/../Slicer/bin:/opt/Slicers/bin"})["PATH"] == "/opt/Slicers/bin"
    )


def test_outside_slicer_nothing_changes(monkeypatch):
    mine = {"PYTHONPATH": "/mine", "LD_LIBRARY_PATH": "/mine", "QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin"}
    assert clean_environment(mine) == mine
    for name in ("APPLAUNCHER_LEVEL", "SLICER_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert clean_environment() == dict(os.environ)


def test_which_python(monkeypatch):
    monkeypatch.delenv("VISTA3D_WORKER_PYTHON", raising=False)
    assert worker_command()[0] == sys.executable
    assert worker_command(Path("/opt/python"))[0] == str(Path("/opt/python"))
    monkeypatch.setenv("VISTA3D_WORKER_PYTHON", "/opt/venv/bin/python")
    assert worker_command("/opt/python")[0] == "/opt/venv/bin/python"


@pytest.fixture
def fake(tmp_path, monkeypatch) -> list[str]:
    """Return the command for a package that only tells about itself, in a folder with a trap beside it."""
    package = tmp_path / "a folder, with ümlaut" / "VISTA3DCore"
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = 'fake'")
    (package / "engine" / "__init__.py").write_text("")
    (package / "engine" / "__main__.py").write_text(
        "import json, sys, VISTA3DCore, VISTA3DCore.engine\n"
        "def importable(name):\n"
        "    try:\n"
        "        return bool(__import__(name))\n"
        "    except ImportError:\n"
        "        return False\n"
        "print(json.dumps([VISTA3DCore.__version__, __name__, sys.path.count(''), importable('trap')]))\n"
    )
    (package.parent / "trap.py").write_text("")
    command = worker_command(sys.executable)
    assert Path(command[-1]) == Path(VISTA3DCore.__file__).parent
    return [*command[:-1], str(package)]


def test_the_engine_is_the_clients_copy_and_nothing_beside_it_is_importable(fake, tmp_path):
    (tmp_path / "trap.py").write_text("")
    run = subprocess.run(fake, cwd=tmp_path, capture_output=True, text=True, check=True)

    assert json.loads(run.stdout) == ["fake", "__main__", 0, False]
