# SPDX-License-Identifier: Apache-2.0
"""The effect's keys in the main window, see :mod:`VISTA3DSegmentLib.logic.click_keys`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt

from ..logic.click_keys import KEYS


class ClickShortcuts:
    """Keys that exist from :meth:`install` to :meth:`remove`."""

    def __init__(self) -> None:
        self._shortcuts: list[tuple[qt.QShortcut, Callable[[], None]]] = []

    def install(self, parent: qt.QWidget | None, actions: Mapping[str, Callable[[], None]]) -> None:
        """Make the keys do something.

        :param parent: the window in which they work; without one there are none.
        :param actions: what each key of ``KEYS`` does.
        """
        self.remove()
        if parent is None:
            return
        for name, action in actions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(KEYS[name]), parent)
            shortcut.connect("activated()", action)
            # Another extension may have the same key for the whole window; ours is meant while the effect is active.
            shortcut.connect("activatedAmbiguously()", action)
            self._shortcuts.append((shortcut, action))

    def remove(self) -> None:
        """Remove the keys."""
        shortcuts, self._shortcuts = self._shortcuts, []
        for shortcut, action in shortcuts:
            shortcut.disconnect("activated()", action)
            shortcut.disconnect("activatedAmbiguously()", action)
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
