# SPDX-License-Identifier: Apache-2.0
"""What the effect does while it is active: clicks follow the Segment Editor's choices, and points show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import slicer

from ..i18n import tr as _
from ..mrml.clicks import Position
from ..mrml.doubtful_mark import DoubtfulMark
from ..mrml.views import center_slices
from .choice import Choice
from .click_rows import ClickRow, rows_of
from .mirror import ClickMirror
from .observers import Observers
from .ownership import Ownership
from .preparation import Preparation
from .signals import Signal
from .trouble import EngineTrouble

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue

    from ..mrml.writing import SegmentWriter
    from .engine import Engine
    from .ownership import Owner
    from .refinement import Refinement
    from .volumes import OpenedVolumes

# A window that takes longer is not encoded on suspicion: a click elsewhere would have to wait for it.
_QUICK_MS = 3000.0


class ClickSession:
    """Clicks on the segment that is selected in a Segment Editor; one per application, used by one editor at a time.

    Signals: ``target_changed()``: another segment, or another structure is clicked; ``clicks_changed()``;
    ``polarity_changed()``; ``lock_changed()``; ``state_changed(text)``: what the engine does, empty when ready;
    ``answered(latency_ms, engine_ms)``; ``suggested(world_ras, positive)``; ``failed(sentence)``; ``succeeded()``:
    the last sentence is out of date.

    :param refinement, volumes, engine: see there.
    :param choice: tells the model and the device; asked whenever the segment or the volume changes.
    :param needed: says what is still to be installed before anything can be computed, in a sentence, or None.
    """

    def __init__(
        self,
        refinement: Refinement,
        volumes: OpenedVolumes,
        engine: Engine,
        choice: Callable[[], Choice],
        needed: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.target_changed, self.clicks_changed, self.polarity_changed = Signal(), Signal(), Signal()
        self.lock_changed, self.state_changed, self.answered = Signal(), Signal(), Signal()
        self.suggested, self.failed, self.succeeded = Signal(), Signal(), Signal()
        self._refinement, self._engine, self._choice = refinement, engine, choice
        self._preparation = Preparation(volumes, needed, self._tell_state, self.failed)
        self._mirror, self._mark = ClickMirror(refinement), DoubtfulMark()
        self._editor: slicer.vtkMRMLSegmentEditorNode | None = None
        self._ownership = Ownership(lambda: self.active)
        self._editor_observers, self._observers, self._scene_observers = Observers(), Observers(), Observers()
        self._slowest_ms: float | None = None
        self._positive, self._text, self._told = True, "", False
        self._trouble = EngineTrouble(engine, refinement.answered)
        self._followed: tuple | None = None
        self._target: tuple[int | None, str | None] = None, None

    # Used by one effect at a time

    @property
    def active(self) -> bool:
        """Whether an effect uses it."""
        return self._editor is not None

    def claim(self, owner: Owner) -> bool:
        """Return whether a copy of the effect may work: one that works elsewhere and is seen keeps the session."""
        return self._ownership.claim(owner)

    def release(self, owner: Owner) -> None:
        """End what a copy of the effect does; harmless if it is not the one that works."""
        if self._ownership.release(owner):
            self.end()

    def close(self) -> None:
        """Follow nothing any more, for good."""
        self._ownership.dissolve()
        self._trouble.close()
        self.end()
        self._scene_observers.clear()

    def begin(self, editor_node: slicer.vtkMRMLSegmentEditorNode, writer: SegmentWriter) -> None:
        """Follow a Segment Editor's choices, and prepare the engine for the first click."""
        self.end()
        self._editor, self._positive = editor_node, True
        self._refinement.writer = writer
        self._connect()
        self._editor_observers.add(editor_node, "ModifiedEvent", self.follow)
        self._scene_observers.clear()
        self._scene_observers.add(editor_node.GetScene(), slicer.vtkMRMLScene.StartCloseEvent, self._scene_closes)
        self.follow()
        if self._preparation.needed is None:
            self._engine.start()
        self._mirror.show()

    def end(self) -> None:
        """Follow nothing any more: no node, no observer and no request stays."""
        if self._editor is None:
            return
        self._editor = None
        self._editor_observers.clear()
        self._observers.clear()
        self._preparation.stop()
        self._mark.hide()
        self._mirror.hide()
        self._mirror.set_locked(True)
        self._refinement.set_target()
        self._refinement.writer = None
        self._disconnect()
        self._followed, self._text = None, ""

    def _scene_closes(self, *_args: object) -> None:
        """Forget what belongs to the scene, also if no effect is active."""
        self.end()
        self._refinement.forget_masks()

    # What is clicked

    @property
    def label_set(self) -> Catalogue:
        """The structures that can be chosen."""
        return self._choice().label_set

    @property
    def state(self) -> str:
        """What the engine does, for people; empty when it is ready."""
        return self._text

    @property
    def model(self) -> str:
        """The name of the model that answers."""
        return self._choice().model

    @property
    def structure(self) -> int | None:
        """Index of what is clicked; None for an object without a name."""
        return self._refinement.structure

    @property
    def structure_name(self) -> str | None:
        """Name of what is clicked, for people; None for an object without a name."""
        index = self.structure
        return None if index is None else self.label_set[index].display_name

    @property
    def clicked_name(self) -> str | None:
        """What to call that which is clicked: the structure, or else the segment; None if none is selected."""
        segment = self._refinement.segment
        name = None if segment is None or not segment.is_there else segment.name
        return self.structure_name or name

    @property
    def unready(self) -> str | None:
        """A sentence that says why the engine cannot answer, or None; the module's Setup is where to look."""
        return self._preparation.problem

    @property
    def problem(self) -> str | None:
        """A sentence that says why nothing can be clicked at present, or None."""
        if self._preparation.needed:
            return self._preparation.needed
        if self._editor is None or self._editor.GetSegmentationNode() is None:
            return _("Choose a segmentation first.")
        if not self._editor.GetSelectedSegmentID():
            return _("Select a segment, or add one, to click on it.")
        if self._editor.GetSourceVolumeNode() is None:
            return _("Choose a source volume first.")
        segment = self._refinement.segment
        return self.unready if segment is None else segment.problem() or self.unready

    def set_structure(self, index: int | None) -> None:
        """Choose what is clicked."""
        self._refinement.set_structure(index)
        self._tell_target()

    @property
    def positive(self) -> bool:
        """Whether the next click adds (without ``Ctrl``)."""
        return self._positive

    def set_positive(self, positive: bool) -> None:
        """Choose what the next click does."""
        if positive != self._positive:
            self._positive = positive
            self.polarity_changed()

    # Clicks

    @property
    def rows(self) -> list[ClickRow]:
        """The clicks, in the order in which they count."""
        return rows_of(self._refinement.segment, self._refinement.click_list)

    def click(self, world_ras: Position, opposite: bool = False) -> None:
        """Add a click, world RAS mm.

        :param opposite: of the other polarity than the present one.
        """
        self._mark.hide()
        if not self._refuse():
            self._refinement.add(world_ras, self._positive is not opposite)

    def delete(self, number: int) -> None:
        """Delete a click, counted from 0."""
        self._refinement.delete(number)

    def delete_all(self) -> None:
        """Delete all clicks; the segment is as before the first one."""
        self._refinement.delete_all()

    def flip(self, number: int) -> None:
        """Turn a positive click into a negative one, or the other way round."""
        if not self._refuse():
            self._refinement.flip(number)

    def take_over(self, fiducial_node: slicer.vtkMRMLMarkupsFiducialNode, positive: bool) -> None:
        """Make clicks of a point list's points."""
        if not self._refuse():
            self._refinement.take_over(fiducial_node, positive)

    def jump_to(self, number: int) -> None:
        """Let all slice views look at a click."""
        rows = self.rows
        if 0 <= number < len(rows):
            self._look_at(rows[number].position)

    @property
    def locked(self) -> bool:
        """Whether the points cannot be dragged."""
        return self._mirror.locked

    def set_locked(self, locked: bool) -> None:
        """Choose whether the points can be dragged."""
        self._mirror.set_locked(locked)
        self.lock_changed()

    # The engine

    def suggest(self) -> None:
        """Look for the place where the next click would help most, and let the views look at it."""
        if not self._refuse():
            self._refinement.suggest()

    def _refuse(self) -> bool:
        """Say what is to be installed first, if anything is."""
        needed = self._preparation.needed
        if needed is not None:
            self.failed(needed)
        return needed is not None

    def warm(self, world_ras: Position) -> None:
        """Let the engine prepare for a click at a place, world RAS mm, if that is quick."""
        info = self._engine.info
        on_processor = info is None or info.device == "cpu"
        if self._preparation.needed is not None:
            return
        known_quick = self._slowest_ms is not None and self._slowest_ms < _QUICK_MS
        if known_quick or (self._slowest_ms is None and not on_processor):
            self._refinement.warm(world_ras)

    # Following the editor

    def follow(self, *_args: object) -> None:
        """Let clicks go to what is chosen in the editor now."""
        node, volume = self._editor.GetSegmentationNode(), self._editor.GetSourceVolumeNode()
        identity = self._editor.GetSelectedSegmentID() or ""
        choice = self._choice()
        if (node, identity, volume, choice) == self._followed:
            return
        former, self._followed = self._followed, (node, identity, volume, choice)
        if former is not None and former[:2] != (node, identity):
            self.set_positive(True)  # another object begins with what belongs to it
        self._observe(node)
        self._mark.hide()
        self._refinement.set_target(node, identity, volume, choice.model, choice.device, choice.label_set)
        self.succeeded()
        self._tell_target()
        if former is None or former[2:] != self._followed[2:] or not self._preparation.running:
            self._preparation.start(self._refinement.segment, choice)

    def _observe(self, node: slicer.vtkMRMLSegmentationNode | None) -> None:
        self._observers.clear()
        if node is not None:
            events = slicer.vtkSegmentation
            for event in (events.SegmentModified, events.SegmentAdded, events.SegmentRemoved):
                self._observers.add(node, event, self._on_segment_modified)
            self._observers.add(node, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._tell_clicks)

    def _on_segment_modified(self, *_args: object) -> None:
        self._refinement.segment_modified()
        if (self.structure, self.clicked_name) != self._target:
            self._tell_target()

    def _tell_target(self) -> None:
        self._target = self.structure, self.clicked_name
        self.target_changed()

    def choice_changed(self) -> None:
        """Follow the choice of another model or device."""
        self._slowest_ms = None
        if self.active:
            self.follow()

    def setup_changed(self) -> None:
        """Something was installed, or is missing now."""
        if self.active and self._preparation.is_outdated():
            self._preparation.start(self._refinement.segment, self._choice())

    # What the refinement tells

    def _pairs(self) -> list[tuple[Signal, Callable[..., None]]]:
        refinement = self._refinement
        return [
            (refinement.clicks_changed, self._tell_clicks),
            (refinement.state_changed, self._state),
            (refinement.answered, self._on_answered),
            (refinement.failed, self._on_failed),
            (refinement.suggested, self._on_suggested),
            (self._trouble.began, self._on_reported),
            (self._trouble.ended, self.succeeded),
        ]

    def _connect(self) -> None:
        for signal, listener in self._pairs():
            signal.connect(listener)

    def _disconnect(self) -> None:
        for signal, listener in self._pairs():
            signal.disconnect(listener)

    def _state(self, text: str) -> None:
        if text or not self._preparation.running:
            self._tell_state(text)

    def _tell_state(self, text: str) -> None:
        self._text = text
        self.state_changed(text)

    def _tell_clicks(self, *_args: object) -> None:
        self.clicks_changed()

    def _on_answered(self, latency_ms: float, engine_ms: float, _touched: tuple[bool, ...]) -> None:
        self._slowest_ms = max(engine_ms, self._slowest_ms or 0.0)
        self._preparation.succeeded()
        self.succeeded()
        self.clicks_changed()
        self.answered(latency_ms, engine_ms)

    def _on_failed(self, sentence: str) -> None:
        """Tell that a click failed; if the engine's end is the cause, the engine tells the same in the same turn."""
        self._told = True
        self._engine.call_later(0.0, self._end_turn)
        self.failed(sentence)

    def _end_turn(self) -> None:
        self._told = False

    def _on_reported(self, sentence: str) -> None:
        if not self._told:
            self.failed(sentence)

    def _on_suggested(self, world_ras: Position, positive: bool, _score: float) -> None:
        if self._editor is None:
            return
        self._mark.show(self._editor.GetScene(), world_ras)
        self._look_at(world_ras)
        self.succeeded()
        self.suggested(world_ras, positive)

    def _look_at(self, world_ras: Position) -> None:
        scene = None if self._editor is None else self._editor.GetScene()
        if scene is not None:
            center_slices(scene, world_ras)
