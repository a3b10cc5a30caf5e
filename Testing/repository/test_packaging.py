"""What Slicer's Extension Manager gets: complete, described as its index demands, and working where it is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cmake
import numpy as np
import pytest
from packaged_files import LISTS, MODULE, ROOT, imported_modules, listed, wanted

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.phantom import paint_phantom

SDK = Path(__file__).parent / "sdk"
CMAKE = Path(cmake.CMAKE_BIN_DIR) / "cmake"
# slicer-extension-catalog-entry-schema-v1.0.1.json; nothing else is allowed.
ENTRY_FIELDS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "tier": int,
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in LISTS.items() for name in names])
def test_lists_of_cmake_are_complete(path, name):
    assert listed(name, path.read_text(encoding="utf-8")) == wanted(name), "run Testing/repository/packaged_files.py"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Install the extension with CMake and return the folder in which Slicer finds its modules."""
    build, place = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("installed")
    _run([CMAKE, "-S", ROOT, "-B", build, f"-DSlicer_DIR={SDK}", f"-DCMAKE_INSTALL_PREFIX={place}", *_NO_COMPILER])
    _run([CMAKE, "--install", build])
    return place / "lib/Slicer-5.12/qt-scripted-modules"


# Python files need no compiler; the real developer kit brings its own toolchain.
_NO_COMPILER = ["-DCMAKE_C_COMPILER_WORKS=1", "-DCMAKE_CXX_COMPILER_WORKS=1", "-G", "Unix Makefiles"]


def _run(command: list[object], **options) -> str:
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_module_is_where_slicer_looks(installed):
    assert sorted(path.name for path in installed.glob("*.py")) == ["VISTA3DSegment.py"]


#: Rooms of the package that Slicer never runs.
NOT_INSTALLED = ("batch", "cli", "data", "evaluation", "server", "supervoxels", "training")


def test_the_laboratory_and_the_command_line_are_not_installed(installed):
    rooms = {path.name for path in (installed / "VISTA3DCore").iterdir()}

    assert {"anatomy", "imaging", "models", "network", "backends", "inference", "engine"} <= rooms
    assert not rooms & set(NOT_INSTALLED)


def test_no_installed_module_imports_one_that_is_not_installed(installed):
    present = {str(path.relative_to(installed)) for path in installed.rglob("*.py")}
    files = set(_tracked()) | present
    missing = {
        (script, one)
        for script in present
        for one in imported_modules(str(installed / script), files)
        if one not in present
    }
    assert not missing


def test_the_module_finds_the_installed_package(installed, tmp_path):
    code = (
        "from VISTA3DSegmentLib.locating import find_core; core = find_core(); import VISTA3DCore.engine.client as one"
    )
    found = _run([sys.executable, "-c", f"{code}; print(core, one.__file__)"], cwd=tmp_path, env=_only(installed))

    assert found.split() == [str(installed / "VISTA3DCore"), str(installed / "VISTA3DCore/engine/client.py")]


def test_the_installed_engine_segments_and_corrects_without_the_checkout(installed, tmp_path):
    where = "import VISTA3DCore.engine as one; print(one.__file__)"
    assert _run([sys.executable, "-c", where], cwd=tmp_path, env=_only(installed)).startswith(str(installed))
    volume, truth = paint_phantom((48, 40, 44))
    command = [sys.executable, "-m", "VISTA3DCore.engine"]
    with BlockingClient(ChildProcess(command, _only(installed))) as client, client.open(volume, "mini") as session:
        organs = session.segment(["liver"])
        voxel = np.argwhere(truth == 1).mean(axis=0).round()
        place = tuple((volume.affine[:3] @ [*voxel, 1.0]).tolist())
        corrected = session.click("liver", [Click(place, positive=True)], organs["liver"])

    assert organs.labels.shape == corrected.mask.shape == volume.shape
    assert corrected.mask.any()


def _only(folder: Path) -> dict[str, str]:
    """Return an environment in which the package of a folder comes before one that is installed."""
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def test_the_index_entry_has_the_fields_that_the_index_knows():
    entry = json.loads((ROOT / "VISTA3D.json").read_text(encoding="utf-8"))

    assert {name: type(value) for name, value in entry.items()} == ENTRY_FIELDS
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["category"] == "Segmentation"
    assert re.fullmatch(r"https://github\.com/[\w-]+/Slicer\w+\.git", entry["scm_url"])
    assert 1 <= entry["tier"] <= 5
    assert b"\r" not in (ROOT / "VISTA3D.json").read_bytes()


def test_cmake_says_what_the_machine_checks_read():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")

    assert re.search(r"^project\(VISTA3D\)$", text, re.MULTILINE)  # the name of the index entry, without "Slicer"
    for variable, endings in {"EXTENSION_ICONURL": "png", "EXTENSION_SCREENSHOTURLS": "png|jpg|gif"}.items():
        address = re.search(rf'set\({variable} "(https://raw\.githubusercontent\.com/[^"$]+\.(?:{endings}))"\)', text)[
            1
        ]
        assert (ROOT / address.split("/main/")[1]).is_file()
    assert "## NEXT_MODULE" in text
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


def test_the_description_fits_the_catalog():
    """One or two sentences that a person outside the field understands."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    description = re.search(r'EXTENSION_DESCRIPTION "(.+)"', text)[1]

    assert 1 <= len(re.findall(r"\.(?:\s|$)", description)) <= 2
    assert f"description {description}" in (ROOT / "VISTA3D.s4ext").read_text(encoding="utf-8")


def test_the_repository_stays_small():
    size = sum(path.stat().st_size for path in map(ROOT.joinpath, _tracked()) if path.exists())
    assert size < 50e6  # the index refuses more than 100 MB, history included


def test_every_file_of_the_module_names_its_license():
    silent = [
        path
        for path in MODULE.rglob("*.py")
        if "SPDX-License-Identifier: Apache-2.0" not in path.read_text("utf-8")[:200]
    ]
    assert not silent


def test_drawings_are_drawings():
    for path in [*ROOT.glob("Resources/Icons/*.svg"), *MODULE.glob("Resources/Icons/*.svg")]:
        assert ElementTree.parse(path).getroot().tag.endswith("svg"), path


def _tracked() -> list[str]:
    return _run(["git", "ls-files"], cwd=ROOT).split("\n")[:-1]
