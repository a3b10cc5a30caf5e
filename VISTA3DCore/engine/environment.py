"""Starting the engine process from anywhere, also from inside Slicer, which bends the environment to its own Python."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from VISTA3DCore.child_processes import python_command

#: The interpreter that runs the engine.
PYTHON_VARIABLE = "VISTA3D_WORKER_PYTHON"

# What Slicer's launcher sets (CMake/SlicerBlockCTKAppLauncherSettings.cmake): with these another Python finds no
# standard library, loads Slicer's libraries, or lets ITK load Slicer's plug-ins into SimpleITK.
_SLICER_VARIABLES = frozenset(
    {
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONNOUSERSITE",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "DYLD_FRAMEWORK_PATH",
        "ITK_AUTOLOAD_PATH",
        "PIP_DISABLE_PIP_VERSION_CHECK",
        "PIP_REQUIRE_VIRTUALENV",
        "SLICER_HOME",
        "SSL_CERT_FILE",
    }
)
_QT = "QT_"
# The launcher keeps the environment in which it was started: APPLAUNCHER_<level>_<name>. Level 0 is the user's own.
_LEVEL = "APPLAUNCHER_LEVEL"
_SAVED = re.compile(r"APPLAUNCHER_\d+_", re.IGNORECASE)
_ORIGINAL = "APPLAUNCHER_0_"


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without what Slicer sets; what the user had set before Slicer started comes back.

    Variables that Slicer has nothing to do with keep their present values. Outside Slicer nothing changes.

    :param environment: by default this process's.
    """
    environment = os.environ if environment is None else environment
    if _LEVEL not in environment and "SLICER_HOME" not in environment:
        return dict(environment)
    clean = {name: value for name, value in environment.items() if not _is_slicers(name)}
    if "PATH" in environment:
        clean["PATH"] = _own_path(environment)
    originals = {name[len(_ORIGINAL) :]: value for name, value in environment.items() if name.startswith(_ORIGINAL)}
    return clean | {name: value for name, value in originals.items() if _is_slicers(name)}


def worker_command(python: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the command that starts the engine process.

    The engine is the same copy of the package as the client's, whatever is installed for the interpreter, so both
    always speak the same protocol; the interpreter must have what the engine needs (torch, monai ...).

    :param python: an interpreter; ``VISTA3D_WORKER_PYTHON`` overrides it, and by default it is the running one.
    """
    return python_command("VISTA3DCore.engine", python=os.environ.get(PYTHON_VARIABLE) or python)


def _is_slicers(name: str) -> bool:
    return name in _SLICER_VARIABLES or name.startswith(_QT) or name == _LEVEL or bool(_SAVED.match(name))


def _own_path(environment: Mapping[str, str]) -> str:
    """Return PATH as it was before Slicer, or (macOS, where no launcher keeps it) without Slicer's folders."""
    if _ORIGINAL + "PATH" in environment:
        return environment[_ORIGINAL + "PATH"]
    home = os.path.normcase(os.path.abspath(environment.get("SLICER_HOME") or os.devnull))  # noqa: PTH100
    folders = environment["PATH"].split(os.pathsep)
    return os.pathsep.join(one for one in folders if not _lies_in(one, home))


def _lies_in(folder: str, home: str) -> bool:
    folder = os.path.normcase(os.path.abspath(folder))  # noqa: PTH100
    return folder == home or folder.startswith(home + os.sep)
