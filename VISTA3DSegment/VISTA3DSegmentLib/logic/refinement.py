# SPDX-License-Identifier: Apache-2.0
"""From clicks to a changed segment: asks the engine, one request at a time, and writes its answers as undo steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import slicer

from VISTA3DCore.anatomy.catalogue import Catalogue
from VISTA3DCore.errors import InputError, OutputError, UnknownStructureError, VistaError
from VISTA3DCore.worker.protocol import ClickParams, UnknownSessionError, WorkerGoneError

from ..i18n import tr as _
from ..mrml.clicks import ClickList, Edit, Position, StoredClick
from ..mrml.markups import positions_of
from .bases import Bases
from .clicked_segment import ClickedSegment, State
from .signals import Signal, log
from .suggestions import Suggestions

if TYPE_CHECKING:
    from VISTA3DCore.worker.client import ProgressEvent
    from VISTA3DCore.worker.protocol import ClickAnswer

    from ..mrml.writing import SegmentWriter
    from .engine import Engine, Pending
    from .volumes import OpenedVolumes


@dataclass(eq=False)
class _Task:
    """A change that the user asked for.

    :param structure: what is to be clicked from now on: None in the tuple is an object without a name; no tuple, as is.
    :param state: the segment as it was when the engine was asked.
    :param wanted: the clicks that the engine was asked about.
    """

    edit: Edit = field(default_factory=Edit)
    structure: tuple[int | None] | None = None
    started: float = field(default_factory=time.perf_counter)
    pending: Pending | None = None
    state: State | None = None
    wanted: ClickList = field(default_factory=ClickList)

    def apply(self, click_list: ClickList) -> ClickList:
        """Return the clicks as they are after the change."""
        changed = click_list.apply(self.edit)
        return changed if self.structure is None else replace(changed, structure=self.structure[0])


class Refinement:
    """Clicks on one segment at a time.

    Every change (a click, several that are taken over, a deletion ...) is one request and one undo step; changes wait
    for each other. A change shows in :attr:`click_list` at once, and in the segment and its tag when the engine has
    answered. If it fails, it is withdrawn and ``failed`` tells why, in one sentence; the segment is as it was.

    Signals: ``clicks_changed(ClickList)``; ``state_changed(text)``, empty when ready; ``answered(latency_ms, engine_ms,
    touched)``, touched telling of each click whether it added or removed something; ``failed(sentence)``;
    ``suggested(world_ras, positive, score)``.

    :param engine: the engine process. :param volumes: the volumes that are open in it.
    :ivar writer: writes into segments; without one nothing can be clicked.
    """

    def __init__(self, engine: Engine, volumes: OpenedVolumes) -> None:
        self.clicks_changed, self.state_changed = Signal(), Signal()
        self.answered, self.failed, self.suggested = Signal(), Signal(), Signal()
        self.writer: SegmentWriter | None = None
        self._engine, self._volumes, self._bases = engine, volumes, Bases()
        self._segment: ClickedSegment | None = None
        self._model, self._device = "", "auto"
        self._chosen: tuple[int | None] | None = None
        self._queue, self._task = deque[_Task](), None
        self._committed = self._shown = ClickList()
        self._writing = self._closed = False
        self._suggestions = Suggestions(engine, self)

    _task: _Task | None

    # What is clicked

    @property
    def segment(self) -> ClickedSegment | None:
        """The segment that clicks go to."""
        return self._segment

    @property
    def click_list(self) -> ClickList:
        """The clicks as the user sees them, with those that the engine has not answered yet."""
        return self._shown

    @property
    def busy(self) -> bool:
        """Whether a change waits for the engine."""
        return self._task is not None

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
        same = (model, device) == (self._model, self._device) and present is not None
        if same and present.is_same(segmentation_node, segment_id, volume_node, catalogue):
            return
        self._withdraw_all(_("A click was not applied, because something else was chosen before it was computed."))
        self._bases.release()
        self._model, self._device, self._chosen = model, device, None
        complete = None not in (segmentation_node, volume_node, catalogue) and segment_id
        self._segment = (
            ClickedSegment(segmentation_node, segment_id, volume_node, catalogue, self._bases) if complete else None
        )
        self._read_clicks()

    def close(self) -> None:
        """Withdraw what is not answered and delete the engine's file; no signal comes any more."""
        self._closed = True
        self._drop_tasks()
        self._suggestions.stop()
        self._bases.clear()
        self._segment = None

    def forget_masks(self) -> None:
        """Forget the masks from before clicks, because the scene was closed: present masks take their place."""
        self._bases.clear()

    # What the user does

    def add(self, world_ras: Position, positive: bool = True) -> None:
        """Place a click, world RAS mm."""
        self._change(lambda segment: _Task(Edit(added=(segment.stored_click(world_ras, positive),))))

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
            self._change(lambda _segment: _Task(edit))

    def take_over(self, fiducial_node: slicer.vtkMRMLMarkupsFiducialNode, positive: bool = True) -> None:
        """Make clicks of a point list's selected points, in one step; the point list stays as it is."""

        def task(segment: ClickedSegment) -> _Task:
            places = positions_of(fiducial_node)
            return _Task(Edit(added=tuple(segment.stored_click(place, positive) for place in places)))

        self._change(task)

    def set_structure(self, index: int | None) -> None:
        """Choose what is clicked, by its index in the label set; None: an object without a name."""
        if index == self.structure:
            return
        self._chosen = (index,)
        if self._shown:
            self._change(lambda _segment: _Task(structure=(index,)))

    def warm(self, world_ras: Position) -> None:
        """Let the engine prepare for a click at a place, if it has nothing else to do; failures stay silent."""
        if self._segment is not None and not self.busy and self._segment.problem() is None:
            self._suggestions.warm(self._open, world_ras)

    def suggest(self) -> None:
        """Ask for the place where the next click would help most; ``suggested`` tells it."""
        problem = self._problem()
        if problem is not None:
            self.failed(problem)
        elif not self.busy:
            self._suggestions.suggest(self._open)

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

    def _change(self, make: Callable[[ClickedSegment], _Task]) -> None:
        try:
            if problem := self._problem():
                raise InputError(problem)
            task = make(self._segment)
            task.apply(self._shown)  # too many?
        except VistaError as error:
            self._show(again=True)
            self.failed(str(error))
            return
        self._queue.append(task)
        self._show()
        self._next()

    def _replace(self, number: int, new: Callable[[ClickedSegment, StoredClick], StoredClick | None]) -> None:
        def task(segment: ClickedSegment) -> _Task:
            if not 0 <= number < len(self._shown.clicks):
                raise InputError(_("There is no click with the number {number}.").format(number=number + 1))
            old = self._shown.clicks[number]
            return _Task(Edit(replaced=((old, new(segment, old)),)))

        self._change(task)

    def _problem(self) -> str | None:
        if self._segment is None:
            return _("Choose a volume and a segment first.")
        if self.writer is None:
            return _("The segment cannot be written; choose the effect again.")
        return self._segment.problem()

    def _next(self) -> None:
        if self._task is None and self._queue:
            self._suggestions.make_way()
            self._task = self._queue.popleft()
            self._attempt(self._task)
        elif self._task is None:
            self.state_changed("")

    def _attempt(self, task: _Task) -> None:
        """Ask about a change of the segment as it is now."""
        try:
            if problem := self._problem():
                raise InputError(problem)
            rebased = self.rebased()
            task.state, task.wanted = self._segment.state(), task.apply(rebased)
            if _needs_engine(task):
                task.pending = self._open(partial(self._ask, task), partial(self._fail, task))
            else:
                self._write(task, None)
        except VistaError as error:
            self._fail(task, error)

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

    def _open(self, on_ready: Callable[[str], None], on_error: Callable[[VistaError], None]) -> Pending:
        node = self._segment.volume_node
        if self._volumes.session_of(node, self._model, self._device) is None:
            self.state_changed(_("Getting ready ..."))
        return self._volumes.use(node, self._model, self._device, on_ready, on_error, self._on_progress)

    def _on_progress(self, event: ProgressEvent) -> None:
        text = _("Getting ready: {stage}, {percent} %")
        self.state_changed(text.format(stage=event.stage, percent=round(100 * event.fraction)))

    def params(self, session: str, click_list: ClickList) -> dict:
        """Return what the engine is told of a click list.

        :raises VistaError: if the base cannot be handed over.
        """
        base = None if click_list.base_empty else self._bases.send(click_list.base, self._engine.shared)
        clicks = self._segment.world_clicks(click_list)
        return {"session": session, "structure": click_list.structure, "clicks": clicks, "base": base}

    def _ask(self, task: _Task, session: str) -> None:
        self.state_changed(_("Thinking ..."))
        try:
            params = ClickParams(**self.params(session, task.wanted), settled=task.wanted.settled)
        except VistaError as error:
            self._fail(task, error)
            return
        answered, failed = partial(self._on_answer, task), partial(self._fail, task)
        task.pending = self._engine.request("click", params, answered, failed)

    def _on_answer(self, task: _Task, answer: ClickAnswer) -> None:
        try:
            patch = None if answer.patch is None else self._engine.take_array(answer.patch)
            if problem := self._problem():
                raise InputError(problem)
            if self._segment.state() != task.state:
                self._attempt(task)
                return
            self._write(task, answer, patch)
        except VistaError as error:
            self._fail(task, error)

    def _write(self, task: _Task, answer: ClickAnswer | None, patch: object = None) -> None:
        box = None if patch is None else answer.box
        self._writing = True
        try:
            self._segment.write(self.writer, task.wanted, box, patch)
        except VistaError:
            raise
        except Exception as error:  # the writer is code of others; what it raises must not stop all further clicks
            log.exception("Writing failed")
            raise OutputError(_("The segment could not be changed; select it again and repeat the click.")) from error
        finally:
            self._writing = False
        self._committed, self._task = self._segment.readable_clicks(), None
        self._show()
        latency_ms = 1000 * (time.perf_counter() - task.started)
        touched = (False,) * len(task.wanted.clicks) if answer is None else answer.touched
        self.answered(latency_ms, 0.0 if answer is None else answer.engine_ms, touched)
        self._next()

    def _fail(self, task: _Task, error: VistaError) -> None:
        if self._task is not task:
            return
        self._task = None
        if not isinstance(error, InputError) or isinstance(error, UnknownStructureError):
            self._queue.clear()  # the others would fail as well
        self.check_session(error)
        self._show(again=True)
        self.failed(str(error))
        self._next()

    def check_session(self, error: VistaError) -> None:
        """Let the volume be opened anew if the engine has lost it."""
        if isinstance(error, (UnknownSessionError, WorkerGoneError)) and self._segment is not None:
            self._volumes.forget(self._segment.volume_node)

    def _drop_tasks(self) -> bool:
        """Forget all changes that wait; return whether there were any."""
        tasks = [one for one in (self._task, *self._queue) if one is not None]
        self._task = None
        self._queue.clear()
        for task in tasks:
            if task.pending is not None:
                task.pending.drop()
        return bool(tasks)

    def _withdraw_all(self, sentence: str) -> None:
        self._suggestions.stop()
        if self._drop_tasks():
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
        for task in (self._task, *self._queue):
            shown = shown if task is None else task.apply(shown)
        changed, self._shown = shown != self._shown, shown
        if (changed or again) and not self._closed:
            self.clicks_changed(shown)


def _needs_engine(task: _Task) -> bool:
    """Return whether a change can have another result than the base itself."""
    clicks = task.wanted.clicks
    emptied = task.wanted.base_empty and not any(click.positive for click in clicks) and not task.edit.added
    deleted_only = all(new is None for _, new in task.edit.replaced)
    return len(clicks) > task.wanted.settled and not (emptied and deleted_only)
