# SPDX-License-Identifier: Apache-2.0
"""The module VISTA3D: shells only. What they do is in VISTA3DSegmentLib."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

_LIBRARY = "VISTA3DSegmentLib"


class VISTA3DSegment(ScriptedLoadableModule):
    """What Slicer shows of the module before anybody opens it."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("VISTA3D")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Terminologies", "SubjectHierarchy"]
        parent.contributors = ["VISTA3D for 3D Slicer contributors"]
        parent.helpText = _(
            "Choose structures and press Segment: organs, bones, vessels and lesions are found in a CT volume. Click "
            "in the Segment Editor to correct the result, or to segment what has no name. Everything is computed on "
            "this computer; nothing is sent anywhere."
        )
        parent.acknowledgementText = _(
            "The network is VISTA3D (He et al., CVPR 2025) by NVIDIA and MONAI. The models have licenses of their own, "
            "which are shown before the download."
        )
        slicer.app.connect("startupCompleted()", _register)


def _register() -> None:
    """Tell Slicer about the effect, the terminology and the sample data."""
    from VISTA3DSegmentLib import registration

    for step in (registration.register_effect, registration.register_terminology, registration.register_sample_data):
        _try(step)


def _try(step: Callable[[], None]) -> None:
    """Do one step of the registration; if it fails, the others are done all the same."""
    try:
        step()
    except Exception:
        logging.exception("VISTA3D: %s failed", step.__name__)


class VISTA3DSegmentWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: VISTA3DSegmentLogic | None = None
        self.panel: Any = None

    def setup(self) -> None:
        """The module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = VISTA3DSegmentLogic()
        services = self.logic.services  # finds the engine's package, which the panel needs
        from VISTA3DSegmentLib.widgets.module_panel import ModulePanel

        self.panel = ModulePanel(services, slicer.mrmlScene)
        self.layout.addWidget(self.panel.widget)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        if getattr(self.parent, "isEntered", False):  # the module was loaded anew while it is shown
            self.enter()

    def enter(self) -> None:
        """The module is shown."""
        if not self.panel.has_parameters:
            self.panel.set_parameters(self.logic.getParameterNode())
        self.panel.enter()

    def exit(self) -> None:
        """Another module is shown; a run goes on, and its result is taken."""
        self.panel.exit()

    def cleanup(self) -> None:
        """The panel is about to be deleted: at the end of Slicer, or to be loaded anew."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.cleanup()
            self.panel = None

    def onSceneStartClose(self, _caller: Any = None, _event: Any = None) -> None:
        """The scene is about to be emptied."""
        self.panel.set_parameters(None)
        self.panel.scene_closing()

    def onSceneEndClose(self, _caller: Any = None, _event: Any = None) -> None:
        """The scene was emptied, or another one loaded."""
        self.panel.scene_closed()
        if getattr(self.parent, "isEntered", False):
            self.panel.set_parameters(self.logic.getParameterNode())

    def onReload(self) -> None:
        """Load the module anew, its library and the engine included."""
        self.cleanup()
        importlib.import_module(f"{_LIBRARY}.application").reset()
        for name in [one for one in sys.modules if one.partition(".")[0] == _LIBRARY]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)
        _register()


class VISTA3DSegmentLogic(ScriptedLoadableModuleLogic):
    """Access for scripts: functions that wait for their results, and the services that the panel uses.

    It is ``slicer.util.getModuleLogic("VISTA3DSegment")`` and works with and without a main window. Errors are raised
    as ``VISTA3DCore.errors.VistaError``, with a sentence for people; then the scene is as it was. ``progress`` is a
    function that gets a fraction (0 to 1) and a text; if it returns False, the work stops and ``Cancelled`` is raised.
    The model and the device are those that are chosen in the panel, unless they are given: ``model`` is a name or the
    path of a weights file, ``device`` one of ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    """

    def segment(
        self,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        structures: str | int | Iterable[str | int],
        model: str | None = None,
        roiNode: slicer.vtkMRMLMarkupsROINode | None = None,
        segmentationNode: slicer.vtkMRMLSegmentationNode | None = None,
        progress: Callable[[float, str], Any] | None = None,
        **options: Any,
    ) -> slicer.vtkMRMLSegmentationNode:
        """Segment structures of a CT, and return the segmentation; :attr:`notes` says what was not found.

        :param structures: names, indices or groups of the catalogue, or ``"everything"``.
        :param roiNode: limits the work to its box.
        :param segmentationNode: where the segments go; by default a new one is made.
        :param options: ``device``; ``quality``: ``standard``, ``smooth`` or ``best``; ``removeSpecks``: by default as
            is usual for the model; ``keepCorrected`` (True): leave segments alone that were clicked on or edited;
            ``acceptMismatch`` (False): write into a segmentation of another volume or patient.
        """
        nodes = {"roi_node": roiNode, "segmentation_node": segmentationNode}
        return self.services.scripting.segment(volumeNode, structures, model, progress=progress, **nodes, **options)

    def click(
        self,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        segmentID: str,
        volumeNode: slicer.vtkMRMLScalarVolumeNode,
        points: slicer.vtkMRMLMarkupsFiducialNode | Sequence[Sequence[float]],
        positive: bool | Sequence[bool] = True,
        progress: Callable[[float, str], Any] | None = None,
        **options: Any,
    ) -> tuple[bool, ...]:
        """Add clicks to a segment; other segments stay as they are, and the clicks are stored with the segment.

        :param points: world RAS mm, or a point list.
        :param positive: whether clicks add; one value for all, or one for each.
        :param options: ``model``, ``device``; ``structure``: what is clicked, by default what the segment stands for;
            ``"new object"`` is one without a name.
        :return: of all clicks of the segment, the earlier ones included, whether each has changed something.
        """
        place = segmentationNode, segmentID, volumeNode
        return self.services.scripting.click(*place, points, positive, progress, **options)

    def structures(self, model: str | None = None, progress: Callable[[float, str], Any] | None = None) -> list[str]:
        """Return the names of the structures that a model offers; the model is loaded if need be."""
        return self.services.scripting.structures(model, progress)

    def models(self) -> tuple[Any, ...]:
        """Return the models that can be had, each with ``name``, ``title``, and ``path``: None if it is not here."""
        return self.services.scripting.models()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the last result of :meth:`segment`, e.g. which structures were not found."""
        return self.services.scripting.notes

    def getParameterNode(self) -> Any:
        """Return the parameters of the scene; see ``VISTA3DSegmentLib.parameters.PanelParameters``."""
        from VISTA3DSegmentLib.parameters import PanelParameters

        return PanelParameters(super().getParameterNode())

    @property
    def services(self) -> Any:
        """The engine, opened volumes, the automatic run, settings; see ``VISTA3DSegmentLib.application.Services``."""
        from VISTA3DSegmentLib.application import services

        return services()


class VISTA3DSegmentTest(ScriptedLoadableModuleTest):
    """Runs the tests in ``Testing/Python``, which are part of the sources, not of the installed extension."""

    def runTest(self, **_options: Any) -> None:
        """Run all of them."""
        folder = Path(slicer.util.modulePath(self.__module__)).parent / "Testing" / "Python"
        assert folder.is_dir(), f"There are no tests in {folder}; run them from the sources."
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        assert importlib.import_module("vista3d_slicer_tests").run() == []
