# SPDX-License-Identifier: Apache-2.0
"""Slicer's own means of installing: packages, the PyTorch extension."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from .logic.setup import Tools

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def slicers_tools() -> Tools:
    """Return what Slicer offers; nothing is imported or installed by this."""
    from slicer import packaging

    return Tools(
        load_requirements=packaging.load_requirements,
        pip_check=packaging.pip_check,
        pip_ensure=packaging.pip_ensure,
        torch_utils=_torch_utils,
        install_extension=_install_extension,
    )


def _torch_utils() -> Any:
    """:raises ImportError: without the PyTorch extension."""
    import PyTorchUtils

    return PyTorchUtils.PyTorchUtilsLogic()


def _install_extension(name: str) -> bool:
    """Install an extension after Slicer has asked the user; return whether Slicer must be restarted for it."""
    extensions = slicer.app.extensionsManagerModel()
    if extensions is None or extensions.isExtensionInstalled(name):
        return False
    return bool(extensions.installExtensionFromServer(name, False))
