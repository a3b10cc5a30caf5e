"""Which files the installed Slicer extension consists of; run it to bring the lists of CMake up to date.

python Testing/repository/packaged_files.py
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "VISTA3DSegment"
#: The list files, the folder that their paths start from, and what each list holds.
LISTS = {
    ROOT / "VISTA3DCore/Files.cmake": ("CORE_SCRIPTS", "CORE_RESOURCES"),
    MODULE / "CMakeLists.txt": ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"),
}
_DOCUMENTS = {".md", ".txt", ".cmake"}


def wanted(name: str) -> list[str]:
    """Return the files that a list must hold, as its CMake file writes them."""
    if name == "CORE_SCRIPTS":
        return _files("VISTA3DCore", ".py")
    if name == "CORE_RESOURCES":
        return _resources("VISTA3DCore") + _files("Resources/Models", ".safetensors")
    inside = [one.removeprefix("VISTA3DSegment/") for one in _files("VISTA3DSegment", "")]
    if name == "MODULE_PYTHON_SCRIPTS":
        return [one for one in inside if one.endswith(".py") and not one.startswith("Testing/")]
    return [one for one in inside if one.startswith("Resources/") and not one.endswith(".md")]


def listed(name: str, text: str) -> list[str]:
    """Return what a list in a CMake file holds."""
    found = re.search(rf"^set\({name}\n(.*?)^\s*\)$", text, re.MULTILINE | re.DOTALL)
    return found[1].split() if found else []


def written(name: str, text: str) -> str:
    """Return a CMake file's text with a list brought up to date."""
    lines = "".join(f"  {one}\n" for one in wanted(name))
    return re.sub(rf"^set\({name}\n.*?^\s*\)$", f"set({name}\n{lines}  )", text, flags=re.MULTILINE | re.DOTALL)


def _resources(folder: str) -> list[str]:
    return [one for one in _files(folder, "") if not one.endswith(".py") and Path(one).suffix not in _DOCUMENTS]


def _files(folder: str, ending: str) -> list[str]:
    """Return the files of a folder that are part of the project: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted({name for name in names if name and name.endswith(ending) and (ROOT / name).exists()})


def main() -> None:
    """Write all lists."""
    for path, names in LISTS.items():
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = written(name, text)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
