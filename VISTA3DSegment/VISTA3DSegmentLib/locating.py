# SPDX-License-Identifier: Apache-2.0
"""Finding the engine's package from inside Slicer."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

_NAME = "VISTA3DCore"


def find_core() -> Path:
    """Make the extension's own ``VISTA3DCore`` the one that is imported, and return its folder.

    The installed extension has it beside the module's script; in a checkout it is one folder further up. A copy that
    was installed with pip, or that a folder of ``sys.path`` holds, may be of another version: it is never used, and
    one that a script has imported already is replaced, with a warning in the log.

    :raises ModuleNotFoundError: if it is in neither place.
    """
    beside = Path(__file__).resolve().parents[1]
    for folder in (beside, beside.parent):
        package = folder / _NAME
        if (package / "__init__.py").exists():
            _load(package)
            return package
    raise ModuleNotFoundError("The package VISTA3DCore is missing beside the module; install the extension again.")


def _load(package: Path) -> None:
    """Import the package from its folder, whatever ``sys.path`` would find under its name."""
    script = package / "__init__.py"
    loaded = sys.modules.get(_NAME)
    if loaded is not None:
        other = getattr(loaded, "__file__", None)
        if other is not None and Path(other).resolve() == script.resolve():
            return
        for name in [one for one in sys.modules if one.partition(".")[0] == _NAME]:
            del sys.modules[name]
        logging.getLogger(__name__).warning(
            "VISTA3DCore was imported from '%s'; the extension uses its own in '%s'. Remove the other one with "
            "'pip uninstall vista3d-core' if it is not needed.",
            other,
            package,
        )
    spec = importlib.util.spec_from_file_location(_NAME, script, submodule_search_locations=[str(package)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
