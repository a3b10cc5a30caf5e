# SPDX-License-Identifier: Apache-2.0
"""The one set of services of the running Slicer, which the panel and the Segment Editor effect share."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import qt
import slicer

from .locating import find_core

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue

    from .logic.automatic import AutomaticRun
    from .logic.engine import Engine
    from .logic.settings import Settings
    from .logic.volumes import OpenedVolumes
    from .process import QProcessTransport

log = logging.getLogger("vista3d.slicer")
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
        _running.pop().close()


class Services:
    """What lives as long as the application; everything is made when it is first asked for."""

    def __init__(self) -> None:
        find_core()
        self._closed = False
        slicer.app.connect("aboutToQuit()", self.close)

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
    def housekeeping(self) -> Engine:
        """A second process that never loads the network's runtime: models are managed while the other one computes."""
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

        subject_hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        return AutomaticRun(self.engine, self.volumes, slicer.mrmlScene, subject_hierarchy)

    def catalogue(self, label_set: str = "vista3d-ct") -> Catalogue:
        """Return a label set."""
        from VISTA3DCore.anatomy import catalogue

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
        slicer.app.disconnect("aboutToQuit()", self.close)
        for name in ("automatic", "volumes", "engine", "housekeeping"):
            service = self.__dict__.get(name)
            if service is not None:
                (service.close_all if name == "volumes" else service.close)()

    def _transport(self) -> QProcessTransport:
        from VISTA3DCore.worker.environment import worker_command

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


def call_later(seconds: float, function: Callable[[], None]) -> None:
    """Call a function on the main thread after some seconds."""
    qt.QTimer.singleShot(round(1000 * seconds), function)
