"""Compare what the cheap training step learns with what the former one did: ``python training_quality.py [STEPS]``.

Short runs of the small model from its published weights on a grid of 9 mm, on four labeled CTs of the test data
(``VISTA3D_TEST_DATA``), a fifth patient left out: three seeds with torch's instance normalization, its memory layout
and the loss at all voxels, and three with :mod:`VISTA3DCore.training.acceleration` and a tenth of the voxels. Prints
the Dice on fixed patches of the left-out patient. The former step should not be better than its own spread over seeds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from former_training import acceleration, labeled_cts

from VISTA3DCore.evaluation.data_list import DataList
from VISTA3DCore.models.checkpoints import load_checkpoint
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.training import loop
from VISTA3DCore.training.plan import Choices, planned
from VISTA3DCore.training.recipe import read_recipe

LEARNED = ("totalseg_s0003", "spl_abdomen_2015", "elastix_lung_baseline", "tptbox_L3")
LEFT_OUT = "totalseg_s0009"
CHANGES = (
    "model={spacing: [9, 9, 9], window: [32, 32, 32]}",
    "precision=fp32",
    "optimizer.warm_up=20",
    "optimizer.learning_rate=1e-3",
    "optimizer.average_decay=0.95",
    "validation.patches=24",
)


def run(folder: Path, name: str, seed: int, steps: int, lists: DataList) -> tuple[float, float]:
    """Return the Dice on the left-out patient after a short run, and its seconds per step."""
    slow = name == "former"
    changes = (*CHANGES, f"steps={steps}", f"seed={seed}", f"validation.every={steps}", *(["loss.dense=1.0"] * slow))
    start = load_checkpoint(ModelStore().resolve("mini"))[1]
    task = planned(read_recipe("mini", None, changes), [lists], choices=Choices(0, folder / "cache"))
    with acceleration(not slow):
        trainer = loop.Trainer(replace(task, start=start), folder / f"{name}-{seed}", "cpu")
        begun = time.perf_counter()
        outcome = trainer.run()
    return outcome.best or 0.0, (time.perf_counter() - begun) / steps


def main() -> None:
    """Print Dice and seconds of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int, nargs="?", default=150)
    options = parser.parse_args()
    lists = labeled_cts(LEARNED, LEFT_OUT)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("former", "now"):
            found[name] = [run(Path(folder), name, seed, options.steps, lists) for seed in range(3)]
            for seed, (dice, seconds) in enumerate(found[name]):
                print(f"{name}, seed {seed}: Dice {dice:.3f}, {seconds:.2f} s a step", flush=True)
    former, now = ([dice for dice, _ in found[name]] for name in ("former", "now"))
    print(
        f"former {min(former):.3f} to {max(former):.3f} (mean {statistics.mean(former):.3f}), "
        f"now {min(now):.3f} to {max(now):.3f} (mean {statistics.mean(now):.3f})"
    )


if __name__ == "__main__":
    main()
