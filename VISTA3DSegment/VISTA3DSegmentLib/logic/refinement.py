# SPDX-License-Identifier: Apache-2.0
"""From clicks to a changed segment: asks the engine, one request at a time, and writes its answers as undo steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import slicer

from VISTA3DCore.anatomy.catalogue import Catalogue
from VISTA3DCore.engine.errors import WorkerGoneError
from VISTA3DCore.errors import InputError, OutputError, UnknownStructureError, VistaError

from ..i18n import tr as _
from ..mrml.clicks import ClickList, Edit, Position, StoredClick
from ..mrml.markups import positions_of
from .bases import Bases
from .changes import Change
from .click_engine import ClickEngine, OnPrepared
from .clicked_segment import ClickedSegment
from .signals import Signal, log
from .suggestions import Suggestions
from .wording import explained

if TYPE_CHECKING:
    import numpy as np

    from VISTA3DCore.engine.client import ProgressEvent
    from VISTA3DCore.engine.protocol import ArrayRef, ClickAnswer

    from ..mrml.writing import SegmentWriter
    from .engine import Engine, OnError, Pending
    from .volumes import OpenedVolumes


class Refinement:
    """Clicks on one segment at a time.

    Every change (a click, several that are taken over, a deletion ...) is one request and one undo step; changes wait
    for each other. A change shows in :attr:`click_list` at once, and in the segment and its tag when the engine has
    answered. If it fails, it is withdrawn and ``failed`` tells why, in one sentence; the segment is as it was.

    Signals: ``clicks_changed(ClickList)``; ``state_changed(text)``, empty when ready; ``answered(latency_ms, engine_ms,
    touched)``, touched telling of each click whether it added or removed something; ``failed(sentence)``;
    ``suggested(world_ras, positive, score)``.

    :param engine: the engine process. :param volumes: the volumes that are open in it.
    :param bases: masks from before clicks, where others keep them in common with it.
    :ivar writer: writes into segments; without one nothing can be clicked.
    """

    def __init__(self, engine: Engine, volumes: OpenedVolumes, bases: Bases | None = None) -> None:
        self.clicks_changed, self.state_changed = Signal(), Signal()
        self.answered, self.failed, self.suggested = Signal(), Signal(), Signal()
        self.writer: SegmentWriter | None = None
        self._engine, self._bases = engine, bases or Bases()
        self._asking = ClickEngine(engine, volumes, self._bases)
        self._segment: ClickedSegment | None = None
        self._chosen: tuple[int | None] | None = None
        self._queue, self._running = deque[Change](), None
        self._committed = self._shown = ClickList()
        self._writing = self._closed = False
        self._suggestions = Suggestions(self._asking, self)

    _running: Change | None

    # What is clicked

    @property
    def segment(self) -> ClickedSegment | None:
        """The segment that clicks go to."""
        return self._segment

    @property
    def bases(self) -> Bases:
        """The masks from before clicks."""
        return self._bases

    @property
    def click_list(self) -> ClickList:
        """The clicks as the user sees them, with those that the engine has not answered yet."""
        return self._shown

    @property
    def busy(self) -> bool:
        """Whether a change waits for the engine."""
        return self._running is not None

    @property
    def structure(self) -> int | None:
        """Index of what is clicked, in the label set of the target; None for an object without a name."""
        return self._shown.structure if self._shown else self._first_structure()

    def set_target(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode | None = None,
        segment_id: str = "",
        volume_node: slicer.vtkMRMLScalarVolumeNode | None = None,
        model: str = "",
        device: str = "auto",
        catalogue: Catalogue | None = None,
    ) -> None:
        """Choose the segment that clicks go to; harmless if it is the chosen one, without arguments none is.

        A change that the engine has not answered yet is withdrawn, with a sentence.

        :param model, device: as the engine's ``open`` takes them.
        :param catalogue: the label set of the model.
        """
        present = self._segment
        same = (model, device) == (self._asking.model, self._asking.device) and present is not None
        if same and present.is_same(segmentation_node, segment_id, volume_node, catalogue):
            return
        self._withdraw_all(_("A click was not applied, because something else was chosen before it was computed."))
        self._bases.release()
        self._asking.model, self._asking.device, self._chosen = model, device, None
        complete = None not in (segmentation_node, volume_node, catalogue) and segment_id
        self._segment = (
            ClickedSegment(segmentation_node, segment_id, volume_node, catalogue, self._bases) if complete else None
        )
        self._read_clicks()

    def close(self) -> None:
        """Withdraw what is not answered and delete the engine's file; no signal comes any more."""
        self._closed = True
        self._drop_changes()
        self._suggestions.stop()
        self._bases.clear()
        self._segment = None

    def forget_masks(self) -> None:
        """Forget the masks from before clicks, because the scene is closed: present masks take their place."""
        self._withdraw_all(_("A click was not applied, because the scene was closed before it was computed."))
        self._bases.clear()

    # What the user does

    def add(self, world_ras: Position, positive: bool = True) -> None:
        """Place a click, world RAS mm."""
        self._change(lambda segment: Change(Edit(added=(segment.stored_click(world_ras, positive),))))

    def move(self, number: int, world_ras: Position) -> None:
        """Move a click, counted from 0 in :attr:`click_list`."""
        self._replace(number, lambda segment, old: segment.stored_click(world_ras, old.positive))

    def flip(self, number: int) -> None:
        """Turn a positive click into a negative one, or the other way round."""
        self._replace(number, lambda _segment, old: old.flipped())

    def delete(self, number: int) -> None:
        """Delete a click."""
        self._replace(number, lambda _segment, _old: None)

    def delete_all(self) -> None:
        """Delete all clicks: the mask is the one from before the first click that is not settled."""
        self.edit(Edit(tuple((click, None) for click in self._shown.clicks)))

    def edit(self, edit: Edit) -> None:
        """Do several things to the clicks in one step, e.g. what was done to their control points."""
        if edit:
            self._change(lambda _segment: Change(edit))

    def take_over(self, fiducial_node: slicer.vtkMRMLMarkupsFiducialNode, positive: bool = True) -> None:
        """Make clicks of a point list's selected points, in one step; the point list stays as it is."""

        def change(segment: ClickedSegment) -> Change:
            places = positions_of(fiducial_node)
            return Change(Edit(added=tuple(segment.stored_click(place, positive) for place in places)))

        self._change(change)

    def set_structure(self, index: int | None) -> None:
        """Choose what is clicked, by its index in the label set; None: an object without a name."""
        if index == self.structure:
            return
        self._chosen = (index,)
        if self._shown:
            self._change(lambda _segment: Change(structure=(index,)))

    def warm(self, world_ras: Position) -> None:
        """Let the engine prepare for a click at a place, if it has nothing else to do; failures stay silent."""
        if self._segment is not None and not self.busy and self._segment.problem() is None:
            self._suggestions.warm(world_ras)

    def suggest(self) -> None:
        """Ask for the place where the next click would help most; ``suggested`` tells it."""
        problem = self._problem()
        if problem is not None:
            self.failed(problem)
        elif not self.busy:
            self._suggestions.suggest()

    def segment_modified(self) -> None:
        """Look at the segment again; to be called whenever a segment was modified, added or removed.

        So clicks follow undo, redo and whatever other tools do.
        """
        if self._writing or self._segment is None:
            return
        if not self._segment.is_there:
            self._withdraw_all(self._segment.problem())
        self._committed = self._segment.readable_clicks()
        self._show()

    # One change after the other

    def _change(self, make: Callable[[ClickedSegment], Change]) -> None:
        try:
            if problem := self._problem():
                raise InputError(problem)
            change = make(self._segment)
            change.apply(self._shown)  # too many?
        except Exception as error:
            self._show(again=True)
            self.failed(str(explained(error)))
            return
        self._queue.append(change)
        self._show()
        self._next()

    def _replace(self, number: int, new: Callable[[ClickedSegment, StoredClick], StoredClick | None]) -> None:
        def change(segment: ClickedSegment) -> Change:
            if not 0 <= number < len(self._shown.clicks):
                raise InputError(_("There is no click with the number {number}.").format(number=number + 1))
            old = self._shown.clicks[number]
            return Change(Edit(replaced=((old, new(segment, old)),)))

        self._change(change)

    def _problem(self) -> str | None:
        if self._segment is None:
            return _("Choose a volume and a segment first.")
        if self.writer is None:
            return _("The segment cannot be written; choose the effect again.")
        return self._segment.problem()

    def _next(self) -> None:
        if self._running is None and self._queue:
            self._suggestions.make_way()
            self._running = self._queue.popleft()
            self._attempt(self._running)
        elif self._running is None:
            self.state_changed("")

    def _attempt(self, change: Change) -> None:
        """Ask about a change of the segment as it is now."""
        try:
            if problem := self._problem():
                raise InputError(problem)
            rebased = self.rebased()
            change.state, change.wanted = self._segment.state(), change.apply(rebased)
            if change.removes_from_nothing:
                raise InputError(_("There is nothing to remove yet; click on what belongs to the object first."))
            if change.needs_engine:
                change.pending = self.prepare(change.wanted, partial(self._ask, change), partial(self._fail, change))
            else:
                self._write(change, None)
        except Exception as error:  # a change that stays in the queue would block all further clicks
            self._fail(change, explained(error))

    def rebased(self) -> ClickList:
        """Return the stored clicks with a base of the present mask and the structure that is chosen.

        :raises VistaError: if there is a mask that cannot be used.
        """
        return self._with_structure(self._segment.rebased())

    def _with_structure(self, click_list: ClickList) -> ClickList:
        return click_list if click_list else replace(click_list, structure=self._first_structure())

    def _first_structure(self) -> int | None:
        """Return what the first click on the segment means."""
        if self._chosen is not None:
            return self._chosen[0]
        return self._segment.named_structure() if self._segment is not None and self._segment.is_there else None

    def prepare(self, click_list: ClickList | None, on_ready: OnPrepared, on_error: OnError) -> Pending:
        """Open the volume, hand over the base of a click list (if there is one), and tell the user of it."""
        if not self._asking.is_open(self._segment):
            self.state_changed(_("Getting ready…"))
        base = None if click_list is None or click_list.base_empty else click_list.base
        return self._asking.prepare(self._segment, base, on_ready, on_error, self._on_progress)

    def _on_progress(self, event: ProgressEvent) -> None:
        text = _("Getting ready: {stage}, {percent} %")
        self.state_changed(text.format(stage=event.stage, percent=round(100 * event.fraction)))

    def _ask(self, change: Change, session: str, base: ArrayRef | None) -> None:
        self.state_changed(_("Computing…"))
        callbacks = partial(self._on_answer, change), partial(self._fail, change)
        try:
            change.pending = self._asking.click(self._segment, change.wanted, session, base, *callbacks)
        except Exception as error:
            self._fail(change, explained(error))

    def _on_answer(self, change: Change, answer: ClickAnswer) -> None:
        try:
            patch = None if answer.patch is None else self._engine.take_array(answer.patch)
            if problem := self._problem():
                raise InputError(problem)
            if self._segment.state() != change.state:
                self._attempt(change)
                return
            self._write(change, answer, patch)
        except Exception as error:
            self._fail(change, explained(error))

    def _write(self, change: Change, answer: ClickAnswer | None, patch: np.ndarray | None = None) -> None:
        box = None if patch is None else answer.box
        touched = (False,) * len(change.wanted.clicks) if answer is None else tuple(answer.touched)
        self._writing = True
        try:
            self._segment.write(self.writer, replace(change.wanted, touched=touched), box, patch)
        except VistaError:
            raise
        except Exception as error:  # the writer is code of others; what it raises must not stop all further clicks
            log.exception("Writing failed")
            raise OutputError(_("The segment could not be changed; select it again and repeat the click.")) from error
        finally:
            self._writing = False
        self._committed, self._running = self._segment.readable_clicks(), None
        self._show()
        self.answered(change.waited_ms, 0.0 if answer is None else answer.engine_ms, touched)
        self._next()

    def _fail(self, change: Change, error: VistaError) -> None:
        if self._running is not change:
            return
        self._running, lost = None, 1
        if not isinstance(error, InputError) or isinstance(error, UnknownStructureError):
            lost += len(self._queue)
            self._queue.clear()  # the others would fail as well
        self._show(again=True)
        self.failed(_told(error, lost))
        self._asking.forget_lost(self._segment, error)
        self._next()

    def _drop_changes(self) -> bool:
        """Forget all changes that wait; return whether there were any."""
        changes = [one for one in (self._running, *self._queue) if one is not None]
        self._running = None
        self._queue.clear()
        for change in changes:
            if change.pending is not None:
                change.pending.drop()
        return bool(changes)

    def _withdraw_all(self, sentence: str) -> None:
        self._suggestions.stop()
        if self._drop_changes():
            self._show(again=True)
            self.state_changed("")
            self.failed(sentence)

    # What the user sees

    def _read_clicks(self) -> None:
        self._committed = ClickList()
        try:
            if self._segment is not None and self._segment.is_there:
                self._committed = self._segment.clicks()
        except InputError as error:
            self.failed(str(error))
        self._show(again=True)

    def _show(self, again: bool = False) -> None:
        """Tell what the clicks are, if that has changed.

        :param again: tell it anyhow, because somebody shows something else.
        """
        shown = self._with_structure(self._committed)
        for change in (self._running, *self._queue):
            shown = shown if change is None else change.apply(shown)
        changed, self._shown = shown != self._shown, shown
        if (changed or again) and not self._closed:
            self.clicks_changed(shown)


def _told(error: VistaError, lost: int) -> str:
    """Return why changes were not applied, in a sentence, and how many, unless it is clear.

    :param lost: how many.
    """
    if lost > 1:
        return _("{reason} {count} clicks were not applied; repeat them.").format(reason=error, count=lost)
    if isinstance(error, WorkerGoneError):
        return _("{reason} The click was not applied; repeat it.").format(reason=error)
    return str(error)
