# SPDX-License-Identifier: Apache-2.0
"""What the engine does between clicks: prepare for the next one, and tell where it would help most."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from VISTA3DCore.errors import VistaError
from VISTA3DCore.worker.protocol import SuggestParams, WarmParams

from ..i18n import tr as _
from ..mrml.clicks import Position

if TYPE_CHECKING:
    from VISTA3DCore.worker.protocol import SuggestResult

    from .engine import Engine, Pending
    from .refinement import Refinement

Opener = Callable[[Callable[[str], None], Callable[[VistaError], None]], "Pending"]


class Suggestions:
    """Two requests at most, which any change of the clicks ends.

    :param refinement: whose clicks they are about, and whose signals tell the outcome.
    """

    def __init__(self, engine: Engine, refinement: Refinement) -> None:
        self._engine, self._refinement = engine, refinement
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

    def warm(self, open_volume: Opener, position: Position) -> None:
        """Let the engine prepare for a click at a place, world RAS mm."""
        if self._warming is not None:
            self._warming.drop()
        self._warming = open_volume(partial(self._warm, tuple(map(float, position))), self._ready)

    def suggest(self, open_volume: Opener) -> None:
        """Ask where the next click would help most."""
        if self._suggesting is None or self._suggesting.done:
            self._suggesting = open_volume(self._ask, self._failed)

    def _warm(self, position: Position, session: str) -> None:
        self._warming = self._engine.request("warm", WarmParams(session, position), self._ready, self._ready)

    def _ready(self, *_: object) -> None:
        self._warming = None
        if self._suggesting is None and not self._refinement.busy:
            self._refinement.state_changed("")

    def _ask(self, session: str) -> None:
        refinement = self._refinement
        refinement.state_changed(_("Looking for doubtful places ..."))
        try:
            params = SuggestParams(**refinement.params(session, refinement.rebased()))
        except VistaError as error:
            self._failed(error)
            return
        self._suggesting = self._engine.request("suggest", params, self._suggested, self._failed)

    def _suggested(self, result: SuggestResult) -> None:
        self._suggesting = None
        self._refinement.state_changed("")
        if not result.suggestions:
            self._refinement.failed(_("There is no doubtful place left."))
            return
        best = result.suggestions[0]
        self._refinement.suggested(best.position, best.positive, best.score)

    def _failed(self, error: VistaError) -> None:
        self._suggesting = None
        self._refinement.check_session(error)
        self._refinement.state_changed("")
        self._refinement.failed(str(error))
