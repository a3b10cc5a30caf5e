# SPDX-License-Identifier: Apache-2.0
"""The searchable, checkable tree of structures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from .ui import icon_size, load, plain_tip

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure

    from ..logic.structures import Group, StructureChoice

_INDEX = int(qt.Qt.UserRole) + 1
# The first branches repeat what is in others; they are always open and never searched.
_SHORTCUTS = ("favorites", "recent")
_STAR, _NO_STAR = "\N{BLACK STAR}", "\N{WHITE STAR}"
_STAR_WIDTH = 28


class StructureTree:
    """Shows what can be chosen, and tells the choice what was checked; the choice itself lives in the logic.

    :param choice: what can be chosen, and what is.
    :param on_in_view: called when the user wants what the slice views show.
    """

    def __init__(self, choice: StructureChoice, on_in_view: Callable[[], None] = lambda: None) -> None:
        self.widget, self.ui = load("StructureTree")
        self._choice, self._on_in_view, self._syncing = choice, on_in_view, False
        self._groups: dict[str, Group] = {}
        self._items: dict[str, dict[int, qt.QStandardItem]] = {}
        self._heads: dict[str, qt.QStandardItem] = {}
        self._model = qt.QStandardItemModel()
        self._model.connect("itemChanged(QStandardItem*)", self._on_item_changed)
        self._arrange()
        self._connect()
        choice.changed.connect(self.refresh)
        choice.listed.connect(self.rebuild)
        self.rebuild()

    def _arrange(self) -> None:
        view: qt.QTreeView = self.ui.treeView
        self._model.setColumnCount(2)
        view.setModel(self._model)
        header: qt.QHeaderView = view.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(_STAR_WIDTH)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        header.setSectionResizeMode(1, qt.QHeaderView.Fixed)
        view.setColumnWidth(1, _STAR_WIDTH)

    def _connect(self) -> None:
        self.ui.searchBox.connect("textChanged(QString)", lambda _text: self._filter())
        self.ui.searchBox.connect("returnPressed()", self._toggle_best)
        self.ui.treeView.connect("clicked(QModelIndex)", self._on_clicked)
        self.ui.everythingButton.connect("clicked(bool)", lambda _checked: self._choice.check_everything())
        self.ui.inViewButton.connect("clicked(bool)", lambda _checked: self._on_in_view())
        self.ui.clearButton.connect("clicked(bool)", lambda _checked: self._choice.clear())
        self._down = qt.QShortcut(qt.QKeySequence("Down"), self.ui.searchBox)
        self._down.setContext(qt.Qt.WidgetShortcut)
        self._down.connect("activated()", self._enter_list)

    def cleanup(self) -> None:
        """Listen to the choice no more."""
        self._choice.changed.disconnect(self.refresh)
        self._choice.listed.disconnect(self.rebuild)

    def begin(self, text: str = "") -> None:
        """Get ready for the user: nothing but ``text`` in the search box, which has the focus."""
        self.ui.searchBox.text = text
        self._filter()
        self.ui.searchBox.setFocus()

    # What is shown

    def rebuild(self) -> None:
        """Show the groups anew."""
        self._syncing = True
        self._model.removeRows(0, self._model.rowCount())
        self._groups = {group.key: group for group in self._choice.groups()}
        self._items, self._heads = {}, {}
        for group in self._groups.values():
            self._add_group(group)
        self._syncing = False
        self.refresh()
        self._filter()

    def _add_group(self, group: Group) -> None:
        head, reason = _checkable(group.title), self._choice.group_reason(group)
        head.setEnabled(reason is None)
        head.setToolTip(plain_tip(reason or ""))
        font = self.ui.treeView.font
        font.setBold(True)
        head.setFont(font)
        head.setColumnCount(2)
        self._model.appendRow(head)
        self._heads[group.key] = head
        self._items[group.key] = {one.index: self._add_structure(head, one) for one in group.structures}

    def _add_structure(self, head: qt.QStandardItem, structure: Structure) -> qt.QStandardItem:
        item = _checkable(self._choice.row(structure))
        item.setData(structure.index, _INDEX)
        item.setToolTip(plain_tip(self._choice.tooltip(structure)))
        item.setIcon(_swatch(structure.color, icon_size(self.widget) * 3 // 4))
        item.setEnabled(self._choice.reason(structure) is None)
        head.appendRow(item)
        star = self._star_of(item)
        self._model.setData(star, _NO_STAR)
        self._model.setData(star, _("Favorites are listed first."), qt.Qt.ToolTipRole)
        return item

    def _star_of(self, item: qt.QStandardItem) -> Any:
        """Return the place beside an item; the model makes what is there itself."""
        return self._model.index(item.row(), 1, item.parent().index())

    def refresh(self) -> None:
        """Bring check marks and stars up to date."""
        self._syncing = True
        states = {"none": qt.Qt.Unchecked, "some": qt.Qt.PartiallyChecked, "all": qt.Qt.Checked}
        for key, group in self._groups.items():
            for structure in group.structures:
                item = self._items[key][structure.index]
                item.setCheckState(qt.Qt.Checked if self._choice.is_checked(structure) else qt.Qt.Unchecked)
                star = _STAR if self._choice.is_favorite(structure) else _NO_STAR
                self._model.setData(self._star_of(item), star)
            self._heads[key].setCheckState(states[self._choice.state_of(group)])
        self._syncing = False

    def _filter(self) -> None:
        """Show what fits the search; without one everything, with the first groups open."""
        view: qt.QTreeView = self.ui.treeView
        text = self.ui.searchBox.text.strip()
        fitting = {one.index for one in self._choice.search(text)} if text else None
        for key, head in self._heads.items():
            shown = 0
            for index, item in self._items[key].items():
                hidden = fitting is not None and (index not in fitting or key in _SHORTCUTS)
                view.setRowHidden(item.row(), head.index(), hidden)
                shown += not hidden
            view.setRowHidden(head.row(), view.rootIndex(), not shown)
            view.setExpanded(head.index(), fitting is not None or key in _SHORTCUTS)
        note = self._choice.search_note(text)
        self.ui.noteLabel.text = note or ""
        self.ui.noteLabel.setVisible(note is not None)
        if fitting:
            self._make_current(self._best())

    def _best(self) -> int | None:
        found = self._choice.search(self.ui.searchBox.text.strip())
        return next((one.index for one in found if self._choice.reason(one) is None), None)

    def _make_current(self, index: int | None) -> None:
        for key, items in self._items.items():
            if index in items and key not in _SHORTCUTS:
                self.ui.treeView.setCurrentIndex(items[index].index())
                self.ui.treeView.scrollTo(items[index].index())

    # What the user does

    def _on_item_changed(self, item: qt.QStandardItem) -> None:
        if self._syncing:
            return
        on, index = item.checkState() == qt.Qt.Checked, _index_of(item)
        self._choice.check(list(self._shown_under(item)) if index is None else [index], on)
        self.refresh()  # also where the choice is as it was: what cannot be checked does not stay so

    def _shown_under(self, head: qt.QStandardItem) -> Iterator[int]:
        """Yield the structures of a group that the search leaves over."""
        for key, one in self._heads.items():
            if one.row() == head.row():
                for index, item in self._items[key].items():
                    if not self.ui.treeView.isRowHidden(item.row(), head.index()):
                        yield index

    def _on_clicked(self, index: Any) -> None:
        if index.column() == 1:
            self._choice.toggle_favorite(_index_of(self._model.itemFromIndex(index.sibling(index.row(), 0))))

    def _toggle_best(self) -> None:
        best = self._best() if self.ui.searchBox.text.strip() else None
        if best is not None:
            self._choice.check([best], best not in set(self._choice.checked))
            self.ui.searchBox.selectAll()

    def _enter_list(self) -> None:
        self.ui.treeView.setFocus()


def _index_of(item: qt.QStandardItem) -> int | None:
    """Return the index of an item's structure; None for a branch."""
    index = item.data(_INDEX)
    return None if index is None else int(index)


def _checkable(text: str) -> qt.QStandardItem:
    item = qt.QStandardItem(text)
    item.setCheckable(True)
    item.setEditable(False)
    return item


def _swatch(color: tuple[int, int, int], side: int) -> qt.QIcon:
    pixmap = qt.QPixmap(side, side)
    pixmap.fill(qt.QColor(*color))
    return qt.QIcon(pixmap)
