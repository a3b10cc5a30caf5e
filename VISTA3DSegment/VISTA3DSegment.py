# SPDX-License-Identifier: Apache-2.0
"""The module VISTA3D: shells only. What they do is in VISTA3DSegmentLib."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
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
    """Access for scripts: the parameters of the scene, and the services that the panel uses."""

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
