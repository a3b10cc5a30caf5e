"""Who observes a scene hears of it, and may end together with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mrml_scene import Application

from VISTA3DSegmentLib.logic.observers import watch_scene

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: the fault is a crash.
ENDING_TOGETHER = """
import gc
from mrml_scene import AFFINES, SHAPE, Application
from VISTA3DSegmentLib.logic.observers import watch_scene

class Watcher:
    def __init__(self, app):
        self.app, self.tags = app, watch_scene(app.scene, self.removed, self.closing)
        self.circle = self
    def removed(self, node):
        print("removed", self.app.scene.GetNumberOfNodes(), node)
    def closing(self):
        print("closing", self.app.scene)

for _ in range(5):
    app = Application()
    app.add_volume(SHAPE, AFFINES["oblique"])
    watcher = Watcher(app)
    Application.running.clear()
    del app, watcher
    gc.collect()
print("ended")
"""


class Watcher:
    def __init__(self, app: Application) -> None:
        self.heard: list[object] = []
        self.tags = watch_scene(app.scene, self.removed, self.closing)

    def removed(self, node: object) -> None:
        self.heard.append(node)

    def closing(self) -> None:
        self.heard.append("closing")


def test_removed_nodes_and_the_end_of_a_scene_are_told(app: Application) -> None:
    watcher, node = Watcher(app), app.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    app.scene.RemoveNode(node)
    assert watcher.heard == [node]
    app.scene.Clear(False)
    assert watcher.heard[1] == "closing"
    for tag in watcher.tags:
        app.scene.RemoveObserver(tag)
    heard = list(watcher.heard)
    app.scene.Clear(False)
    assert watcher.heard == heard


def test_a_scene_may_be_collected_together_with_who_watches_it() -> None:
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "VISTA3DSegment", "Testing/extension"))
    done = subprocess.run(
        [sys.executable, "-c", ENDING_TOGETHER],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ended\n"
