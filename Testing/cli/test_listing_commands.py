"""`classes`, `models`, `doctor`, `--version`, `--help`: what they print, and how quickly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from VISTA3DCore import __version__
from VISTA3DCore.models.checkpoints import inspect_checkpoint
from VISTA3DCore.models.registry import REGISTRY

COMMANDS = [
    [],
    ["segment"],
    ["classes"],
    ["models"],
    ["models", "download"],
    ["models", "import"],
    ["demo"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(vista3d: Callable, command: list[str]) -> None:
    result = vista3d(*command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout) > 300
    assert "`" not in result.stdout


def test_version(vista3d: Callable) -> None:
    assert vista3d("--version").stdout == f"vista3d {__version__}\n"


@pytest.mark.alone
def test_start_up_is_quick_and_loads_no_runtime(vista3d_process: Callable) -> None:
    code = (
        "import sys, time; from typer.testing import CliRunner; from VISTA3DCore.cli.main import app;"
        "runner = CliRunner(); assert not runner.invoke(app, ['--help']).exit_code;"
        "assert not runner.invoke(app, ['classes']).exit_code;"
        "print([name for name in ('torch', 'monai', 'SimpleITK', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    started = time.perf_counter()
    assert vista3d_process("--help").wait() == 0
    assert time.perf_counter() - started < 3.0  # 0.4 s by itself; room for a busy machine


def test_classes_lists_all_and_searches(vista3d: Callable) -> None:
    everything = json.loads(vista3d("classes", "--json").stdout)
    assert len([entry for entry in everything if entry["in_everything"]]) == 117
    table = vista3d("classes", "--search", "kidn")
    assert re.search(r"14\s+left kidney\s+organs", table.stdout)
    assert "liver" not in table.stdout
    assert {entry["group"] for entry in json.loads(vista3d("classes", "-g", "ribs", "--json").stdout)} == {"ribs"}


def test_classes_of_a_model(vista3d: Callable, tiny_model: Path) -> None:
    entries = json.loads(vista3d("classes", "--model", tiny_model, "--json").stdout)
    assert [entry["index"] for entry in entries] == [1, 3, 5, 14, 23]
    assert len(json.loads(vista3d("classes", "--model", "vista3d-ctmr", "--json").stdout)) > 300


def test_classes_without_a_match(vista3d: Callable) -> None:
    assert "Nothing fits" in vista3d("classes", "--search", "wing").stderr
    result = vista3d("classes", "--group", "feathers")
    assert result.exit_code == 2
    assert "There is no group 'feathers'" in result.stderr


def test_models_list(vista3d: Callable, home: Path) -> None:
    models = {entry["name"]: entry for entry in json.loads(vista3d("models", "list", "--json").stdout)}
    assert {"vista3d-ct", "vista3d-ctmr", "mini"} <= models.keys()
    assert (models["vista3d-ct"]["state"], models["vista3d-ct"]["path"]) == ("missing", None)
    table = vista3d("models", "list")
    assert "NVIDIA Open Model License" in table.stdout
    assert str(home) in table.stderr


def test_models_import_verify_delete(vista3d: Callable, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = inspect_checkpoint(tiny_model)
    size = tiny_model.stat().st_size
    entry = replace(REGISTRY["vista3d-ct"], name="tiny", config=config, revision="0" * 40, size=size)
    monkeypatch.setitem(REGISTRY, "tiny", entry)
    refused = vista3d("models", "import", tiny_model, "--name", "tiny")
    assert refused.exit_code == 4
    assert "licence" in refused.stderr.lower()  # the sentence of the model store
    assert vista3d("models", "import", tiny_model, "--name", "tiny", "--accept-licence").exit_code == 0
    models = {entry["name"]: entry for entry in json.loads(vista3d("models", "list", "--json").stdout)}
    assert models["tiny"]["state"] in ("present", "verified")
    assert vista3d("models", "verify", "tiny").exit_code == 0
    assert vista3d("models", "delete", "tiny").exit_code == 0
    assert not Path(models["tiny"]["path"]).exists()
    assert vista3d("models", "delete", "tiny").exit_code == 4


def test_models_import_refuses_what_is_no_model(vista3d: Callable, home: Path, tmp_path: Path) -> None:
    (tmp_path / "page.pt").write_text("<!doctype html><html>Sign in</html>")
    result = vista3d("models", "import", tmp_path / "page.pt", "--name", "vista3d-ct", "--accept-license")
    assert result.exit_code == 4
    assert "web page" in result.stderr
    assert not home.exists()


def test_models_download_needs_the_licence_to_be_accepted(vista3d: Callable, home: Path) -> None:
    result = vista3d("models", "download", "vista3d-ct")
    assert result.exit_code == 4
    assert "--accept-license" in result.stderr
    assert not list(home.rglob("*.safetensors"))


def test_models_download_offline(vista3d: Callable) -> None:
    result = vista3d("models", "download", "vista3d-ct", "--accept-license")
    assert result.exit_code == 4
    assert len(result.stderr.strip().splitlines()) == 1


def test_unknown_model_names_the_known_ones(vista3d: Callable) -> None:
    result = vista3d("models", "verify", "vista3d")
    assert result.exit_code == 4
    assert "vista3d-ct" in result.stderr


def test_doctor_tells_what_is_there(vista3d: Callable) -> None:
    report = json.loads(vista3d("doctor", "--json").stdout)
    assert report["system"]["cpu_threads"] >= 1
    assert report["system"]["ram_gib"] > 0.5
    assert report["torch"]["version"]
    assert report["models"]["vista3d-ct"] == "missing"
    assert report["advice"].endswith(".")
    table = vista3d("doctor")
    assert "PyTorch" in table.stdout
    assert report["advice"] in table.stderr


def test_doctor_works_without_torch(tmp_path: Path) -> None:
    """Hide torch and monai from a real interpreter: neither importable nor listed among the installed packages."""
    code = (
        "import importlib.abc, importlib.metadata as metadata, sys\n"
        "class Hide(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'monai'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name.split('.')[0])\n"
        "sys.meta_path.insert(0, Hide())\n"
        "version = metadata.version\n"
        "def hidden(name):\n"
        "    if name in ('torch', 'monai'): raise metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "metadata.version = hidden\n"
        "from VISTA3DCore.cli.main import app\n"
        "app(sys.argv[1:], prog_name='vista3d')\n"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    result = run("doctor", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["torch"] is None
    assert "pip install torch monai" in report["advice"]


def test_british_spellings_are_hidden_aliases(vista3d):
    assert vista3d("models", "license", "mini").stdout == vista3d("models", "licence", "mini").stdout != ""
    assert vista3d("models", "download", "mini", "--accept-licence").exit_code == 0
    shown = vista3d("models", "--help").stdout + vista3d("models", "download", "--help").stdout
    assert "license" in shown
    assert "licence" not in shown
