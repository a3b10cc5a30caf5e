# SPDX-License-Identifier: Apache-2.0
"""What is asked before a run may change what is there: another patient's segmentation, corrected segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from ..logic.wording import names_of
from .dialogs import ask_which
from .message import MessageBar

if TYPE_CHECKING:
    from ..logic.automatic import RunRequest
    from ..logic.settings import Settings
    from ..logic.structures import StructureChoice

Go = Callable[["RunRequest"], None]


class RunQuestions:
    """Asks what a request leaves open; a run goes on only with an answer.

    :param parent: that the questions belong to.
    :param choice: knows the label set that a request's structures are in.
    :param settings: remembers answers.
    :param message: shows what cannot be done.
    """

    def __init__(self, parent: qt.QWidget, choice: StructureChoice, settings: Settings, message: MessageBar) -> None:
        self._parent, self._choice, self._settings, self._message = parent, choice, settings, message
        self._dialog: qt.QMessageBox | None = None

    def ask(self, request: RunRequest, go: Go) -> None:
        """Call ``go`` with the request as the answers make it, at once if there is nothing to ask."""
        sentence = request.mismatch()
        if sentence is None:
            self._ask_about_corrections(request, go)
            return
        answers = [
            (_("Create a new segmentation"), replace(request, segmentation=None)),
            (_("Write into it"), replace(request, mismatch_accepted=True)),
        ]
        self._ask(sentence, answers, lambda answered: self.ask(answered, go))

    def _ask_about_corrections(self, request: RunRequest, go: Go) -> None:
        corrected = request.corrected(self._choice.catalogue)
        if corrected and self._settings.keep_corrected is None:
            sentence = _(
                "Corrected with clicks or other tools: {names}. Keep these segments, or replace them with what the "
                'model finds? The answer is remembered; "Keep corrected segments" changes it.'
            ).format(names=names_of(corrected))
            answers = [(_("Keep corrected segments"), True), (_("Replace them"), False)]
            self._ask(sentence, answers, lambda keep: self._remember(request, keep, go))
        elif corrected and request.keep_corrected and len(corrected) == len(request.structures):
            sentence = _('Corrected segments are kept: {names}. Clear "Keep corrected segments" to replace them.')
            self._message.show(sentence.format(names=names_of(corrected)), "note")
        else:
            go(request)

    def _remember(self, request: RunRequest, keep: bool, go: Go) -> None:
        self._settings.keep_corrected = keep
        self._ask_about_corrections(replace(request, keep_corrected=keep), go)

    def _ask(self, sentence: str, answers: list[tuple[str, object]], on_answer: Callable[..., None]) -> None:
        given = [(text, lambda value=value: on_answer(value)) for text, value in answers]
        self._dialog = ask_which(self._parent, _("Segment"), sentence, given)
