# SPDX-License-Identifier: Apache-2.0
"""Undo of the last automatic run, whether or not the Segment Editor was ever opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer

from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from .observers import watch_scene
from .signals import Signal
from .stepping import Stepping

if TYPE_CHECKING:
    from ..mrml.undo import Change


class LastRun:
    """Keeps what the last run changed until the next one, until it is undone, or until its segmentation is gone.

    Slicer's own history cannot do this: it belongs to one editor and begins anew when that gets another segmentation.

    :param scene: that the segmentations are in.
    :param call_later: calls a function on the main thread after some seconds.
    :param writing: is emitted with the segmentation before it is changed.

    Signals: ``changed()`` when there is something to undo, or nothing any more; ``undone(segmentation node, or None if
    the run had made it and it was removed with its segments)``.
    """

    def __init__(
        self, scene: slicer.vtkMRMLScene, call_later: Callable[[float, Callable[[], None]], Any], writing: Signal
    ) -> None:
        self.changed, self.undone = Signal(), Signal()
        self._scene, self._call_later, self._writing = scene, call_later, writing
        self._change: Change | None = None
        self._packing: Stepping | None = None
        self._observers: list[int] = []

    @property
    def can_be_undone(self) -> bool:
        """Whether there is a run that can be undone."""
        return self._change is not None

    @property
    def segmentation(self) -> slicer.vtkMRMLSegmentationNode | None:
        """What the last run wrote into, if that can be undone."""
        return None if self._change is None else self._change.segmentation_node

    def keep(self, change: Change) -> None:
        """Keep what a run has changed; the run before it cannot be undone any more."""
        self._let_go()
        self._change = change
        self._observe()
        self._packing = Stepping(change.pack(), self._call_later, _nothing, _nothing)
        self.changed()

    def changed_since(self) -> list[str]:
        """Return the names of its segments that were edited, clicked on or deleted since the run."""
        return [] if self._change is None else self._change.changed_since()

    def undo(self, discard_changes: bool = False) -> None:
        """Bring the segments of the last run back as they were, and remove those that it added.

        :param discard_changes: undo, too, what was changed in these segments since the run.
        :raises InputError: if there is no run to undo, it cannot be undone, or segments were changed since and that is
            not to be discarded; then nothing has changed.
        """
        if self._change is None:
            raise InputError(_("There is no run to undo."))
        names = [] if discard_changes else self.changed_since()
        if names:
            sentence = _("Changed since the run: {names}; discard these changes to undo the run.")
            raise InputError(sentence.format(names=", ".join(names)))
        change, node = self._change, self._change.segmentation_node
        self._writing(node)
        change.undo()
        self._let_go()
        gone = change.made_node and not node.GetSegmentation().GetNumberOfSegments()
        if gone:
            self._scene.RemoveNode(node)
        self.changed()
        self.undone(None if gone else node)

    def forget(self) -> None:
        """Keep nothing any more."""
        if self._change is not None:
            self._let_go()
            self.changed()

    def _let_go(self) -> None:
        self._change, packing = None, self._packing
        self._packing = None
        if packing is not None:
            packing.drop()
        for observer in self._observers:
            self._scene.RemoveObserver(observer)
        self._observers.clear()

    def _observe(self) -> None:
        self._observers = watch_scene(self._scene, self._on_removed, self.forget)

    def _on_removed(self, node: Any) -> None:
        if node is self.segmentation:
            self.forget()


def _nothing(_answer: Any) -> None:
    """Nobody waits for what is kept to be packed."""
