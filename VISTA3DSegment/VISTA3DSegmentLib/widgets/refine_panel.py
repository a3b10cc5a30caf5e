# SPDX-License-Identifier: Apache-2.0
"""The Segment Editor inside the module, with our effect chosen."""

from __future__ import annotations

import slicer

from .ui import load

EFFECT = "VISTA3D"
_SINGLETON = "SegmentEditor"
# Ours and those that one corrects by hand with come first; all others follow.
_ORDER = (EFFECT, "Paint", "Erase", "Scissors", "Islands", "Smoothing", "Threshold")


class RefinePanel:
    """Shares its node, and so all choices, with the Segment Editor module.

    Outside of the module it does nothing: keys, view observations and the active effect are given back by
    :meth:`exit`, and the node is let go, since two editors on one node would both edit.

    :ivar widget: to be put into the module's panel.
    """

    def __init__(self) -> None:
        self.widget, self.ui = load("RefinePanel")
        self.editor = self.ui.editor
        self.editor.setEffectNameOrder(_ORDER)
        self._scene: slicer.vtkMRMLScene | None = None
        self._entered = False
        self._factory = slicer.qSlicerSegmentEditorEffectFactory.instance()
        self._factory.connect("effectRegistered(QString)", self._update_effects)

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
        self.editor.setMRMLSegmentEditorNode(None)

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
        self.editor.setMRMLScene(None)

    def show_segmentation(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode | None,
        volume_node: slicer.vtkMRMLScalarVolumeNode | None,
        segment_id: str | None = None,
    ) -> None:
        """Edit a segmentation of a volume, and select one of its segments."""
        if not self._entered:
            return
        self.editor.setSegmentationNode(segmentation_node)
        self.editor.setSourceVolumeNode(volume_node)
        if segment_id:
            self.editor.setCurrentSegmentID(segment_id)

    def keep_for_undo(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
        """Keep a segmentation's state, if it is the one in the editor, so that the next change can be undone."""
        if self._entered and self.editor.segmentationNode() is segmentation_node:
            self.editor.saveStateForUndo()

    def activate(self) -> None:
        """Choose our effect, if there is a segment to click on."""
        if self._entered and self.editor.mrmlSegmentEditorNode() is not None:
            self.editor.setActiveEffectByName(EFFECT)

    def deactivate(self) -> None:
        """Choose no effect."""
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
        # The node first, so that what the editor chooses by itself is kept in it.
        self.editor.setMRMLSegmentEditorNode(node)
        self.editor.setMRMLScene(self._scene)
        self.editor.updateWidgetFromMRML()

    def _update_effects(self, *_args: object) -> None:
        self.editor.updateEffectList()
