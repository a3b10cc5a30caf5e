# SPDX-License-Identifier: Apache-2.0
"""Which part of the volume is segmented: all of it, a box, or what a slice view shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..parameters import ROI_NODE, SLICE_VIEW, WHOLE_VOLUME
from .ui import chosen, fill, show_row

Region = tuple[float, float, float, float, float, float]


class RegionRow:
    """A combo box, and beside it what the choice needs: a box of the scene or a slice view.

    :param ui: has ``volumeSelector``, ``regionSelector``, ``roiSelector`` and ``viewSelector``.
    :param on_changed: called when another part is chosen.
    """

    def __init__(self, ui: Any, on_changed: Callable[[], None]) -> None:
        self._kinds: qt.QComboBox = ui.regionSelector
        self._roi: slicer.qMRMLNodeComboBox = ui.roiSelector
        self._views: qt.QComboBox = ui.viewSelector
        self._volumes: slicer.qMRMLNodeComboBox = ui.volumeSelector
        self._on_changed = on_changed
        self._slice_node: Callable[[str], Any] = lambda _name: None
        fill(
            self._kinds,
            [
                (WHOLE_VOLUME, _("Whole volume")),
                (ROI_NODE, _("Box (ROI)")),
                (SLICE_VIEW, _("Field of view")),
            ],
        )
        self._kinds.connect("currentIndexChanged(int)", lambda _index: self._changed())
        self._roi.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._changed())
        self._roi.connect("nodeAddedByUser(vtkMRMLNode*)", self._on_box_made)
        self._views.connect("currentIndexChanged(int)", lambda _index: self._changed())

    def set_views(self, names: list[str], slice_node: Callable[[str], Any]) -> None:
        """Tell which slice views there are, and how to get the node of one."""
        self._slice_node = slice_node
        fill(self._views, [(name, _("{name} view").format(name=name)) for name in names])

    @property
    def kind(self) -> str:
        """One of the constants in ``parameters``."""
        return chosen(self._kinds)

    @property
    def view(self) -> str:
        """The name of the slice view."""
        return chosen(self._views)

    def slice_nodes(self) -> list[Any]:
        """Return the nodes of all slice views."""
        names = [str(self._views.itemData(row)) for row in range(self._views.count)]
        return [node for node in map(self._slice_node, names) if node is not None]

    def show(self, kind: str, view: str) -> None:
        """Choose as a scene has it stored."""
        for box, value in ((self._kinds, kind), (self._views, view)):
            index = box.findData(value)
            if index >= 0:
                box.setCurrentIndex(index)

    def whole_volume(self) -> None:
        """Choose all of the volume."""
        self.show(WHOLE_VOLUME, self.view)

    def problem(self) -> str | None:
        """Return what is missing, in a sentence."""
        if self.kind == ROI_NODE and self._roi.currentNode() is None:
            return _("Choose the box (ROI) to segment, or create one.")
        return None

    def region(self, volume: slicer.vtkMRMLScalarVolumeNode) -> Region | None:
        """Return the box in world coordinates (RAS mm: minimum, maximum); None stands for all of the volume.

        :raises InputError: if the box misses the volume.
        """
        from ..logic.regions import roi_box, view_box

        if self.kind == ROI_NODE and self._roi.currentNode() is not None:
            return roi_box(self._roi.currentNode(), volume)
        if self.kind == SLICE_VIEW and self._slice_node(self.view) is not None:
            return view_box([self._slice_node(self.view)], volume)
        return None

    def _on_box_made(self, roi_node: slicer.vtkMRMLMarkupsROINode) -> None:
        from ..logic.regions import place_box

        if self._volumes.currentNode() is not None:
            place_box(roi_node, self._volumes.currentNode())

    def _changed(self) -> None:
        show_row(self.kind == ROI_NODE, self._roi)
        show_row(self.kind == SLICE_VIEW, self._views)
        self._on_changed()
