# SPDX-License-Identifier: Apache-2.0
"""What all widgets need: files of Qt's Designer, combo boxes with values, consent."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer

_FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "UI"


def load(name: str) -> tuple[qt.QWidget, Any]:
    """Return the widget in ``Resources/UI/<name>.ui``, and an object with its named widgets as attributes."""
    widget = slicer.util.loadUI(str(_FOLDER / f"{name}.ui"))
    return widget, slicer.util.childWidgetVariables(widget)


def fill(box: qt.QComboBox, choices: Iterable[tuple[str, str]], current: str | None = None) -> None:
    """Put ``(value, text)`` pairs into a combo box, and choose one, without telling its listeners.

    What was chosen stays chosen if ``current`` is None and the value is still there.
    """
    wanted = chosen(box) if current is None else current
    blocked = box.blockSignals(True)
    box.clear()
    for value, text in choices:
        box.addItem(text, value)
    box.setCurrentIndex(max(0, box.findData(wanted)))
    box.blockSignals(blocked)


def chosen(box: qt.QComboBox) -> str:
    """Return the value of a combo box's current item, or an empty string."""
    value = box.itemData(box.currentIndex)
    return "" if value is None else str(value)


def choose(box: qt.QComboBox, value: str) -> None:
    """Choose an item by its value, if there is one, without telling the combo box's listeners."""
    index = box.findData(value)
    if index >= 0 and index != box.currentIndex:
        blocked = box.blockSignals(True)
        box.setCurrentIndex(index)
        box.blockSignals(blocked)


def check(box: qt.QCheckBox, checked: bool) -> None:
    """Check or clear a check box without telling its listeners."""
    blocked = box.blockSignals(True)
    box.checked = checked
    box.blockSignals(blocked)


def show_row(shown: bool, *widgets: qt.QWidget) -> None:
    """Show or hide widgets that belong together, e.g. a label and its field."""
    for widget in widgets:
        widget.setVisible(shown)


def scroll_to(widget: qt.QWidget) -> None:
    """Bring a widget into the visible part of the panel that it is in."""
    area = widget.parentWidget()
    while area is not None and not area.inherits("QScrollArea"):
        area = area.parentWidget()
    if area is not None:
        area.ensureWidgetVisible(widget)


def plain_tip(text: str) -> str:
    """Return a tool tip that shows a text as it is, whatever marks of rich text are in it."""
    return "<qt>" + escape(text).replace("\n", "<br>") + "</qt>" if text else ""


def icon_size(widget: qt.QWidget) -> int:
    """Return the side of small icons in pixels."""
    return widget.style().pixelMetric(qt.QStyle.PM_SmallIconSize)
