# SPDX-License-Identifier: Apache-2.0
"""What is known of a result while it is computed, as a segmentation that only the views show.

It is never saved, no tool offers it for editing, and it goes when the run ends, however that is.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import slicer

from VISTA3DCore.engine.protocol import arrays_in
from VISTA3DCore.errors import VistaError

from ..i18n import tr as _
from ..mrml.names import name_of
from ..mrml.results import write_in_steps
from ..mrml.segments import create_segmentation
from .stepping import Stepping

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue
    from VISTA3DCore.engine.protocol import PartialInfo

    from .engine import Engine

log = logging.getLogger("vista3d.slicer")


class Preview:
    """The segmentation of one run."""

    def __init__(self, engine: Engine, scene: slicer.vtkMRMLScene) -> None:
        self._engine, self._scene = engine, scene
        self.node: slicer.vtkMRMLSegmentationNode | None = None
        self._writing: Stepping | None = None

    def show(self, partial: PartialInfo, volume_node: slicer.vtkMRMLScalarVolumeNode, label_set: Catalogue) -> None:
        """Show what has arrived; it is let pass while the one before it is still being written."""
        if self._writing is not None and not self._writing.done:
            self._discard(partial)
            return
        try:
            labels, masks = self._engine.take_labels(partial)
            node = self._made(volume_node)
        except VistaError as error:
            self._on_error(error)
            return
        structures = [label_set[index] for index in partial.structures]
        steps = write_in_steps(node, volume_node, labels, masks, structures, {})
        self._writing = Stepping(steps, self._engine.call_later, lambda _ids: None, self._on_error)

    def remove(self) -> None:
        """Take it out of the scene."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.drop()
        node, self.node = self.node, None
        if node is not None and node.GetScene() is self._scene:
            self._scene.RemoveNode(node)

    def _made(self, volume_node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
        if self.node is None:
            name = _("{volume} (in progress)").format(volume=name_of(volume_node))
            self.node = create_segmentation(self._scene, volume_node, name)
            self.node.SetSaveWithScene(False)
            self.node.SetHideFromEditors(True)
            self.node.SetSelectable(False)
        return self.node

    def _on_error(self, error: VistaError) -> None:
        """The result itself will tell people, if it cannot be written either."""
        log.warning("A result in mid-run could not be shown: %s", error)

    def _discard(self, partial: PartialInfo) -> None:
        for ref in arrays_in(partial):
            self._engine.delete_array(ref)
