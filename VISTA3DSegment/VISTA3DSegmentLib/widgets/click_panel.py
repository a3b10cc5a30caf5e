# SPDX-License-Identifier: Apache-2.0
"""The options of the effect: what is clicked, the clicks, and what the engine does."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from ..logic.wording import title_of
from .icons import icon
from .message import MessageBar
from .object_box import ObjectBox
from .setup_panel import open_setup
from .ui import load, plain_tip

if TYPE_CHECKING:
    from ..logic.click_rows import ClickRow
    from ..logic.click_session import ClickSession

_SETUP = "setup"


class ClickPanel:
    """Shows a session while it is connected to it.

    :ivar widget: to be put into the options of the effect.
    """

    def __init__(self) -> None:
        self.widget, self.ui = load("ClickPanel")
        self._session: ClickSession | None = None
        self._object = ObjectBox(self.ui.objectBox, self._choose_object)
        self._message = MessageBar(lambda _address: open_setup())
        self.widget.layout().insertWidget(1, self._message.widget)
        self._style()
        self._delete_key = qt.QShortcut(qt.QKeySequence("Del"), self.ui.clickTable)
        self._delete_key.setContext(qt.Qt.WidgetShortcut)
        self._connections = self._widget_signals()
        for sender, signal, slot in self._connections:
            sender.connect(signal, slot)
        self._update_buttons()

    def connect(self, session: ClickSession) -> None:
        """Show a session from now on."""
        self.disconnect()
        self._session = session
        for signal, listener in self._session_signals(session):
            signal.connect(listener)
        self.ui.pointsSelector.setMRMLScene(slicer.mrmlScene)
        self._message.clear()
        self._update()

    def disconnect(self) -> None:
        """Show nothing any more."""
        session, self._session = self._session, None
        if session is not None:
            for signal, listener in self._session_signals(session):
                signal.disconnect(listener)
        self.ui.pointsSelector.setMRMLScene(None)

    def close(self) -> None:
        """Let go of everything, because the widget is being deleted."""
        self.disconnect()
        self._object.close()
        connections, self._connections = self._connections, []
        for sender, signal, slot in connections:
            sender.disconnect(signal, slot)

    def _style(self) -> None:
        ui = self.ui
        ui.stateLabel.setTextFormat(qt.Qt.RichText)
        ui.positiveButton.setIcon(icon("ClickPositive"))
        ui.negativeButton.setIcon(icon("ClickNegative"))
        ui.takePositiveButton.setIcon(icon("ClickPositive"))
        ui.takeNegativeButton.setIcon(icon("ClickNegative"))
        ui.clickTable.verticalHeader().visible = False
        header = ui.clickTable.horizontalHeader()
        for column in (0, 1):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.Stretch)

    def _widget_signals(self) -> list[tuple[Any, str, Callable[..., None]]]:
        ui = self.ui
        return [
            (ui.positiveButton, "clicked(bool)", lambda *_a: self._tell("set_positive", True)),
            (ui.negativeButton, "clicked(bool)", lambda *_a: self._tell("set_positive", False)),
            (ui.suggestButton, "clicked(bool)", lambda *_a: self._tell("suggest")),
            (ui.unlockButton, "clicked(bool)", lambda on: self._tell("set_locked", not on)),
            (ui.jumpButton, "clicked(bool)", lambda *_a: self._with_selected("jump_to")),
            (ui.flipButton, "clicked(bool)", lambda *_a: self._with_selected("flip")),
            (ui.deleteButton, "clicked(bool)", lambda *_a: self._with_selected("delete")),
            (ui.deleteAllButton, "clicked(bool)", lambda *_a: self._tell("delete_all")),
            (ui.takePositiveButton, "clicked(bool)", lambda *_a: self._take_over(True)),
            (ui.takeNegativeButton, "clicked(bool)", lambda *_a: self._take_over(False)),
            (ui.pointsSelector, "currentNodeChanged(vtkMRMLNode*)", self._update_buttons),
            (ui.clickTable, "itemSelectionChanged()", self._update_buttons),
            (ui.clickTable, "cellDoubleClicked(int,int)", lambda row, _column: self._tell("jump_to", row)),
            (self._delete_key, "activated()", lambda: self._with_selected("delete")),
            (ui.stateLabel, "linkActivated(QString)", lambda _address: open_setup()),
        ]

    def _session_signals(self, session: ClickSession) -> list[tuple[Any, Callable[..., None]]]:
        return [
            (session.target_changed, self._update),
            (session.clicks_changed, self._show_clicks),
            (session.polarity_changed, self._show_polarity),
            (session.lock_changed, self._show_lock),
            (session.state_changed, self._show_state),
            (session.answered, self._show_latency),
            (session.suggested, self._show_suggestion),
            (session.failed, self._show_failure),
            (session.succeeded, self._message.clear),
        ]

    # What the user does

    def _tell(self, method: str, *arguments: Any) -> None:
        if self._session is not None:
            getattr(self._session, method)(*arguments)

    def _choose_object(self, index: int | None) -> None:
        self._tell("set_structure", index)

    def _selected(self) -> int:
        """Return the selected row, or -1."""
        rows = self.ui.clickTable.selectionModel().selectedRows()
        return rows[0].row() if rows else -1

    def _with_selected(self, method: str) -> None:
        row = self._selected()
        if row >= 0:
            self._tell(method, row)

    def _take_over(self, positive: bool) -> None:
        node = self.ui.pointsSelector.currentNode()
        if node is not None:
            self._tell("take_over", node, positive)

    # What the session tells

    def _update(self) -> None:
        self._show_clicks()
        self._show_polarity()
        self._show_lock()
        if self._session is not None:
            self.ui.latencyLabel.text = ""
            text = _("Model: {model} (chosen in the VISTA3D module).")
            self.ui.modelLabel.text = text.format(model=title_of(self._session.model))
            self._object.show(self._session.label_set, self._session.structure)

    def _show_polarity(self) -> None:
        positive = self._session is None or self._session.positive
        self.ui.positiveButton.checked = positive
        self.ui.negativeButton.checked = not positive
        self._show_state()

    def _show_lock(self) -> None:
        self.ui.unlockButton.checked = self._session is not None and not self._session.locked

    def _show_state(self, *_args: Any) -> None:
        self.ui.stateLabel.text = "" if self._session is None else _state(self._session)

    def _show_failure(self, sentence: str) -> None:
        unready = self._session is not None and self._session.unready is not None
        self._message.show(sentence, "error", (_SETUP, _("Open Setup")) if unready else None)

    def _show_latency(self, latency_ms: float, engine_ms: float) -> None:
        text = _("Last click: {total:.2f} s ({engine:.2f} s in the engine).")
        self.ui.latencyLabel.text = text.format(total=latency_ms / 1000, engine=engine_ms / 1000)

    def _show_suggestion(self, _world_ras: Any, _positive: bool) -> None:
        self.ui.latencyLabel.text = _(
            "The yellow point is the most doubtful place: add it if it belongs to the object, else remove it."
        )

    def _show_clicks(self) -> None:
        rows = [] if self._session is None else self._session.rows
        table, selected = self.ui.clickTable, self._selected()
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, item in enumerate(_items(row)):
                table.setItem(number, column, item)
        if rows and selected >= len(rows):
            table.selectRow(len(rows) - 1)
        self._update_buttons()
        self._show_state()

    def _update_buttons(self, *_args: Any) -> None:
        ui, selected = self.ui, self._selected() >= 0
        for button in (ui.jumpButton, ui.flipButton, ui.deleteButton):
            button.enabled = selected
        for button in (ui.deleteAllButton, ui.unlockButton):
            button.enabled = ui.clickTable.rowCount > 0
        has_points = ui.pointsSelector.currentNode() is not None
        ui.takePositiveButton.enabled = ui.takeNegativeButton.enabled = has_points


def _state(session: ClickSession) -> str:
    """Return what keeps clicks from being answered, with the way to mend it, or what a click does now; rich text."""
    if session.problem is None:
        return escape(session.state or _invitation(session))
    link = f' <a href="{_SETUP}">{_("Open Setup")}</a>' if session.problem == session.unready else ""
    return escape(session.problem) + link


def _invitation(session: ClickSession) -> str:
    """Return what a click does now."""
    name = session.clicked_name
    thing = f"'{name}'" if name else _("the object")
    if session.positive:
        return _("Ready: click what belongs to {object}, Ctrl+click what does not.").format(object=thing)
    return _("Ready: click what does not belong to {object}, Ctrl+click what does.").format(object=thing)


def _items(row: ClickRow) -> tuple[qt.QTableWidgetItem, ...]:
    kind = qt.QTableWidgetItem(_("Add") if row.positive else _("Remove"))
    kind.setIcon(icon("ClickPositive" if row.positive else "ClickNegative"))
    effect, tip = _effect(row)
    outcome = qt.QTableWidgetItem(effect)
    outcome.setToolTip(plain_tip(tip))
    return kind, qt.QTableWidgetItem("{:.1f}, {:.1f}, {:.1f}".format(*row.position)), outcome


def _effect(row: ClickRow) -> tuple[str, str]:
    """Return what a click did, and what that means."""
    if row.settled:
        return row.reason
    if row.outcome is None:
        return "", ""
    if row.outcome:
        return _("changed"), _("The click added or removed a part of the segment.")
    return _("no change"), _("The segment was already right there, or the model sees nothing to change.")
