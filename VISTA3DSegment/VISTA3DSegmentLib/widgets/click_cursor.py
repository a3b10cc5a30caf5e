# SPDX-License-Identifier: Apache-2.0
"""The mouse pointer in the views: a cross with a green plus or a red minus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import qt
import slicer

from .icons import icon_path

_HOT_SPOT = 11


class ClickCursor:
    """Shows what the next click does, in all views of the present layout."""

    def __init__(self) -> None:
        self._views: list[Any] = []

    @staticmethod
    def cursor(positive: bool) -> qt.QCursor:
        """Return the pointer of a polarity."""
        return qt.QCursor(
            qt.QPixmap(icon_path("CursorPositive" if positive else "CursorNegative")), _HOT_SPOT, _HOT_SPOT
        )

    def show(self, positive: bool) -> None:
        """Use the pointer in the views that there are now, and give all others back."""
        self.restore()
        cursor = self.cursor(positive)
        for view in _views():
            view.setViewCursor(cursor)
            view.setDefaultViewCursor(cursor)
            self._views.append(view)

    def restore(self) -> None:
        """Give the views their own pointer back."""
        views, self._views = self._views, []
        for view in views:
            view.setViewCursor(qt.QCursor())
            view.setDefaultViewCursor(qt.QCursor())

    def forget(self) -> None:
        """Touch the views no more, because they are being deleted."""
        self._views = []


def _views() -> Iterator[Any]:
    layout = slicer.app.layoutManager()
    if layout is None:
        return
    for name in layout.sliceViewNames():
        yield layout.sliceWidget(name).sliceView()
    for number in range(layout.threeDViewCount):
        yield layout.threeDWidget(number).threeDView()
