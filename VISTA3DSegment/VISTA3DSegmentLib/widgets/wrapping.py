# SPDX-License-Identifier: Apache-2.0
"""Labels of several lines that are never cut, whatever they are in."""

from __future__ import annotations

from typing import Any

import qt


class Wrapping(qt.QObject):
    """Gives labels the height that their text needs at their width.

    Qt asks layouts for it, but not all that is between a label and the window passes the question on.
    """

    def __init__(self, *arguments: Any) -> None:
        qt.QObject.__init__(self, *arguments)

    def watch(self, label: qt.QLabel) -> None:
        """Follow the width of a label; when its text changes, :meth:`fit` is to be called."""
        label.installEventFilter(self)

    def fit(self, label: qt.QLabel) -> None:
        """Make a label as high as its text needs."""
        label.setMinimumHeight(max(label.heightForWidth(label.width), 0))

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """See Qt: true would keep the event from the label."""
        if event.type() == qt.QEvent.Resize:
            self.fit(watched)
        return False
