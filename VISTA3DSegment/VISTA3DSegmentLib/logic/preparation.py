# SPDX-License-Identifier: Apache-2.0
"""Gets the engine ready ahead of the first click, and knows why it cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from VISTA3DCore.engine.errors import WorkerGoneError
from VISTA3DCore.errors import VistaError

from ..i18n import tr as _

if TYPE_CHECKING:
    from VISTA3DCore.engine.client import ProgressEvent

    from .choice import Choice
    from .clicked_segment import ClickedSegment
    from .engine import Pending
    from .volumes import OpenedVolumes


class Preparation:
    """Opens one volume at a time, once everything that the engine needs is installed.

    :param volumes: where it is opened.
    :param needed: says what is still to be installed, in a sentence, or None.
    :param on_state: gets what is going on, for people; an empty text when nothing is.
    :param on_failed: gets a sentence.
    """

    def __init__(
        self,
        volumes: OpenedVolumes,
        needed: Callable[[], str | None],
        on_state: Callable[[str], Any],
        on_failed: Callable[[str], Any],
    ) -> None:
        self._volumes, self._look = volumes, needed
        self._on_state, self._on_failed = on_state, on_failed
        self._opening: Pending | None = None
        self.needed: str | None = None
        self._failure: str | None = None

    @property
    def running(self) -> bool:
        """Whether a volume is being opened."""
        return self._opening is not None

    @property
    def problem(self) -> str | None:
        """Why the engine is not ready, in a sentence, or None."""
        return self.needed or self._failure

    def is_outdated(self) -> bool:
        """Whether something else is to be installed than at the last start."""
        return self._look() != self.needed

    def start(self, segment: ClickedSegment | None, choice: Choice) -> None:
        """Open the volume of a segment; what was being opened for another one is not waited for any more."""
        self.stop()
        self.needed = self._look()
        if self.needed is not None:
            self._on_state("")
        if self.needed is not None or segment is None or segment.problem() is not None:
            return
        self._on_state(_("Getting ready…"))
        self._opening = self._volumes.use(
            segment.volume_node, choice.model, choice.device, self._opened, self._not_opened, self._progressed
        )

    def stop(self) -> None:
        """Wait for nothing any more."""
        opening, self._opening, self._failure = self._opening, None, None
        if opening is not None:
            opening.drop()

    def succeeded(self) -> None:
        """The engine has answered: whatever kept it from getting ready is over."""
        self._failure = None

    def _opened(self, _session: str) -> None:
        self._opening = None
        self._on_state("")

    def _not_opened(self, error: VistaError) -> None:
        self._opening = None
        reported = isinstance(error, WorkerGoneError)  # by the engine, which starts again
        self._failure = None if reported else str(error)
        self._on_state("")
        if not reported:
            self._on_failed(str(error))

    def _progressed(self, event: ProgressEvent) -> None:
        text = _("Getting ready: {stage}, {percent} %")
        self._on_state(text.format(stage=event.stage, percent=math.floor(100 * event.fraction)))
