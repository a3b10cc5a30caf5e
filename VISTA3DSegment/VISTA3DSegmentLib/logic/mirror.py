# SPDX-License-Identifier: Apache-2.0
"""Keeps the control points in the views and the clicks of a refinement the same, in both directions."""

from __future__ import annotations

import slicer

from ..mrml.clicks import ClickList
from ..mrml.markups import ClickMarkups
from .refinement import Refinement


class ClickMirror:
    """Shows the clicks of a refinement while it is on; dragging or deleting a control point changes the click.

    :param refinement: whose clicks are shown.
    """

    def __init__(self, refinement: Refinement) -> None:
        self._refinement = refinement
        self._markups: ClickMarkups | None = None
        self._node: slicer.vtkMRMLSegmentationNode | None = None
        self._on, self._locked = False, True

    @property
    def markups(self) -> ClickMarkups | None:
        """What shows the clicks; None while there are none or the mirror is off."""
        return self._markups

    @property
    def locked(self) -> bool:
        """Whether control points cannot be dragged."""
        return self._locked

    def show(self) -> None:
        """Show the clicks from now on."""
        self._on = True
        self._refinement.clicks_changed.connect(self._follow)
        self._follow(self._refinement.click_list)

    def hide(self) -> None:
        """Show nothing any more; no node and no observer stays."""
        self._on = False
        self._refinement.clicks_changed.disconnect(self._follow)
        self._close()

    def set_locked(self, locked: bool) -> None:
        """Choose whether control points can be dragged."""
        self._locked = locked
        if self._markups is not None:
            self._apply_lock()

    def _follow(self, click_list: ClickList) -> None:
        segment = self._refinement.segment
        node = None if segment is None else segment.segmentation_node
        if not click_list or node is not self._node:
            self._close()
        if click_list and node is not None and node.GetScene() is not None:
            if self._markups is None:
                self._node, self._markups = node, ClickMarkups(node.GetScene(), node, self._refinement.edit)
                self._apply_lock()
            self._markups.show(click_list)

    def _apply_lock(self) -> None:
        (self._markups.lock if self._locked else self._markups.unlock)()

    def _close(self) -> None:
        markups, self._markups, self._node = self._markups, None, None
        if markups is not None:
            markups.close()
