"""What a click costs in Slicer beside the engine's time: a 512 x 512 x 300 volume, a change in a box of 128^3 voxels.

Real nodes, Slicer's own undo and masking, control points, real array files; the engine's answer is at hand at once.
Processor time of the main thread, because that is what holds up the window. Drawing is not part of it.

PYTHONPATH=.:VISTA3DSegment:Testing/extension python Testing/Benchmark/slicer_click.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import refinement_helpers
from engine_helpers import EventLoop
from refinement_helpers import Clicking

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.protocol import ArrayRef, ClickAnswer, ClickParams
from VISTA3DSegmentLib.logic.stepping import Stepping

SHAPE, SPACING = (512, 512, 300), (0.7, 0.7, 1.0)
ORGAN = ((150, 290), (150, 290), (80, 200))
BOX = ((200, 328), (200, 328), (100, 228))
CLICKS = 25


class ReadyEngine:
    """Stands for the engine: whatever is clicked, a ball of another size is the answer."""

    def __init__(self) -> None:
        self.loop, self.shared = EventLoop(), SharedDirectory()
        self.call_later = self.loop.call_later
        self.answers, self.busy_s = 0, 0.0

    def hand_over(self, array: np.ndarray, _affine: None, on_done: Callable, on_error: Callable) -> Stepping:
        return Stepping(self.shared.put_in_steps(array), self.call_later, on_done, on_error)

    def take_array(self, ref: ArrayRef) -> np.ndarray:
        return self.shared.take(ref)

    def request(self, _method: str, params: ClickParams, on_result: Callable, *_: object) -> SimpleNamespace:
        started = time.thread_time()
        self.answers += 1
        distance = sum((axis - 64) ** 2 for axis in np.ogrid[:128, :128, :128])
        patch = np.asfortranarray(distance < (20 + 7 * self.answers % 40) ** 2)
        answer = ClickAnswer(BOX, self.shared.put(patch), (True,) * len(params.clicks), 0, None)
        self.loop.call_later(0.0, lambda: on_result(answer))
        self.busy_s = time.thread_time() - started
        return SimpleNamespace(done=True, drop=lambda: None)


class OpenVolumes:
    """Stands for the volumes in the engine: all are open."""

    def __init__(self, engine: ReadyEngine) -> None:
        self._engine = engine

    def session_of(self, *_: object) -> str:
        return "session"

    def use(self, _node: object, _model: str, _device: str, on_ready: Callable, *_: object) -> SimpleNamespace:
        self._engine.call_later(0.0, lambda: on_ready("session"))
        return SimpleNamespace(done=True, drop=lambda: None)

    def close_all(self) -> None:
        pass


def main() -> None:
    """Print the times of the first click and of those after it."""
    refinement_helpers.OpenedVolumes = OpenVolumes
    engine = ReadyEngine()
    under_test = SimpleNamespace(loop=engine.loop, engine=engine)
    clicking = Clicking(under_test, "model", np.diag([*SPACING, 1.0]), array=np.zeros(SHAPE, np.int16, order="F"))
    clicking.mirror.show()
    clicking.paint(ORGAN)
    times = []
    for ijk in np.random.default_rng(0).integers(210, 220, (CLICKS, 3)):
        started = time.thread_time()
        clicking.click(ijk)
        times.append(1000 * (time.thread_time() - started - engine.busy_s))
    assert not clicking.sentences, clicking.sentences
    print(f"first click (the base is handed over)  {times[0]:6.1f} ms")
    print(f"each of {CLICKS - 1} further ones                {statistics.median(times[1:]):6.1f} ms (median)")
    clicking.close()
    engine.shared.close()


if __name__ == "__main__":
    main()
