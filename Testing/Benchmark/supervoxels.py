"""Boundary recall of organ borders: features of the light encoder against graph supervoxels at equal count.

The volume is the demonstration CT with its packaged labels (predictions of TotalSegmentator at 3 mm, on the CT's grid).
For each number of supervoxels and each distance between encoded slices, features are clustered; then the graph, SLIC on
intensities and SLIC on nothing (a grid of blocks) make as many supervoxels as came out. Recall is measured at 0 mm
(the very voxel) and at a tolerance; *chance* is the share of all body voxels that are as near to a supervoxel border;
*Dice* is the mean over structures of what the best union of whole supervoxels reaches.

    python Testing/Benchmark/supervoxels.py                      # 15 to 30 minutes on two cores
    python Testing/Benchmark/supervoxels.py --distances 12 --segments 100
    python Testing/Benchmark/supervoxels.py --memory 512 512 600 # peak memory with a stretched CT; see --help
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from beside_reference.measuring import in_own_process, peak_memory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from VISTA3DCore.imaging.samples import demonstration_ct  # noqa: E402
from VISTA3DCore.imaging.volume import Volume  # noqa: E402
from VISTA3DCore.supervoxels.clustering import cluster  # noqa: E402
from VISTA3DCore.supervoxels.features import Slicing, accumulate, feature_file  # noqa: E402
from VISTA3DCore.supervoxels.generation import PRESETS, Details, compute_supervoxels  # noqa: E402
from VISTA3DCore.supervoxels.graph import graph_supervoxels  # noqa: E402
from VISTA3DCore.supervoxels.grid import WorkingGrid, working_grid  # noqa: E402
from VISTA3DCore.supervoxels.medsam_lite import MedSamLite, fetch_weights  # noqa: E402
from VISTA3DCore.supervoxels.quality import measure_quality  # noqa: E402

_HOW = ("exact", "near")


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(_memory(options)))
        return
    if options.memory:
        settings = {"generator": options.generator, "size": "x".join(map(str, options.memory)), "side": "memory"}
        print(json.dumps(in_own_process(__file__, settings), indent=1))
        return
    rows = _compare(options)
    print(_table(rows))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, nargs="*", default=[100, 400])
    parser.add_argument("--distances", type=float, nargs="*", default=[3.0, 6.0, 12.0], help="mm between slices")
    parser.add_argument("--compactness", type=float, nargs="*", default=[PRESETS["code"]["compactness"], 0.1])
    parser.add_argument("--tolerance", type=float, default=3.0, help="mm (3: one voxel)")
    parser.add_argument("--json", help="also write the measurements to this file")
    parser.add_argument("--memory", type=int, nargs=3, metavar="N", help="measure a volume of this size instead")
    parser.add_argument("--generator", default="graph", help="of --memory")
    parser.add_argument("--size", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def _compare(options: argparse.Namespace) -> list[dict]:
    sample = demonstration_ct()
    grid = working_grid(sample.volume, Details().spacing_mm, Details().most_voxels)
    reference = sample.reference[grid.box]
    encoder = MedSamLite(fetch_weights())
    rows: list[dict] = []

    def note(name: str, labels: np.ndarray, seconds: float) -> None:
        exact, near = (measure_quality(labels, reference, grid.spacing, mm) for mm in (0.0, options.tolerance))
        rows.append({"name": name, "seconds": seconds, "exact": asdict(exact), "near": asdict(near)})
        print(_line(rows[-1]), file=sys.stderr, flush=True)

    counts: dict[int, int] = {}
    for distance in options.distances:
        with feature_file((*grid.image.shape, encoder.channels)) as features:
            started = time.perf_counter()
            slices = accumulate(features, sample.volume.array, grid, encoder, Slicing(distance))
            encoding = time.perf_counter() - started
            for segments in options.segments:
                for compactness in options.compactness:
                    labels, seconds = _timed(cluster, features, grid, segments, compactness, 3.0)
                    counts[segments] = int(labels.max())
                    name = f"light encoder, {distance:g} mm ({slices} slices), {segments}, compactness {compactness:g}"
                    note(name, labels, encoding + seconds)
            del features
    for segments, count in counts.items():
        _without_encoder(grid, count, f"for {segments}", note)
    return rows


def _without_encoder(grid: WorkingGrid, count: int, title: str, note) -> None:
    labels, seconds = _timed(graph_supervoxels, grid, count)
    note(f"graph, {title}", labels, seconds)
    intensities = np.clip(grid.image, -160, 240)[..., None]
    labels, seconds = _timed(cluster, intensities, grid, count, 0.1, 3.0)
    note(f"SLIC on intensities, {title}", labels, seconds)
    labels, seconds = _timed(cluster, np.zeros_like(intensities), grid, count, 1.0, 0.0)
    note(f"SLIC on nothing (blocks), {title}", labels, seconds)


def _timed(function, *arguments) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


def _line(row: dict) -> str:
    exact, recalls = row["exact"], [f"{row[how]['boundary_recall']:.3f} ({row[how]['chance']:.3f})" for how in _HOW]
    cells = [row["name"], str(exact["count"]), *recalls, f"{exact['achievable_dice']:.3f}", f"{row['seconds']:.0f}"]
    return f"| {' | '.join(cells)} |"


def _table(rows: list[dict]) -> str:
    head = "| Supervoxels | count | recall at 0 mm (chance) | recall within tolerance (chance) | Dice | s |"
    return "\n".join([head, "|---|--:|--:|--:|--:|--:|", *map(_line, rows)])


def _memory(options: argparse.Namespace) -> dict:
    """Stretch the demonstration CT to the wanted size, at 0.8 x 0.8 x 1 mm, and measure the whole process."""
    shape = tuple(int(size) for size in options.size.split("x"))
    array = np.rint(demonstration_ct().volume.array).astype(np.int16)
    for axis, size in enumerate(shape):
        array = np.take(array, np.minimum(np.arange(size) * array.shape[axis] // size, array.shape[axis] - 1), axis)
    volume = Volume(array, np.diag([0.8, 0.8, 1.0, 1.0]))
    before = peak_memory()
    details = replace(Details(), slice_mm=60.0)  # memory does not depend on the number of slices
    report = compute_supervoxels(volume, options.generator, details=details).report
    return {"volume_mb": volume.array.nbytes / 1e6, "before_mb": before / 1e6, "peak_mb": peak_memory() / 1e6} | report


if __name__ == "__main__":
    main()
