# SPDX-License-Identifier: Apache-2.0
"""Finding the engine's package from inside Slicer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def find_core() -> Path:
    """Make ``VISTA3DCore`` importable and return its folder.

    The installed extension has it beside the module's script; in a checkout it lies one folder further up.

    :raises ModuleNotFoundError: if it is in neither place.
    """
    beside = Path(__file__).resolve().parents[1]
    for folder in (beside, beside.parent):
        package = folder / "VISTA3DCore"
        if (package / "__init__.py").exists():
            if importlib.util.find_spec("VISTA3DCore") is None:
                sys.path.append(str(folder))
            return package
    raise ModuleNotFoundError("The package VISTA3DCore is missing beside the module; install the extension again.")
