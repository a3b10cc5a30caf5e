# SPDX-License-Identifier: Apache-2.0
"""The models: which there are, where they come from, which are here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from ..logic.wording import short_title
from .dialogs import ask, ask_licence
from .run_controls import progress_in_words
from .ui import plain_tip, show_row

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import LicenceResult, ModelDetails

    from ..logic.models import ModelManager

_NAME = int(qt.Qt.UserRole) + 1
_STEPS = 1000
_FILES = "*.safetensors *.pt *.pth *.ckpt"


class ModelList:
    """A table of models and buttons for the chosen one.

    :param ui: the widgets of ``SetupPanel.ui``.
    :param manager: what does the work.
    """

    def __init__(self, ui: Any, manager: ModelManager) -> None:
        self._ui, self._manager = ui, manager
        self._tree: qt.QTreeWidget = ui.modelTree
        self._dialog: qt.QDialog | None = None
        self._tree.setHeaderLabels([_("Model"), _("Size"), _("State")])
        header: qt.QHeaderView = self._tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in (1, 2):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        self._tree.connect("itemSelectionChanged()", self._offer)
        actions: dict[str, Callable[[], None]] = {
            "downloadButton": self.download,
            "verifyButton": lambda: self._manager.verify(self.chosen.name),
            "deleteButton": self.delete,
            "importButton": self.import_file,
            "folderButton": self.open_folder,
            "cancelButton": self._manager.cancel,
        }
        for name, action in actions.items():
            button: qt.QPushButton = getattr(self._ui, name)
            button.connect("clicked(bool)", lambda _checked, action=action: action())
        self._manager.listed.connect(self.refresh)
        self._manager.busy_changed.connect(self._on_busy)
        self._manager.progressed.connect(self._on_progress)

    def cleanup(self) -> None:
        """Leave nothing behind; a download goes on."""
        self._manager.listed.disconnect(self.refresh)
        self._manager.busy_changed.disconnect(self._on_busy)
        self._manager.progressed.disconnect(self._on_progress)

    @property
    def chosen(self) -> ModelDetails | None:
        """The model whose row is selected."""
        item = self._tree.currentItem()
        name = None if item is None else item.data(0, _NAME)
        return next((one for one in self._manager.models if one.name == name), None)

    def refresh(self) -> None:
        """Show the models as they are."""
        former = None if self.chosen is None else self.chosen.name
        self._tree.clear()
        for model in self._manager.models:
            item = qt.QTreeWidgetItem()
            for column, text in enumerate((short_title(model.title), size_in_words(model), state_in_words(model))):
                item.setText(column, text)
                item.setToolTip(column, plain_tip(tooltip(model)))
            item.setData(0, _NAME, model.name)
            self._tree.addTopLevelItem(item)
            if former in (None, model.name):
                self._tree.setCurrentItem(item)
                former = former or model.name
        self._offer()

    def download(self) -> None:
        """Show the license of the chosen model; if it is accepted, fetch the weights."""
        name = self.chosen.name
        self._manager.licence(name, lambda text: self._ask(text, lambda: self._manager.download(name, True)))

    def delete(self) -> None:
        """Remove the chosen model after a question."""
        model = self.chosen
        question = _("Remove {title} from this computer? It can be downloaded again.").format(title=model.title)
        self._dialog = ask(
            self._tree, _("Delete model"), question, _("Delete"), lambda: self._manager.delete(model.name)
        )

    def import_file(self) -> None:
        """Let the user choose the weights file of the chosen model, and take it over once the license is accepted.

        The license's text is not fetched: this is for computers without a network.
        """
        title, kinds = _("Import a weights file"), _("Weights") + f" ({_FILES})"
        path = qt.QFileDialog.getOpenFileName(self._tree, title, "", kinds)
        model = self.chosen
        if not path or model is None:
            return
        words = _("{title} is published under this license: {licence}.\n\nIts text is at the address above.").format(
            title=model.title, licence=model.licence
        )
        self._dialog = ask_licence(
            self._tree,
            model.licence,
            words,
            model.licence_url,
            lambda: self._manager.import_file(path, model.name, True),
        )

    def open_folder(self) -> None:
        """Show the folder of the models in the system's file manager."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(self._manager.folder))

    def _ask(self, licence: LicenceResult, on_agreed: Callable[[], None]) -> None:
        self._dialog = ask_licence(self._tree, licence.title, licence.text, licence.url, on_agreed)

    def _offer(self) -> None:
        """Enable what makes sense for the chosen model."""
        model, busy = self.chosen, bool(self._manager.busy)
        here = model is not None and model.path is not None
        bundled = model is not None and model.bundled
        self._ui.downloadButton.enabled = model is not None and not busy and not here
        self._ui.verifyButton.enabled = here and not busy
        self._ui.deleteButton.enabled = here and not busy and not bundled
        self._ui.importButton.enabled = model is not None and not busy and not here
        self._ui.folderButton.enabled = bool(self._manager.folder)
        show_row(busy, self._ui.downloadBar, self._ui.cancelButton)

    def _on_busy(self, _name: str) -> None:
        self._ui.downloadBar.value = 0
        self._ui.downloadBar.setFormat("")
        self._offer()

    def _on_progress(self, fraction: float, text: str, remaining_s: float | None) -> None:
        self._ui.downloadBar.value = round(_STEPS * fraction)
        self._ui.downloadBar.setFormat(progress_in_words(text, remaining_s))


def size_in_words(model: ModelDetails) -> str:
    """Return the size of a model here, or of its download."""
    size = model.size or model.download_size
    return f"{size / 1e6:.0f} MB" if size else ""


def tooltip(model: ModelDetails) -> str:
    """Return what is known of a model, in a few lines."""
    lines = [model.title, model.licence, model.detail or model.path or ""]
    if model.claimed is not None:
        text = _("Segments {count} structures well enough to offer them; others need the full model, or clicks.")
        lines.append(text.format(count=model.claimed))
    return "\n".join(filter(None, lines))


def state_in_words(model: ModelDetails) -> str:
    """Return whether a model can be used."""
    if model.bundled:
        return _("Included")
    return _("Ready") if model.path is not None else _("Not downloaded")
