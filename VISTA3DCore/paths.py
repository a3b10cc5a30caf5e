"""Where things are: bundled resources and the user's data folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from VISTA3DCore.errors import ModelError

PROJECT_URL = "https://github.com/OWNER/SlicerVISTA3D"


def resource(relative: str) -> Path:
    """Return a bundled file, e.g. ``Models/vista3d-mini.safetensors``.

    One lookup for every way of installing: beside the package (a checkout, the installed Slicer extension) or inside
    it (a wheel).

    :raises ModelError: if the file is in neither place.
    """
    package = Path(__file__).resolve().parent
    candidates = [package.parent / "Resources" / relative, package / "Resources" / relative]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise ModelError(f"The bundled file '{relative}' is missing; reinstall VISTA3D.")


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced, also where no shell did it; a ``~`` that names nobody stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such user


def readable(name: str) -> str:
    """Return a file's name as text; bytes in it that are no UTF-8, which Python carries as surrogates, become ``?``."""
    return name.encode("utf-8", "replace").decode()


def user_data_dir() -> Path:
    """Return the folder for downloaded weights (not created): ``VISTA3D_HOME``, else the platform's convention."""
    if override := os.environ.get("VISTA3D_HOME"):
        return expanded(override)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "VISTA3D"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "VISTA3D"
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share")) / "vista3d"
