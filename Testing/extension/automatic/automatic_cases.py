"""A scene, a CT in it, and a run under test."""

from __future__ import annotations

import slicer
from engine_helpers import EngineUnderTest
from logic_helpers import (
    Heard,
    MemoryStore,
    add_volume,
    new_scene,
)

from VISTA3DCore.imaging.volume import Volume
from VISTA3DSegmentLib.logic.automatic import AutomaticRun, RunRequest
from VISTA3DSegmentLib.logic.settings import Settings
from VISTA3DSegmentLib.logic.volumes import OpenedVolumes

LIVER, SPLEEN, TUMOR = 1, 3, 23
STRUCTURES = (LIVER, SPLEEN)
#: All that the tiny model knows.
KNOWN = (1, 3, 5, 14, 23)


class Running:
    """A scene, a CT in it, and everything that a run needs."""

    def __init__(self, under_test: EngineUnderTest, volume: Volume | None, model: str) -> None:
        self.under_test, self.model = under_test, model
        self.scene = new_scene()
        self.hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        self.volume = add_volume(self.scene, volume)
        self.store = MemoryStore()
        self.settings = Settings(self.store)
        self.volumes = OpenedVolumes(under_test.engine)
        self.run = AutomaticRun(under_test.engine, self.volumes, self.scene, self.hierarchy, self.settings)
        self.heard = Heard(self.run)

    def request(self, **changes: object) -> RunRequest:
        """Return a request for liver and spleen, with some fields changed."""
        return RunRequest(**{"volume": self.volume, "structures": STRUCTURES, "model": self.model, **changes})

    def start(self, **changes: object) -> None:
        self.run.start(self.request(**changes))

    def finish(self) -> None:
        """Wait for the end of the run."""
        self.under_test.loop.run_until(lambda: not self.run.running)

    def segment(self, **changes: object) -> tuple[slicer.vtkMRMLSegmentationNode, list[str], list[str]]:
        """Run to the end, which must be a good one."""
        self.heard.events.clear()
        self.start(**changes)
        self.finish()
        assert self.heard.all("failed") == []
        (found,) = self.heard.all("finished")
        return found

    def wait_for_work(self) -> None:
        """Wait until the network runs."""
        self.under_test.loop.run_until(
            lambda: any(update[1] == "Segmenting" and update[0] > 0.16 for update in self.updates)
        )

    @property
    def updates(self) -> list[tuple[float, str, float | None]]:
        return self.heard.all("progressed")

    @property
    def segmentations(self) -> int:
        return self.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")
