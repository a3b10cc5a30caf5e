# SPDX-License-Identifier: Apache-2.0
"""The chosen structures as words that are removed by a click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import qt

_LINE_HEIGHT = 125


class ChosenLabel:
    """Writes names into a label; a text wraps by itself, which a row of buttons does not.

    :param label: where to write.
    :param on_removed: gets the index of a structure that was clicked.
    """

    def __init__(self, label: qt.QLabel, on_removed: Callable[[int], None]) -> None:
        self._label = label
        label.connect("linkActivated(QString)", lambda address: on_removed(int(address)))

    def show(self, structures: Sequence[tuple[int, str]]) -> None:
        """Show structures by index and name; without any the label takes no room."""
        palette = self._label.palette
        colors = palette.color(qt.QPalette.Text).name(), palette.color(qt.QPalette.Base).name()
        words = " ".join(_word(index, name, colors) for index, name in structures)
        self._label.text = f'<p style="line-height:{_LINE_HEIGHT}%; margin:0">{words}</p>'
        self._label.setVisible(bool(structures))


def _word(index: int, name: str, colors: tuple[str, str]) -> str:
    """Return a link in the colors of a text field that is never broken over two lines."""
    text = escape(f" {name} \N{MULTIPLICATION SIGN} ").replace(" ", "&nbsp;").replace("-", "&#8209;")
    style = f"text-decoration:none; color:{colors[0]}; background-color:{colors[1]}"
    return f'<a href="{index}" style="{style}">{text}</a>'
