# SPDX-License-Identifier: Apache-2.0
"""Questions that need an answer. They wait without stopping anything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import qt
from slicer.i18n import tr as _

_LICENCE_SIZE = (560, 480)


def ask(parent: qt.QWidget, title: str, question: str, agree: str, on_agreed: Callable[[], None]) -> qt.QMessageBox:
    """Ask a question, and call ``on_agreed`` if the answer is yes.

    :param agree: the text of the button that agrees.
    """
    return ask_which(parent, title, question, [(agree, on_agreed)])


def ask_which(
    parent: qt.QWidget, title: str, question: str, answers: Sequence[tuple[str, Callable[[], None]]]
) -> qt.QMessageBox:
    """Ask a question, and call the function of the answer; *Cancel* calls none.

    :param answers: texts of the buttons, the safe one first, and what each of them does.
    """
    dialog = qt.QMessageBox(parent)
    dialog.setAttribute(qt.Qt.WA_DeleteOnClose)
    dialog.setIcon(qt.QMessageBox.Question)
    dialog.windowTitle = title
    dialog.setTextFormat(qt.Qt.PlainText)  # names are given by the user
    dialog.setText(question)
    for text, function in answers:
        _call_on_click(dialog.addButton(text, qt.QMessageBox.AcceptRole), function)
    dialog.addButton(qt.QMessageBox.Cancel)
    dialog.open()
    return dialog


def _call_on_click(button: qt.QPushButton, function: Callable[[], None]) -> None:
    button.connect("clicked(bool)", lambda _checked: function())


def ask_licence(parent: qt.QWidget, title: str, text: str, address: str, on_agreed: Callable[[], None]) -> qt.QDialog:
    """Show a license, and call ``on_agreed`` once it was accepted.

    :param address: of the page about the license.
    """
    dialog = qt.QDialog(parent)
    dialog.setAttribute(qt.Qt.WA_DeleteOnClose)
    dialog.windowTitle = _("License of the model")
    head = qt.QLabel(f'<b>{escape(title)}</b><br><a href="{escape(address)}">{escape(address)}</a>')
    head.wordWrap = True
    head.openExternalLinks = True
    words = qt.QPlainTextEdit()
    words.setPlainText(text)
    words.setReadOnly(True)
    accepted = qt.QCheckBox(_("I have read the license and accept it"))
    buttons = qt.QDialogButtonBox()
    agree = buttons.addButton(_("Continue"), qt.QDialogButtonBox.AcceptRole)
    buttons.addButton(qt.QDialogButtonBox.Cancel)
    agree.setEnabled(False)
    accepted.connect("toggled(bool)", agree.setEnabled)
    buttons.connect("accepted()", dialog.accept)
    buttons.connect("rejected()", dialog.reject)
    dialog.connect("accepted()", on_agreed)
    layout = qt.QVBoxLayout(dialog)
    for widget in (head, words, accepted, buttons):
        layout.addWidget(widget)
    dialog.resize(*_LICENCE_SIZE)
    dialog.open()
    return dialog
