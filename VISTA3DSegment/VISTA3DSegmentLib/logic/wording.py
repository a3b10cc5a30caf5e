# SPDX-License-Identifier: Apache-2.0
"""The engine's sentences in the words of the panel: where they name a command to type, this names a button."""

from __future__ import annotations

import re

from VISTA3DCore.errors import VistaError

from ..i18n import tr as _


def for_panel(sentence: str) -> str:
    """Return a sentence of the engine for people who have a panel and no command line."""
    for command, words in _buttons().items():
        sentence = re.sub(command, words, sentence)
    return sentence


def shown(error: VistaError) -> VistaError:
    """Return an error in the words of the panel."""
    sentence = for_panel(str(error))
    return error if sentence == str(error) else type(error)(sentence)


def _buttons() -> dict[str, str]:
    return {
        r"`vista3d models import [^`]*`": _("'Import file' in Setup"),
        r"`vista3d models download [^`]*`": _("'Download' in Setup"),
        r"read it \(`vista3d models licence [^`]*`, ([^)]*)\)[^.]*\.": _(r"read and accept it in Setup (\1)."),
        r"install the engine's runtime with: pip install [a-z ]*": _("install what is missing in Setup"),
        r"name it with --name \(one of ([^)]*)\)": _(r"choose which one it is (\1)"),
        r" \(--model [^)]*\)": "",
    }
