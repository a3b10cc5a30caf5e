# SPDX-License-Identifier: Apache-2.0
"""What the module needs, what is missing, and how it gets here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import slicer

from ..logic.findings import PROBLEM
from ..logic.setup import MISSING, RESTART
from .message import MessageBar
from .model_list import ModelList
from .ui import load

if TYPE_CHECKING:
    from ..logic.findings import Doctor, Finding
    from ..logic.models import ModelManager
    from ..logic.settings import Settings
    from ..logic.setup import Setup


class SetupPanel:
    """Packages, models, findings about this computer, and the interpreter of the engine.

    :param setup: packages.
    :param manager: models.
    :param doctor: findings.
    :param settings: knows the interpreter.
    """

    def __init__(self, setup: Setup, manager: ModelManager, doctor: Doctor, settings: Settings) -> None:
        self.widget, self.ui = load("SetupPanel")
        self._setup, self._manager, self._doctor, self._settings = setup, manager, doctor, settings
        self._examined = False
        self.message = MessageBar()
        self.widget.layout().addWidget(self.message.widget)
        self.models = ModelList(self.ui, manager)
        self.ui.pythonEdit.currentPath = settings.worker_python or ""
        self._connect()
        self.show_findings([])
        self.refresh()

    def _connect(self) -> None:
        self.ui.installButton.connect("clicked(bool)", lambda _checked: self.install())
        self.ui.restartButton.connect("clicked(bool)", lambda _checked: slicer.util.restart())
        self.ui.checkButton.connect("clicked(bool)", lambda _checked: self.check())
        self.ui.pythonEdit.connect("currentPathChanged(QString)", self._on_python)
        self._listeners = [
            (self._setup.changed, self.refresh),
            (self._setup.failed, self._on_failed),
            (self._manager.failed, self._on_failed),
            (self._manager.finished, self._on_finished),
            (self._doctor.examined, self.show_findings),
            (self._doctor.failed, self._on_failed),
        ]
        for signal, listener in self._listeners:
            signal.connect(listener)

    def cleanup(self) -> None:
        """Leave nothing behind."""
        for signal, listener in self._listeners:
            signal.disconnect(listener)
        self.models.cleanup()

    def open(self) -> None:
        """The section is shown: look at the computer, if nobody has."""
        if not self._examined:
            self._examined = True
            self._doctor.examine()

    def check(self) -> None:
        """Look anew at everything."""
        self.message.clear()
        self._examined = True
        self._setup.changed()
        self._manager.refresh()
        self._doctor.examine()

    def install(self) -> None:
        """Install what is missing; Slicer asks the user first and shows how it goes."""
        self.message.clear()
        self._setup.install()

    def show_findings(self, findings: Sequence[Finding]) -> None:
        """Say what was found on this computer, problems with a sign."""
        lines = [("\N{WARNING SIGN} " if one.kind == PROBLEM else "") + one.text for one in findings]
        self.ui.findingsLabel.text = "\n".join(lines)
        self.ui.findingsLabel.setVisible(bool(lines))

    def refresh(self) -> None:
        """Say what is missing."""
        state = self._setup.state()
        self.ui.stateLabel.text = state.text
        self.ui.installButton.setVisible(state.kind == MISSING)
        self.ui.restartButton.setVisible(state.kind == RESTART)

    def _on_python(self, path: str) -> None:
        if (path.strip() or None) != self._settings.worker_python:
            self._settings.worker_python = path.strip() or None
            self._setup.installed()
            self._setup.changed()

    def _on_failed(self, sentence: str) -> None:
        self.message.show(sentence)

    def _on_finished(self, sentence: str) -> None:
        self.message.show(sentence, "note")
