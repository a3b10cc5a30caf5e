# SPDX-License-Identifier: Apache-2.0
"""The Segment Editor inside the module, with our effect chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import qt
import slicer

from ..logic.editing import is_idle, segment_to_select
from ..logic.signals import Signal
from ..mrml.parking import parked
from .ui import load

EFFECT = "VISTA3D"
_SINGLETON = "SegmentEditor"
# Ours and those that one corrects by hand with come first; all others follow.
_ORDER = (EFFECT, "Paint", "Erase", "Scissors", "Islands", "Smoothing", "Threshold")


class RefinePanel:
    """Shares its node, and so all choices, with the Segment Editor module.

    Outside of the module it does nothing: keys, view observations and the active effect are given back by
    :meth:`exit`, and the node is exchanged for one of its own, since two editors on one node would both edit.

    The editor's own selectors are hidden: it edits what is chosen in the panel. If a script or another editor chooses
    another segmentation for the shared node, ``segmentation_chosen(node)`` tells it, so that the panel follows.

    :ivar widget: to be put into the module's panel.
    """

    def __init__(self) -> None:
        self.segmentation_chosen = Signal()
        self.widget, self.ui = load("RefinePanel")
        self.editor = self.ui.editor
        self.editor.setEffectNameOrder(_ORDER)
        self.editor.setSegmentationNodeSelectorVisible(False)
        self.editor.setSourceVolumeNodeSelectorVisible(False)
        self.editor.setSpecifyGeometryButtonVisible(False)
        self.editor.connect("segmentationNodeChanged(vtkMRMLSegmentationNode*)", self._on_segmentation)
        self.editor.connect("currentSegmentIDChanged(QString)", self._on_segment)
        self._scene: slicer.vtkMRMLScene | None = None
        self._entered = self._showing = self._waiting = False
        self._factory = slicer.qSlicerSegmentEditorEffectFactory.instance()
        self._factory.connect("effectRegistered(QString)", self._update_effects)

    @property
    def least_width(self) -> int:
        """How wide a section with it must be, pixels."""
        style = self.widget.style()
        margins = (style.pixelMetric(one) for one in (qt.QStyle.PM_LayoutLeftMargin, qt.QStyle.PM_LayoutRightMargin))
        return self.widget.minimumSizeHint.width() + sum(margins)

    def set_scene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Work on a scene."""
        self._scene = scene
        if self._entered:
            self._select_node()

    def enter(self) -> None:
        """The module is shown."""
        self._entered = True
        self.editor.installKeyboardShortcuts()
        self._select_node()

    def exit(self) -> None:
        """Another module is shown."""
        self._entered = False
        self.deactivate()
        self.editor.uninstallKeyboardShortcuts()
        self.editor.removeViewObservations()
        shared = self.editor.mrmlSegmentEditorNode()
        if shared is not None:
            self.editor.setMRMLSegmentEditorNode(parked(shared))

    def scene_closing(self) -> None:
        """The scene is about to be closed."""
        self.deactivate()
        self.editor.setSegmentationNode(None)
        self.editor.removeViewObservations()
        self.editor.setMRMLSegmentEditorNode(None)

    def scene_closed(self) -> None:
        """The scene is empty, or another one was loaded."""
        if self._entered:
            self._select_node()

    def cleanup(self) -> None:
        """The panel is being deleted."""
        if self._entered:
            self.exit()
        self._factory.disconnect("effectRegistered(QString)", self._update_effects)
        self.editor.disconnect("segmentationNodeChanged(vtkMRMLSegmentationNode*)", self._on_segmentation)
        self.editor.disconnect("currentSegmentIDChanged(QString)", self._on_segment)
        self.editor.setMRMLScene(None)

    def show_segmentation(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode | None,
        volume_node: slicer.vtkMRMLScalarVolumeNode | None,
    ) -> None:
        """Edit a segmentation of a volume; our effect stays active if it is."""
        if not self._entered:
            return
        node = self.editor.mrmlSegmentEditorNode()
        clicking = node is not None and node.GetActiveEffectName() == EFFECT
        with self._own_choice():
            self.editor.setSegmentationNode(segmentation_node)
            if segmentation_node is not None:  # without one, the editor takes no volume and logs an error
                self.editor.setSourceVolumeNode(volume_node)
        if clicking:
            self.activate()

    def keep_for_undo(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
        """Keep a segmentation's state, if it is the one in the editor, so that the next change can be undone."""
        if self._entered and self.editor.segmentationNode() is segmentation_node:
            self.editor.saveStateForUndo()

    def activate(self, preferred: Sequence[str] = ()) -> None:
        """Choose our effect, if no other effect is active, as soon as there is a segment to click on.

        :param preferred: ids of segments, one of which is selected if none is.
        """
        node = self.editor.mrmlSegmentEditorNode() if self._entered else None
        if node is None:
            return
        segment_id = segment_to_select(node, preferred)
        self._waiting = segment_id is None
        if segment_id is None:
            return
        if segment_id != node.GetSelectedSegmentID():
            self.editor.setCurrentSegmentID(segment_id)
        if is_idle(node):
            self.editor.setActiveEffectByName(EFFECT)

    def deactivate(self) -> None:
        """Choose no effect."""
        self._waiting = False
        if self.editor.mrmlSegmentEditorNode() is not None:
            self.editor.setActiveEffect(None)

    def _select_node(self) -> None:
        """Share the Segment Editor's node, which is made if there is none."""
        if self._scene is None:
            return
        node = self._scene.GetSingletonNode(_SINGLETON, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag(_SINGLETON)
            node = self._scene.AddNode(node)
        with self._own_choice():
            # The node first, so that what the editor chooses by itself is kept in it.
            self.editor.setMRMLSegmentEditorNode(node)
            self.editor.setMRMLScene(self._scene)
            self.editor.updateWidgetFromMRML()

    @contextmanager
    def _own_choice(self) -> Iterator[None]:
        """Tell nothing of what the panel itself chooses in the editor."""
        former, self._showing = self._showing, True
        try:
            yield
        finally:
            self._showing = former

    def _on_segmentation(self, segmentation_node: slicer.vtkMRMLSegmentationNode | None) -> None:
        if self._entered and not self._showing and segmentation_node is not None:
            self.segmentation_chosen(segmentation_node)

    def _on_segment(self, _segment_id: str) -> None:
        if self._waiting:
            qt.QTimer.singleShot(0, self._activate_if_waiting)  # once the editor has selected the segment

    def _activate_if_waiting(self) -> None:
        if self._waiting:
            self.activate()

    def _update_effects(self, *_args: object) -> None:
        self.editor.updateEffectList()
