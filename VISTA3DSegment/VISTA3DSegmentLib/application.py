# SPDX-License-Identifier: Apache-2.0
"""The one set of services of the running Slicer, which the panel and the Segment Editor effect share."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import qt
import slicer

from .locating import find_core

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue

    from .logic.automatic import AutomaticRun
    from .logic.choice import ChosenModel
    from .logic.click_session import ClickSession
    from .logic.engine import Engine
    from .logic.findings import Doctor
    from .logic.housekeeping import Housekeeping
    from .logic.models import LoadedModel, ModelManager
    from .logic.refinement import Refinement
    from .logic.scripting import Scripting
    from .logic.settings import Settings
    from .logic.setup import Setup
    from .logic.volumes import OpenedVolumes
    from .mrml.removal import QuickRemoval
    from .process import QProcessTransport

log = logging.getLogger("vista3d.slicer")
_MOMENT_S = 0.005
# None or one.
_running: list[Services] = []


def services() -> Services:
    """Return the services; they are made at the first call."""
    if not _running:
        _running.append(Services())
    return _running[0]


def reset() -> None:
    """End the services, e.g. before the module is reloaded; the next call of :func:`services` makes new ones."""
    while _running:
        ended = _running.pop()
        ended.close()
        if "removal" in vars(ended):
            ended.removal.close()


class Services:
    """What lives as long as the application; everything is made when it is first asked for."""

    def __init__(self) -> None:
        find_core()
        self._closed = False
        slicer.app.connect("aboutToQuit()", self._on_quit)

    @cached_property
    def settings(self) -> Settings:
        """The user's choices."""
        from .logic.settings import Settings

        return Settings(SettingsStore("VISTA3D"))

    @cached_property
    def engine(self) -> Engine:
        """The engine process that computes; it is started by ``engine.start()`` or by its first request."""
        from .logic.engine import Engine

        return Engine(self._transport, call_later)

    @cached_property
    def housekeeping(self) -> Housekeeping:
        """A second process that never loads the network's runtime: models are managed while the other one computes."""
        from .logic.housekeeping import Housekeeping

        return Housekeeping(self._housekeeping_engine)

    @cached_property
    def models(self) -> ModelManager:
        """The models on this computer."""
        from .logic.models import ModelManager

        return ModelManager(self.housekeeping)

    @cached_property
    def chosen_model(self) -> ChosenModel:
        """The model and the device that everything is computed with."""
        from .logic.choice import ChosenModel

        chosen = ChosenModel(self.settings)
        self.models.listed.connect(chosen.refresh)
        return chosen

    @cached_property
    def loaded_model(self) -> LoadedModel:
        """What the chosen model knows."""
        from .logic.models import LoadedModel

        return LoadedModel(self.engine)

    @cached_property
    def doctor(self) -> Doctor:
        """Looks at the computer."""
        from .logic.findings import Doctor

        return Doctor(self.housekeeping)

    @cached_property
    def setup(self) -> Setup:
        """Knows what is missing, and installs it."""
        from .installing import REQUIREMENTS, slicers_tools
        from .logic.setup import Setup

        setup = Setup(slicers_tools(), self.settings, REQUIREMENTS)
        setup.watch(self.engine)
        setup.installed.connect(self.engine.stop)
        setup.installed.connect(self._housekeeping_engine.stop)
        return setup

    @cached_property
    def _housekeeping_engine(self) -> Engine:
        from .logic.engine import Engine

        return Engine(self._transport, call_later, compute=False)

    @cached_property
    def volumes(self) -> OpenedVolumes:
        """The volumes that are open in the engine."""
        from .logic.volumes import OpenedVolumes

        return OpenedVolumes(self.engine)

    @cached_property
    def automatic(self) -> AutomaticRun:
        """The automatic run; one at a time."""
        from .logic.automatic import AutomaticRun

        _ = self.removal  # from the first result on
        subject_hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        return AutomaticRun(self.engine, self.volumes, slicer.mrmlScene, subject_hierarchy, self.settings)

    @cached_property
    def removal(self) -> QuickRemoval:
        """Lets results with many segments be deleted at once; it outlives :meth:`close`, as the scene does."""
        from .mrml.removal import QuickRemoval

        return QuickRemoval(slicer.mrmlScene)

    @cached_property
    def refinement(self) -> Refinement:
        """Clicks on a segment; it keeps the masks from before them for as long as the scene is open."""
        from .logic.refinement import Refinement

        return Refinement(self.engine, self.volumes)

    @cached_property
    def clicking(self) -> ClickSession:
        """What the Segment Editor's effect does; one editor at a time uses it."""
        from .logic.click_session import ClickSession

        choice, needed = self.chosen_model.choice, self.setup.needed
        session = ClickSession(self.refinement, self.volumes, self.engine, choice, needed)
        self.chosen_model.changed.connect(session.choice_changed)
        self.setup.changed.connect(session.setup_changed)
        return session

    @cached_property
    def scripting(self) -> Scripting:
        """What scripts call; it waits for results."""
        from .logic.scripting import Scripting

        works = self.automatic, self.engine, self.volumes, self.refinement
        return Scripting(*works, self.chosen_model, self.setup.needed, wait_a_moment)

    def catalogue(self, label_set: str = "vista3d-ct") -> Catalogue:
        """Return a label set."""
        from VISTA3DCore.anatomy.catalogue import catalogue

        return catalogue(label_set)

    @property
    def worker_python(self) -> str | None:
        """The interpreter of the engine process, or None if Slicer's own cannot be found.

        ``VISTA3D_WORKER_PYTHON`` overrides it.
        """
        return self.settings.worker_python or shutil.which("PythonSlicer")

    def close(self) -> None:
        """End both processes; harmless at the second call."""
        if self._closed:
            return
        self._closed = True
        slicer.app.disconnect("aboutToQuit()", self._on_quit)
        for name in ("clicking", "refinement", "automatic", "volumes", "engine", "_housekeeping_engine"):
            service = self.__dict__.get(name)
            if service is not None:
                (service.close_all if name == "volumes" else service.close)()

    def _on_quit(self) -> None:
        from .process import wait_for_ends

        self.close()
        wait_for_ends()

    def _transport(self) -> QProcessTransport:
        from VISTA3DCore.engine.environment import worker_command

        from .process import QProcessTransport

        return QProcessTransport(worker_command(self.worker_python), log=log.debug)


class SettingsStore:
    """Values in Slicer's settings. They are stored as JSON: the settings themselves forget types on some systems.

    :param group: the section that holds them.
    """

    def __init__(self, group: str) -> None:
        self._group = group

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or ``default`` if there is none that can be read."""
        text = qt.QSettings().value(f"{self._group}/{key}")
        if not isinstance(text, str):
            return default
        try:
            return json.loads(text)
        except ValueError:
            return default

    def set(self, key: str, value: Any) -> None:
        """Store a value that JSON can express."""
        qt.QSettings().setValue(f"{self._group}/{key}", json.dumps(value))


def wait_a_moment() -> None:
    """Handle what has arrived, then let others compute; only for scripts, which wait for a result."""
    slicer.app.processEvents()
    time.sleep(_MOMENT_S)


def call_later(seconds: float, function: Callable[[], None]) -> None:
    """Call a function on the main thread after some seconds."""
    qt.QTimer.singleShot(round(1000 * seconds), function)
