"""Time a training step of the small model beside what it was: ``python training_step.py [STEPS] [--window N]``.

Before: prompts for all structures at every voxel, MONAI's augmentation, torch's instance normalization in its own
memory layout. Now: all classes at a tenth of the voxels, synthetic patches, :mod:`VISTA3DCore.training.acceleration`.
Both learn from one labeled CT of the test data (``VISTA3D_TEST_DATA``), two patches a step, and alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from former_training import acceleration, labeled_cts

from VISTA3DCore.evaluation.data_list import DataList
from VISTA3DCore.training import loop
from VISTA3DCore.training.plan import Choices, planned
from VISTA3DCore.training.recipe import read_recipe

FORMER = (
    "data.synthetic=0.5",
    "data.augmentation=few-cases",
    "loss.dense=0",
    "loss.map=1.0",
    "prompts.max_background=8",
)


def trainer(folder: Path, name: str, changes: tuple[str, ...], lists: DataList) -> loop.Trainer:
    """Return a trainer that is about to begin."""
    recipe = read_recipe("mini", None, ["steps=1000", *changes])
    task = planned(recipe, [lists], choices=Choices(None, folder / "cache"))
    with acceleration(name == "now"):
        return loop.Trainer(task, folder / name, "cpu")


def main() -> None:
    """Print seconds per step of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int, nargs="?", default=5)
    parser.add_argument("--window", type=int, default=64)
    options = parser.parse_args()
    lists = labeled_cts(["totalseg_s0009"])
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    grid = f"model={{window: [{options.window}, {options.window}, {options.window}]}}"
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: trainer(Path(folder), name, (grid, *changes), lists)
            for name, changes in (("before", FORMER), ("now", ()))
        }
        batches = {name: run._batches() for name, run in runs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(options.steps + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run.learn(next(batches[name]))
                if number:  # the first step allocates
                    seconds[name].append(time.perf_counter() - start)
    before, now = (statistics.median(seconds[name]) for name in ("before", "now"))
    print(f"window {options.window}^3, two patches a step, medians of {options.steps} steps")
    print(f"before {before:.2f} s, now {now:.2f} s: {before / now:.1f} times cheaper")


if __name__ == "__main__":
    main()
