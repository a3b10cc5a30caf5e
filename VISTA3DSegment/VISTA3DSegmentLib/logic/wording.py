# SPDX-License-Identifier: Apache-2.0
"""Sentences for the panel: lists of structures, and the engine's words with buttons in the place of commands."""

from __future__ import annotations

import re
from collections.abc import Sequence

from VISTA3DCore.anatomy.catalogue import Structure
from VISTA3DCore.errors import NotEnoughMemoryError, VistaError

from ..i18n import tr as _
from .signals import log

#: So many structures are named in a sentence.
MOST_NAMED = 6


def for_panel(sentence: str) -> str:
    """Return a sentence of the engine for people who have a panel and no command line."""
    for command, words in _buttons().items():
        sentence = re.sub(command, words, sentence)
    return sentence


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
    sentence = _("VISTA3D failed unexpectedly ({kind}); try again. The log of the application tells more.")
    return VistaError(sentence.format(kind=type(error).__name__))


def _buttons() -> dict[str, str]:
    return {
        r"`vista3d models import [^`]*`": _("'Import file' in Setup"),
        r"`vista3d models download [^`]*`": _("'Download' in Setup"),
        r"read it \(`vista3d models licence [^`]*`, ([^)]*)\)[^.]*\.": _(r"read and accept it in Setup (\1)."),
        r"install the engine's runtime with: pip install [a-z ]*": _("install what is missing in Setup"),
        r"name it with --name \(one of ([^)]*)\)": _(r"choose which one it is (\1)"),
        r" \(--model [^)]*\)": "",
    }
