"""The ground plan holds: cheap import, floors, wheels that carry their resources."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = [
    [
        "account",
        "atomic_files",
        "child_processes",
        "errors",
        "hints",
        "json_dataclasses",
        "packages",
        "paths",
        "progress",
    ],
    ["anatomy"],
    ["imaging"],
    ["network"],
    ["models"],
    ["backends"],
    ["inference"],
    ["engine"],
    ["supervoxels"],
    ["evaluation"],
    ["training"],
    ["cli"],
]
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
MODULES = sorted(path for path in (ROOT / "VISTA3DCore").rglob("*.py") if path.parent != ROOT / "VISTA3DCore")


def _run(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _imported_modules(path: Path) -> set[str]:
    """Return the full names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.alone
def test_importing_the_package_is_cheap_and_loads_no_runtime():
    code = (
        "import time, sys; start = time.process_time(); import VISTA3DCore;"
        "print(time.process_time() - start, *{'torch', 'monai', 'numpy', 'SimpleITK'} & set(sys.modules))"
    )
    runs = [_run("-c", code).split() for _ in range(3)]

    assert all(len(run) == 1 for run in runs)
    assert min(float(seconds) for seconds, *_ in runs) < 0.05


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("anatomy.catalogue", set()), ("imaging.volume", {"numpy"}), ("imaging.geometry", {"numpy"})],
)
def test_lower_floors_need_little(module, allowed):
    code = f"import sys, VISTA3DCore.{module}; print(*sys.modules)"
    heavy = {"numpy", "torch", "monai", "SimpleITK", "nibabel", "scipy", "typer", "huggingface_hub"}

    assert heavy & set(_run("-c", code).split()) <= allowed


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "VISTA3DCore")))
def test_a_floor_imports_only_floors_below_it(path):
    own = FLOOR_OF[path.relative_to(ROOT / "VISTA3DCore").parts[0]]
    names = _imported_modules(path)
    floors = {name: FLOOR_OF[name.split(".")[1]] for name in names if re.match(r"VISTA3DCore\.\w+", name)}

    assert all(floor <= own for floor in floors.values()), floors
    assert not {name.split(".")[0] for name in names} & {"slicer", "qt", "vtk", "torchvision"}


def test_the_extension_is_described_alike_everywhere():
    cmake, entry = (
        (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"),
        json.loads((ROOT / "VISTA3D.json").read_text(encoding="utf-8")),
    )

    assert re.search(r"^project\((\w+)\)", cmake, re.MULTILINE)[1] == "VISTA3D"
    assert re.search(r"EXTENSION_DEPENDS (.+)\)", cmake)[1].split() == entry["build_dependencies"]
    assert re.search(r'EXTENSION_CATEGORY "(.+)"', cmake)[1] == entry["category"]
    address = re.search(r'EXTENSION_HOMEPAGE "(.+)"', cmake)[1]
    assert entry["scm_url"] == address + ".git"
    assert address in (ROOT / "VISTA3DCore" / "paths.py").read_text(encoding="utf-8")
    assert f"scmurl {address}.git" in (ROOT / "VISTA3D.s4ext").read_text(encoding="utf-8")
    for picture in re.findall(rf"{address.replace('github.com', 'raw.githubusercontent.com')}/main/(\S+?)\"", cmake):
        assert (ROOT / picture).is_file(), picture


def test_every_markdown_link_leads_somewhere():
    broken = []
    for page in [*ROOT.glob("*.md"), *ROOT.glob("Documentation/**/*.md"), *ROOT.glob("Resources/**/*.md")]:
        targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        broken += [
            (page.name, target) for target in targets if "://" not in target and not (page.parent / target).exists()
        ]
    assert not broken
