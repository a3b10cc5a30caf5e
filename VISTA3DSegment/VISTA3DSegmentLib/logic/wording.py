# SPDX-License-Identifier: Apache-2.0
"""Sentences for the panel: lists of structures, and the engine's errors in the words of the panel.

In the panel there are buttons in the place of commands, titles in the place of models' names, and no options or
variables.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from VISTA3DCore.anatomy.catalogue import Structure
from VISTA3DCore.errors import NotEnoughMemoryError, VistaError
from VISTA3DCore.models.registry import REGISTRY

from ..i18n import tr as _
from .signals import log

#: So many structures are named in a sentence.
MOST_NAMED = 6


def panel_sentence(error: VistaError) -> str:
    """Return what an error says to people who have a panel and no command line."""
    facts = {"click_model": title_of("vista3d-ct")}
    device = str(error.facts.get("device", ""))
    for kind, subject in (("cuda", _("The graphics card")), ("mps", _("The Apple GPU"))):
        if device.partition(":")[0] == kind:
            facts["subject"] = subject
    if "model" in error.facts:
        facts["model"] = title_of(str(error.facts["model"]))
    if isinstance(models := error.facts.get("models"), list):
        facts["models"] = ", ".join(title_of(str(model)) for model in models)
    return error.sentence(_panel_hints(), facts)


def in_panel_words(error: VistaError) -> VistaError:
    """Return an error whose text is its :func:`panel_sentence`."""
    worded = copy.copy(error)
    worded.args = (panel_sentence(error),)
    return worded


def title_of(model: str) -> str:
    """Return what the panel calls a model: the beginning of its title, or the name of a weights file."""
    if model in REGISTRY:
        return short_title(REGISTRY[model].title)
    return Path(model).name


def short_title(title: str) -> str:
    """Return the beginning of a model's title, which fits into the panel."""
    return title.partition(":")[0].partition(",")[0]


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


def _panel_hints() -> dict[str, str]:
    """Return the words for every hint, see :data:`VISTA3DCore.hints.HINTS`."""
    return {
        "accept-license": _("; read and accept it in Setup ({url})."),
        "bring-model": _("; bring the file from elsewhere and use 'Import file' in Setup."),
        "check-connection": _(
            "; check the connection and the proxy, or bring the file on a USB drive and use 'Import file' in Setup."
        ),
        "choose-click-model": _("; use '{click_model}' for them."),
        "choose-device": _("; choose Automatic or Processor."),
        "choose-device-kind": _("; choose another one."),
        "download-model": _(
            "; use 'Download' in Setup, or offline bring the file from elsewhere and use 'Import file' in Setup."
        ),
        "free-model-space": _(". Free some space."),
        "free-temporary-space": _("; free space there."),
        "get-again": _(". Get it again, or use it by its path."),
        "import-file": _("; use 'Import file' in Setup instead."),
        "install-packages": _("; install what is missing in Setup."),
        "install-runtime": _("; install what is missing in Setup."),
        "log-in": _("; log in with an account that may read it."),
        "name-model": _("; choose which one it is ({models})."),
        "update-or-import": _("; update VISTA3D, or use 'Import file' in Setup."),
        "use-by-path": _(": use it by its path."),
        "use-full-model": _(". Use the full model: 'Download' in Setup."),
    }
