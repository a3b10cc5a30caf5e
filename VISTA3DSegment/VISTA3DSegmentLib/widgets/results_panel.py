# SPDX-License-Identifier: Apache-2.0
"""What can be done with a result: undo, volumes, surfaces, files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from VISTA3DCore.errors import VistaError

from ..mrml.names import name_of
from .dialogs import ask
from .ui import load, plain_tip

if TYPE_CHECKING:
    from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode

    from ..logic.automatic import AutomaticRun

_STATISTICS, _EXPORT_SETTINGS = "SegmentStatistics", "ExportSegmentsToFiles"


class ResultsPanel:
    """Buttons for the present segmentation; every tool they open is Slicer's own, already filled in.

    :param run: the automatic run, whose last result can be undone.
    """

    def __init__(self, run: AutomaticRun) -> None:
        self.widget, self.ui = load("ResultsPanel")
        self._run = run
        self._dialog: qt.QMessageBox | None = None
        self._segmentation: vtkMRMLSegmentationNode | None = None
        self._volume: vtkMRMLScalarVolumeNode | None = None
        self.ui.show3DButton.connect("clicked(bool)", self._on_show_3d)
        self.ui.statisticsButton.connect("clicked(bool)", lambda _checked: self.open_statistics())
        self.ui.exportButton.connect("clicked(bool)", lambda _checked: self.export())
        self.ui.hintLabel.connect("linkActivated(QString)", slicer.util.selectModule)
        self.ui.undoButton.connect("clicked(bool)", lambda _checked: self.undo())
        self._signals = (run.last_run.changed, run.started, run.finished, run.failed, run.cancelled)
        for signal in self._signals:
            signal.connect(self._show_undo)
        self._show_undo()
        self._refresh()

    def cleanup(self) -> None:
        """Leave nothing behind."""
        for signal in self._signals:
            signal.disconnect(self._show_undo)

    def show(self, segmentation: vtkMRMLSegmentationNode | None, volume: vtkMRMLScalarVolumeNode | None) -> None:
        """Offer what can be done with a segmentation; None empties the panel."""
        changed, self._volume = segmentation is not self._segmentation, volume
        if not changed:
            return
        self._segmentation = segmentation
        self.ui.show3DButton.setSegmentationNode(segmentation)
        self._refresh()

    def report(self, notes: Sequence[str]) -> None:
        """Say what a run has brought, in the sentences that it came with."""
        self.say("\n".join(notes))

    def say(self, text: str) -> None:
        """Show what has become of the result."""
        self.ui.summaryLabel.text = text

    def undo(self) -> None:
        """Undo the last run; ask first if its segments were changed since."""
        names = self._run.last_run.changed_since()
        if not names:
            self._undo()
            return
        question = _("Changed since the run: {names}. Undo discards these changes, too.").format(names=", ".join(names))
        self._dialog = ask(self.widget, _("Undo the last run"), question, _("Undo"), self._undo)

    def _undo(self) -> None:
        try:
            self._run.last_run.undo(discard_changes=True)
        except VistaError as error:
            self.say(str(error))

    def _show_undo(self, *_arguments: object) -> None:
        last, running = self._run.last_run, self._run.running
        self.ui.undoButton.enabled = last.can_be_undone and not running
        tip = _("Restore the segments that the last run changed, and remove those that it added.")
        if last.can_be_undone:
            tip = _("Restore the segments of '{name}' that the last run changed, and remove those that it added.")
            tip = tip.format(name=name_of(last.segmentation))
        self.ui.undoButton.toolTip = plain_tip(tip)

    def _on_show_3d(self, shown: bool) -> None:
        if shown:
            qt.QTimer.singleShot(0, _center_three_d)  # the surfaces are in the views then

    def open_statistics(self) -> None:
        """Open Segment Statistics with the table of this segmentation and volume."""
        module = slicer.util.getModuleWidget(_STATISTICS)
        module.segmentationSelector.setCurrentNode(self._segmentation)
        module.scalarSelector.setCurrentNode(self._volume)
        slicer.util.selectModule(_STATISTICS)
        module.applyButton.click()

    def export(self) -> None:
        """Open Slicer's dialog that writes segments as surfaces or label maps."""
        dialog = qt.QDialog(self.widget)
        dialog.windowTitle = _("Export segments to files")
        dialog.setAttribute(qt.Qt.WA_DeleteOnClose)
        options = slicer.qMRMLSegmentationFileExportWidget()
        options.setMRMLScene(slicer.mrmlScene)
        options.setSegmentationNode(self._segmentation)
        options.settingsKey = _EXPORT_SETTINGS
        options.connect("exportToFilesDone()", dialog.accept)
        layout = qt.QVBoxLayout(dialog)
        layout.addWidget(options)
        dialog.open()

    def _refresh(self) -> None:
        for button in (self.ui.show3DButton, self.ui.statisticsButton, self.ui.exportButton):
            button.enabled = self._segmentation is not None
        self.ui.summaryLabel.text = _("Nothing is segmented yet.")
        if self._segmentation is not None:
            count = self._segmentation.GetSegmentation().GetNumberOfSegments()
            text = _("One segment in '{name}'.") if count == 1 else _("{count} segments in '{name}'.")
            self.ui.summaryLabel.text = text.format(name=name_of(self._segmentation), count=count)


def _center_three_d() -> None:
    """Let all 3D views look at the middle of what they show; direction and zoom stay."""
    layout = slicer.app.layoutManager()
    for number in range(layout.threeDViewCount):
        layout.threeDWidget(number).threeDView().resetFocalPoint()
