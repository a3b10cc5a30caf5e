# SPDX-License-Identifier: Apache-2.0
"""One sentence in the panel, where others would open a window."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import qt
from slicer.i18n import tr as _

from .ui import icon_size
from .wrapping import Wrapping


class MessageBar:
    """A frame with an icon, a sentence that may have links, and a button that closes it; hidden while there is none.

    :param on_link: gets the address of a link that was clicked.
    """

    def __init__(self, on_link: Callable[[str], None] = lambda _address: None) -> None:
        self._icons = {
            "note": qt.QStyle.SP_MessageBoxInformation,
            "warning": qt.QStyle.SP_MessageBoxWarning,
            "error": qt.QStyle.SP_MessageBoxCritical,
        }
        self.widget = qt.QFrame()
        self.widget.setFrameShape(qt.QFrame.StyledPanel)
        self._icon, self._label, self._close = qt.QLabel(), qt.QLabel(), qt.QToolButton()
        self._label.wordWrap = True
        self._label.setTextFormat(qt.Qt.RichText)
        self._label.setTextInteractionFlags(qt.Qt.TextBrowserInteraction)
        self._label.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Preferred)
        self._label.connect("linkActivated(QString)", on_link)
        self._close.autoRaise = True
        self._close.text = "\N{MULTIPLICATION SIGN}"
        self._close.toolTip = _("Dismiss")
        self._close.connect("clicked(bool)", lambda _checked: self.clear())
        self._wrapping = Wrapping()
        self._wrapping.watch(self._label)
        self._arrange()
        self.clear()

    def _arrange(self) -> None:
        layout = qt.QHBoxLayout(self.widget)
        layout.setContentsMargins(8, 6, 4, 6)
        layout.addWidget(self._icon, 0, qt.Qt.AlignTop)
        layout.addWidget(self._label, 1)
        layout.addWidget(self._close, 0, qt.Qt.AlignTop)

    @property
    def text(self) -> str:
        """The sentence; empty if there is none."""
        return self._text

    def show(self, sentence: str, kind: str = "error", link: tuple[str, str] | None = None, about: str = "") -> None:
        """Show a sentence instead of the present one.

        :param kind: ``note``, ``warning`` or ``error``.
        :param link: an address for ``on_link`` and its text, put after the sentence.
        :param about: what :meth:`settle` withdraws it by.
        """
        size = icon_size(self.widget)
        self._icon.setPixmap(self.widget.style().standardIcon(self._icons[kind]).pixmap(size, size))
        self._text, self._about = sentence, about
        self._label.text = escape(sentence) + (f' <a href="{link[0]}">{escape(link[1])}</a>' if link else "")
        self.widget.setVisible(True)
        self._wrapping.fit(self._label)

    def settle(self, about: str) -> None:
        """Withdraw the present sentence if it is about something that has gone well since."""
        if self._about == about:
            self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self._text = self._about = ""
        self.widget.setVisible(False)
