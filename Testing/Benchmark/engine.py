"""What the engine process costs beyond the engine's own time: starting, opening, and each click.

The volume has 512 x 512 x 300 voxels. A click is asked for again and again, so that the engine answers from what it
keeps; its own time, which it tells with each answer, is subtracted from the time that the client waits.

    python Testing/Benchmark/engine.py                           # about a minute
    python Testing/Benchmark/engine.py --model vista3d-ct --clicks 100
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume

SHAPE = (512, 512, 300)
SPACING_MM = (0.8, 0.8, 1.0)
# The best of so many counts: 157 MB go to the disk's cache, which others may be filling, too.
OPENINGS = 3


@dataclass(frozen=True)
class Overhead:
    """Milliseconds beyond the engine's own.

    :param opening: beyond ``preprocessing``, the engine's own time.
    :param clicks: of each click on an empty base; :param on_base: of each click on a base as large as the volume.
    :param engine: the engine's own time for such a click; :param patch: voxels that it changed.
    """

    start: float
    opening: float
    preprocessing: float
    clicks: Sequence[float]
    on_base: Sequence[float]
    engine: float
    patch: int


class Recording(BlockingClient):
    """Remembers the last result as it came, and how long it took."""

    last: Any = None
    seconds: float = 0.0

    def call(self, *arguments: Any, **options: Any) -> Any:
        """As in :class:`BlockingClient`."""
        started = time.perf_counter()
        self.last = super().call(*arguments, **options)
        self.seconds = time.perf_counter() - started
        return self.last


def main() -> None:
    options = _options()
    print(f"import of the client: {client_import():.0f} ms")
    found = measure(options.model, options.structure, options.clicks)
    print(f"start to handshake:   {found.start:.0f} ms")
    print(f"opening:              {found.opening:.0f} ms beyond {found.preprocessing:.0f} ms of preprocessing")
    for name, values in (("clicks:", found.clicks), ("clicks on a base:", found.on_base)):
        print(f"{name:21} {median(values):.1f} ms (median), {np.percentile(values, 95):.1f} ms (95 %)")
    print(f"                      beyond {found.engine:.1f} ms of the engine, patch of {found.patch} voxels")


def measure(model: str, structure: str, clicks: int) -> Overhead:
    """Measure with one engine process."""
    volume = large_volume()
    started = time.perf_counter()
    with Recording(ChildProcess(), name="benchmark") as client:
        start = time.perf_counter() - started
        client.load(model)
        opening, preprocessing = min(_opening(client, volume, model) for _ in range(OPENINGS))
        with client.open(volume, model) as session:
            place = tuple(volume.affine[:3] @ [*(size // 2 for size in SHAPE), 1.0])
            base = np.zeros(SHAPE, dtype=bool, order="F")
            base[200:320, 200:320, 100:200] = True
            base.flags.writeable = False  # spares the client the comparison with the last base

            def overhead(mask: np.ndarray | None) -> float:
                before = time.perf_counter()
                session.click(structure, [Click(place, positive=mask is None)], mask)
                return 1000 * (time.perf_counter() - before) - client.last.engine_ms

            overhead(None)
            empty = [overhead(None) for _ in range(clicks)]
            overhead(base)
            on_base = [overhead(base) for _ in range(clicks)]
            patch = 0 if client.last.patch is None else int(np.prod(client.last.patch.shape))
            return Overhead(1000 * start, opening, preprocessing, empty, on_base, client.last.engine_ms, patch)


def _opening(client: Recording, volume: Volume, model: str) -> tuple[float, float]:
    """Return the milliseconds of opening a volume beyond the engine's own, and the latter."""
    started = time.perf_counter()
    with client.open(volume, model):
        return 1000 * (time.perf_counter() - started) - client.last.engine_ms, client.last.engine_ms


def large_volume() -> Volume:
    """Return a phantom of 512 x 512 x 300 voxels, int16, in the memory order of Slicer's arrays."""
    coarse, _ = paint_phantom((64, 64, 50))
    array = coarse.array.astype(np.int16)
    for axis, factor in enumerate((8, 8, 6)):
        array = array.repeat(factor, axis)
    return Volume(np.asfortranarray(array), np.diag([*SPACING_MM, 1.0]), "phantom")


def client_import() -> float:
    """Return the milliseconds of importing the client in a fresh interpreter, beyond numpy; the best of five."""
    code = (
        "import time, numpy; start = time.perf_counter(); import VISTA3DCore.engine.client;"
        "print(1000 * (time.perf_counter() - start))"
    )
    root = Path(__file__).resolve().parents[2]
    runs = [subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="name or file")
    parser.add_argument("--structure", default="liver", help="what is clicked")
    parser.add_argument("--clicks", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
