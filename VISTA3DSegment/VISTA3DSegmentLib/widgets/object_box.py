# SPDX-License-Identifier: Apache-2.0
"""A combo box with search: what is clicked."""

from __future__ import annotations

from collections.abc import Callable

import ctk
import qt
from slicer.i18n import tr as _

from VISTA3DCore.anatomy.catalogue import Catalogue

# Role of the words under which an entry is found.
_WORDS_ROLE = qt.Qt.UserRole + 1
_NO_NAME = -1


class ObjectBox:
    """Chooses a structure, or an object without a name, in an editable combo box.

    :param box: the combo box.
    :param on_chosen: gets the index in the label set, or None, when the user has chosen.
    """

    def __init__(self, box: ctk.ctkComboBox, on_chosen: Callable[[int | None], None]) -> None:
        self._box, self._on_chosen = box, on_chosen
        self._label_set: Catalogue | None = None
        box.scrollWheelEffect = ctk.ctkComboBox.NeverScroll  # scrolling the panel must not choose something else
        box.connect("activated(int)", self._activated)
        box.lineEdit().connect("returnPressed()", self._search)
        box.lineEdit().connect("editingFinished()", self._restore)

    def close(self) -> None:
        """Hear nothing of the user any more."""
        self._box.disconnect("activated(int)", self._activated)
        self._box.lineEdit().disconnect("returnPressed()", self._search)
        self._box.lineEdit().disconnect("editingFinished()", self._restore)

    def show(self, label_set: Catalogue, structure: int | None) -> None:
        """Show a structure of a label set, or None for an object without a name."""
        if label_set is not self._label_set:
            self._fill(label_set)
        place = self._box.findData(_NO_NAME if structure is None else structure)
        self._box.setCurrentIndex(max(place, 0))

    def _fill(self, label_set: Catalogue) -> None:
        self._label_set = label_set
        self._box.clear()
        self._box.addItem(_("New object (unnamed)"), _NO_NAME)
        self._box.setItemData(0, _("New object lesion tumor cyst"), _WORDS_ROLE)
        for structure in sorted(label_set, key=lambda one: one.display_name.lower()):
            if structure.supported:
                self._box.addItem(structure.display_name, structure.index)
                words = " ".join((structure.display_name, *structure.synonyms, *structure.keywords))
                self._box.setItemData(self._box.count - 1, words, _WORDS_ROLE)
        self._complete()

    def _complete(self) -> None:
        """Search in the middle of names and in synonyms as well."""
        completer = self._box.completer()
        completer.setFilterMode(qt.Qt.MatchContains)
        completer.setCaseSensitivity(qt.Qt.CaseInsensitive)
        completer.setCompletionMode(qt.QCompleter.PopupCompletion)
        completer.setCompletionRole(_WORDS_ROLE)
        completer.setMaxVisibleItems(15)

    def _activated(self, place: int) -> None:
        value = self._box.itemData(place)
        self._restore()
        self._box.clearFocus()  # the keys of the effect shall not be typed into it
        if value is not None:
            self._on_chosen(None if int(value) == _NO_NAME else int(value))

    def _search(self) -> None:
        """Choose what fits best to what was typed."""
        text = self._box.currentText.strip()
        if not text or self._box.findText(text) >= 0:
            return
        found = self._label_set.search(text) if self._label_set is not None else []
        if found:
            self.show(self._label_set, found[0].index)
            self._box.clearFocus()
            self._on_chosen(found[0].index)

    def _restore(self) -> None:
        self._box.setEditText(self._box.itemText(self._box.currentIndex))
