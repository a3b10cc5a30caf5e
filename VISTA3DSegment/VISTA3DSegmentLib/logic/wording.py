# SPDX-License-Identifier: Apache-2.0
"""Sentences for the panel: lists of structures, and the engine's words in those of the panel.

The engine speaks to people who type commands. In the panel there are buttons in the place of commands, titles in the
place of models' names, and no options or variables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from VISTA3DCore.anatomy.catalogue import Structure
from VISTA3DCore.errors import NotEnoughMemoryError, VistaError
from VISTA3DCore.models.registry import REGISTRY

from ..i18n import tr as _
from .signals import log

#: So many structures are named in a sentence.
MOST_NAMED = 6


def for_panel(sentence: str) -> str:
    """Return a sentence of the engine for people who have a panel and no command line."""
    for command, words in _panel_words().items():
        sentence = re.sub(command, words, sentence)
    return re.sub(r"'([\w-]+)'", lambda quoted: f"'{title_of(quoted[1])}'", sentence)


def title_of(model: str) -> str:
    """Return what the panel calls a model: the beginning of its title, or the name of a weights file."""
    if model in REGISTRY:
        return short_title(REGISTRY[model].title)
    return Path(model).name


def short_title(title: str) -> str:
    """Return the beginning of a model's title, which fits into the panel."""
    return re.split(r"[:,]", title)[0]


def shown(error: VistaError) -> VistaError:
    """Return an error in the words of the panel."""
    sentence = for_panel(str(error))
    return error if sentence == str(error) else type(error)(sentence)


def names_of(structures: Sequence[Structure]) -> str:
    """Return the names of structures as a sentence has them; of many only the first ones, and how many more."""
    names = ", ".join(structure.display_name for structure in structures[:MOST_NAMED])
    more = len(structures) - MOST_NAMED
    return names if more <= 0 else _("{names} and {count} more").format(names=names, count=more)


def explained(error: Exception) -> VistaError:
    """Return what was raised as an error with a sentence for people; what was not foreseen is logged in full.

    Whoever waits for a callback must get one, whatever happens: a request that is never answered blocks all others.
    """
    if isinstance(error, VistaError):
        return error
    log.error("Unforeseen", exc_info=error)
    if isinstance(error, MemoryError):
        return NotEnoughMemoryError(_("There is not enough memory; close other volumes or programs, then try again."))
    sentence = _("VISTA3D failed unexpectedly ({kind}); try again. See the application's log for details.")
    return VistaError(sentence.format(kind=type(error).__name__))


def _panel_words() -> dict[str, str]:
    return {
        r"`vista3d models import [^`]*`": _("'Import file' in Setup"),
        r"`vista3d models download [^`]*`": _("'Download' in Setup"),
        r"read it \(`vista3d models licence [^`]*`, ([^)]*)\)[^.]*\.": _(r"read and accept it in Setup (\1)."),
        r"install the engine's runtime with: pip install [a-z ]*": _("install what is missing in Setup"),
        r"name it with --name \(one of ([^)]*)\)": _(r"choose which one it is (\1)"),
        r" \(--model [^)]*\)": "",
        r",? or set [A-Z0-9_]+( to another folder)?": "",
        r" \((HTTPS_PROXY|pip install [^)]*)\)": "",
        r"use 'auto' or 'cpu'": _("choose Automatic or Processor"),
        r"use auto, cpu, cuda or mps": _("choose another one"),
        r"The device 'cuda(:\d+)?'": _("The graphics card"),
        r"The device 'mps'": _("The Apple GPU"),
        r"use 'mini' or a region": _("use the small model or a region"),
        r"use (vista3d-[a-z-]+) for": _(r"use '\1' for"),
    }
