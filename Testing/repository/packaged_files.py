"""Determine the files of the installed Slicer extension; run it to bring the lists of CMake up to date.

    python Testing/repository/packaged_files.py

Slicer installs the modules of ``VISTA3DCore`` that it runs: what the module's scripts and the engine's process import,
at once or later in a function. The command line and the laboratory belong to the Python package alone.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "VISTA3DSegment"
PACKAGE = "VISTA3DCore"
#: The list files, and what each list holds; paths start from the list file's folder or the repository.
LISTS = {
    ROOT / "VISTA3DCore/Files.cmake": ("CORE_SCRIPTS", "CORE_RESOURCES"),
    MODULE / "CMakeLists.txt": ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"),
}
#: What starts the engine's process.
ENGINE = f"{PACKAGE}/engine/__main__.py"
_DOCUMENTS = {".md", ".txt", ".cmake"}


def wanted(name: str) -> list[str]:
    """Return the files that a list must hold, as its CMake file writes them."""
    if name == "CORE_SCRIPTS":
        return core_scripts()
    if name == "CORE_RESOURCES":
        return _resources() + _files("Resources/Models", ".safetensors")
    inside = [one.removeprefix("VISTA3DSegment/") for one in _files("VISTA3DSegment", "")]
    if name == "MODULE_PYTHON_SCRIPTS":
        return [one for one in inside if one.endswith(".py") and not one.startswith("Testing/")]
    return [one for one in inside if one.startswith("Resources/") and not one.endswith(".md")]


def core_scripts() -> list[str]:
    """Return the modules of the package that Slicer runs: what its scripts and the engine's process import."""
    files = set(_files(PACKAGE, ".py"))
    scripts = [f"VISTA3DSegment/{name}" for name in wanted("MODULE_PYTHON_SCRIPTS")]
    found: set[str] = set()
    remaining = [ENGINE, *(one for script in scripts for one in imported_modules(script, files))]
    while remaining:
        file = remaining.pop()
        if file not in found:
            found.add(file)
            remaining += imported_modules(file, files)
    return sorted(found)


def imported_modules(script: str, files: set[str]) -> list[str]:
    """Return the files of the package that a script imports, anywhere in it, and those of the packages around them.

    A text that is a module's full name counts: ``VISTA3DCore/__init__.py`` imports its public classes by such names.

    :param files: the package's files.
    """
    names = set(_names(ast.parse((ROOT / script).read_text(encoding="utf-8"))))
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    paths = {"/".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}
    return [file for path in paths for file in (f"{path}.py", f"{path}/__init__.py") if file in files]


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.]+", node.value):
            yield node.value


def listed(name: str, text: str) -> list[str]:
    """Return what a list in a CMake file holds."""
    found = re.search(rf"^set\({name}\n(.*?)^\s*\)$", text, re.MULTILINE | re.DOTALL)
    return found[1].split() if found else []


def updated(name: str, text: str) -> str:
    """Return a CMake file's text with a list brought up to date."""
    lines = "".join(f"  {one}\n" for one in wanted(name))
    return re.sub(rf"^set\({name}\n.*?^\s*\)$", f"set({name}\n{lines}  )", text, flags=re.MULTILINE | re.DOTALL)


def _resources() -> list[str]:
    """Return the data files beside the modules that Slicer runs."""
    folders = {Path(script).parent for script in core_scripts()}
    data = [one for one in _files(PACKAGE, "") if not one.endswith(".py") and Path(one).suffix not in _DOCUMENTS]
    return [one for one in data if Path(one).parent in folders]


def _files(folder: str, ending: str) -> list[str]:
    """Return the files of a folder that are part of the project: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted({name for name in names if name and name.endswith(ending) and (ROOT / name).exists()})


def main() -> None:
    """Write all lists, and print how many lines Slicer installs."""
    for path, names in LISTS.items():
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = updated(name, text)
        path.write_text(text, encoding="utf-8")
    scripts = [*wanted("CORE_SCRIPTS"), *(f"VISTA3DSegment/{one}" for one in wanted("MODULE_PYTHON_SCRIPTS"))]
    lines = sum(len((ROOT / one).read_text(encoding="utf-8").splitlines()) for one in scripts)
    print(f"{lines} lines of Python in {len(scripts)} files are installed into Slicer")


if __name__ == "__main__":
    main()
