# SPDX-License-Identifier: Apache-2.0
"""What the engine is asked about clicks, and what it needs before that: the open volume and the base's file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from VISTA3DCore.engine.protocol import (
    ClickParams,
    SuggestParams,
    UnknownSessionError,
    WarmParams,
    WorkerGoneError,
)
from VISTA3DCore.errors import VistaError

from ..mrml.clicks import ClickList, Position
from .bases import Bases
from .wording import explained

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import ArrayRef

    from .clicked_segment import ClickedSegment
    from .engine import Engine, OnError, OnProgress, OnResult, Pending
    from .volumes import OpenedVolumes

OnPrepared = Callable[[str, "ArrayRef | None"], Any]


class ClickEngine:
    """The requests about clicks on one volume.

    :param engine: the engine process. :param volumes: the volumes that are open in it.
    :param bases: the masks from before clicks.
    :ivar model: as the engine's ``open`` takes it. :ivar device: likewise.
    """

    def __init__(self, engine: Engine, volumes: OpenedVolumes, bases: Bases) -> None:
        self.model, self.device = "", "auto"
        self._engine, self._volumes, self._bases = engine, volumes, bases

    def is_open(self, segment: ClickedSegment) -> bool:
        """Whether the segment's volume is open in the engine."""
        return self._volumes.session_of(segment.volume_node, self.model, self.device) is not None

    def prepare(
        self,
        segment: ClickedSegment,
        base: str | None,
        on_ready: OnPrepared,
        on_error: OnError,
        on_progress: OnProgress | None = None,
    ) -> Pending:
        """Open the volume and hand the base over, where that has not been done; calls back later, in any case.

        :param base: its name; None: there is none.
        :param on_ready: gets the session and the base's file.
        """
        return _Preparing(self._engine, self._bases, base, on_ready, on_error).start(
            self._volumes, (segment.volume_node, self.model, self.device), on_progress
        )

    def click(
        self,
        segment: ClickedSegment,
        click_list: ClickList,
        session: str,
        base: ArrayRef | None,
        on_result: OnResult,
        on_error: OnError,
    ) -> Pending:
        """Ask what clicks make of their base."""
        clicks = segment.world_clicks(click_list)
        params = ClickParams(session, click_list.structure, clicks, base, click_list.settled)
        return self._engine.request("click", params, on_result, on_error)

    def suggest(
        self,
        segment: ClickedSegment,
        click_list: ClickList,
        session: str,
        base: ArrayRef | None,
        on_result: OnResult,
        on_error: OnError,
    ) -> Pending:
        """Ask where the next click would help most."""
        clicks = segment.world_clicks(click_list)
        params = SuggestParams(session, click_list.structure, clicks, base, settled=click_list.settled)
        return self._engine.request("suggest", params, on_result, on_error)

    def warm(self, session: str, position: Position, on_result: OnResult, on_error: OnError) -> Pending:
        """Ask to prepare for a click at a place, world RAS mm."""
        return self._engine.request("warm", WarmParams(session, position), on_result, on_error)

    def forget_lost(self, segment: ClickedSegment | None, error: VistaError) -> None:
        """Let the volume be opened anew if an error says that the engine has lost it."""
        if segment is not None and isinstance(error, (UnknownSessionError, WorkerGoneError)):
            self._volumes.forget(segment.volume_node)


class _Preparing:
    """Two steps, each a request of its own, see :class:`Pending`."""

    def __init__(self, engine: Engine, bases: Bases, base: str | None, on_ready: OnPrepared, on_error: OnError) -> None:
        self._engine, self._bases, self._base = engine, bases, base
        self._on_ready, self._on_error = on_ready, on_error
        self._step: Pending | None = None

    def start(self, volumes: OpenedVolumes, volume: tuple, on_progress: OnProgress | None) -> _Preparing:
        self._step = volumes.use(*volume, self._opened, self._on_error, on_progress)
        return self

    @property
    def done(self) -> bool:
        return self._step is None or self._step.done

    def cancel(self) -> None:
        if self._step is not None:
            self._step.cancel()

    def drop(self) -> None:
        if self._step is not None:
            self._step.drop()

    def _opened(self, session: str) -> None:
        self._step = None
        if self._base is None:
            self._on_ready(session, None)
            return
        try:
            ref = self._bases.file_of(self._base, self._engine.shared)
            if ref is None:
                handed = partial(self._handed, session)
                self._step = self._engine.hand_over(self._bases.whole(self._base), None, handed, self._on_error)
                return
        except Exception as error:
            self._on_error(explained(error))
            return
        self._on_ready(session, ref)

    def _handed(self, session: str, ref: ArrayRef) -> None:
        self._step = None
        self._bases.keep_file(self._base, ref, self._engine.shared)
        self._on_ready(session, ref)
