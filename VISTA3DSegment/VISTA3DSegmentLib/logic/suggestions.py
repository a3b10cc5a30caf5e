# SPDX-License-Identifier: Apache-2.0
"""What the engine does between clicks: prepare for the next one, and tell where it would help most."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..i18n import tr as _
from ..mrml.clicks import ClickList, Position
from .wording import explained

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import ArrayRef, SuggestResult
    from VISTA3DCore.errors import VistaError

    from .click_engine import ClickEngine
    from .engine import Pending
    from .refinement import Refinement


class Suggestions:
    """Two requests at most, neither of which keeps a click waiting.

    :param refinement: whose clicks they are about, and whose signals tell the outcome.
    """

    def __init__(self, asking: ClickEngine, refinement: Refinement) -> None:
        self._asking, self._refinement = asking, refinement
        self._warming: Pending | None = None
        self._suggesting: Pending | None = None

    def make_way(self) -> None:
        """Let a click go first. What the engine prepares is left alone: it may be for just this click."""
        if self._suggesting is not None:
            self._suggesting.drop()
            self._suggesting = None

    def stop(self) -> None:
        """Hear nothing of what was asked for."""
        for pending in (self._warming, self._suggesting):
            if pending is not None:
                pending.drop()
        self._warming = self._suggesting = None

    def warm(self, position: Position) -> None:
        """Let the engine prepare for a click at a place, world RAS mm."""
        if self._warming is not None:
            self._warming.drop()
        prepared = partial(self._warm, tuple(map(float, position)))
        self._warming = self._refinement.prepare(None, prepared, self._warmed)

    def suggest(self) -> None:
        """Ask where the next click would help most."""
        if self._suggesting is not None:
            return
        try:
            click_list = self._refinement.rebased()
            self._suggesting = self._refinement.prepare(click_list, partial(self._ask, click_list), self._failed)
        except Exception as error:
            self._failed(explained(error))

    def _warm(self, position: Position, session: str, _base: ArrayRef | None) -> None:
        self._warming = self._asking.warm(session, position, self._warmed, self._warmed)

    def _warmed(self, _answer: object) -> None:
        self._warming = None
        if self._suggesting is None and not self._refinement.busy:
            self._refinement.state_changed("")

    def _ask(self, click_list: ClickList, session: str, base: ArrayRef | None) -> None:
        self._refinement.state_changed(_("Looking for doubtful places…"))
        arguments = self._refinement.segment, click_list, session, base
        try:
            self._suggesting = self._asking.suggest(*arguments, self._suggested, self._failed)
        except Exception as error:
            self._failed(explained(error))

    def _suggested(self, result: SuggestResult) -> None:
        self._suggesting = None
        self._refinement.state_changed("")
        if not result.suggestions:
            self._refinement.failed(_("No doubtful place is left."))
            return
        best = result.suggestions[0]
        self._refinement.suggested(best.position, best.positive, best.score)

    def _failed(self, error: VistaError) -> None:
        self._suggesting = None
        self._asking.forget_lost(self._refinement.segment, error)
        self._refinement.state_changed("")
        self._refinement.failed(str(error))
