# SPDX-License-Identifier: Apache-2.0
"""The drop-down that opens the tree of structures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt

from .structure_tree import StructureTree

if TYPE_CHECKING:
    from ..logic.structures import StructureChoice

_SMALLEST_WIDTH = 300
_HEIGHT = 460


class _Opener(qt.QObject):
    """Opens something else where a combo box would open its own list."""

    def __init__(self, *arguments: Any) -> None:
        qt.QObject.__init__(self, *arguments)
        self.on_open: Callable[[str], None] | None = None

    def eventFilter(self, _watched: Any, event: Any) -> bool:
        """See Qt: true keeps the event from the combo box."""
        if self.on_open is None:
            return False
        kind = event.type()
        if kind in (qt.QEvent.MouseButtonPress, qt.QEvent.MouseButtonDblClick):
            if event.button() == qt.Qt.LeftButton:
                self.on_open("")
                return True
        elif kind == qt.QEvent.KeyPress:
            return self._on_key(event)
        return kind == qt.QEvent.Wheel

    def _on_key(self, event: Any) -> bool:
        if event.key() in (qt.Qt.Key_Space, qt.Qt.Key_Return, qt.Qt.Key_Enter, qt.Qt.Key_Down, qt.Qt.Key_F4):
            self.on_open("")
            return True
        typed = event.text()
        if typed.isprintable() and typed.strip():
            self.on_open(typed)
            return True
        return False


class StructureSelector:
    """A combo box that says what is chosen, and opens the tree below it.

    :param box: the combo box.
    :param choice: what can be chosen, and what is.
    :param on_in_view: called when the user wants what the slice views show.
    """

    def __init__(self, box: qt.QComboBox, choice: StructureChoice, on_in_view: Callable[[], None]) -> None:
        self._box, self._choice = box, choice
        self.tree = StructureTree(choice, on_in_view)
        popup = self.tree.widget
        popup.setParent(box.parentWidget())
        popup.setWindowFlags(qt.Qt.Popup)
        popup.setAttribute(qt.Qt.WA_NoMouseReplay)  # the click on the box that closes the list does not open it again
        popup.hide()
        self._opener = _Opener()
        self._opener.on_open = self.open
        box.installEventFilter(self._opener)
        choice.changed.connect(self.refresh)
        self.refresh()

    def cleanup(self) -> None:
        """Leave nothing behind."""
        self._opener.on_open = None
        self._box.removeEventFilter(self._opener)
        self._choice.changed.disconnect(self.refresh)
        self.tree.cleanup()
        self.tree.widget.deleteLater()

    def refresh(self) -> None:
        """Say what is chosen."""
        blocked = self._box.blockSignals(True)
        self._box.clear()
        self._box.addItem(self._choice.summary())
        self._box.blockSignals(blocked)

    def open(self, text: str = "") -> None:
        """Open the tree below the box, or above it where there is more room.

        :param text: what was typed already.
        """
        popup = self.tree.widget
        popup.resize(max(self._box.width, _SMALLEST_WIDTH), _HEIGHT)
        popup.move(self._place())
        popup.show()
        self.tree.begin(text)

    def _place(self) -> qt.QPoint:
        window = self._box.window()
        below = self._box.mapToGlobal(qt.QPoint(0, self._box.height))
        bottom = window.mapToGlobal(qt.QPoint(0, window.height)).y()
        if below.y() + _HEIGHT <= bottom:
            return below
        above = self._box.mapToGlobal(qt.QPoint(0, -_HEIGHT))
        return above if above.y() >= window.mapToGlobal(qt.QPoint(0, 0)).y() else below
