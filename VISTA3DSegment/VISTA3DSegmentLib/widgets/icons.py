# SPDX-License-Identifier: Apache-2.0
"""Where the pictures of buttons and pointers are."""

from __future__ import annotations

from pathlib import Path

import qt

_FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Icons"


def icon_path(name: str) -> str:
    """Return the path of a picture, as Qt takes it."""
    return (_FOLDER / f"{name}.png").as_posix()


def icon(name: str) -> qt.QIcon:
    """Return a picture as an icon."""
    return qt.QIcon(icon_path(name))
