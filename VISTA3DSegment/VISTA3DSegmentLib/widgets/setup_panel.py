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

_MODULE = "VISTA3DSegment"
# The sentence about the state and the buttons come first.
_BELOW_INSTALL = 2


def open_setup() -> None:
    """Show the module with its section Setup, from wherever the user is."""
    slicer.util.selectModule(_MODULE)
    slicer.util.getModuleWidget(_MODULE).panel.open_setup()


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
        self.message, self.models_message, self.findings_message = MessageBar(), MessageBar(), MessageBar()
        self._arrange()
        self.models = ModelList(self.ui, manager)
        self.ui.pythonEdit.currentPath = settings.worker_python or ""
        self._connect()
        self.show_findings([])
        self.refresh()

    def _arrange(self) -> None:
        """Put each message below what causes it: the buttons for packages, those for models, the findings."""
        layout = self.widget.layout()
        layout.insertWidget(_BELOW_INSTALL, self.message.widget)
        layout.insertWidget(layout.indexOf(self.ui.findingsLabel), self.models_message.widget)
        layout.insertWidget(layout.indexOf(self.ui.findingsLabel) + 1, self.findings_message.widget)

    def _connect(self) -> None:
        self.ui.installButton.connect("clicked(bool)", lambda _checked: self.install())
        self.ui.restartButton.connect("clicked(bool)", lambda _checked: slicer.util.restart())
        self.ui.checkButton.connect("clicked(bool)", lambda _checked: self.check())
        self.ui.pythonEdit.connect("currentPathChanged(QString)", self._on_python)
        self._listeners = [
            (self._setup.changed, self.refresh),
            (self._setup.failed, self.message.show),
            (self._setup.installed, self.message.clear),
            (self._manager.failed, self.models_message.show),
            (self._manager.finished, self._on_finished),
            (self._doctor.examined, self.show_findings),
            (self._doctor.failed, self.findings_message.show),
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
        for message in (self.message, self.models_message, self.findings_message):
            message.clear()
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
        self.findings_message.clear()
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

    def _on_finished(self, sentence: str) -> None:
        self.models_message.show(sentence, "note")
