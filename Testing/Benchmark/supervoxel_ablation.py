"""The paper's ablation in miniature: do supervoxels help with structures that no label names, and which ones?

One network learns clicks from nothing, on label maps without the structures that are held out. From it each arm goes
on for the same number of steps, without supervoxels or with those of one generator, once per seed. All are then asked
zero-shot for the held-out structures and for lesions, click by click (honest: every click where the answer errs most).

    python Testing/Benchmark/supervoxel_ablation.py --arm none=less.json --arm graph=less_graph.json \\
        --arm medsam-lite=less_medsam.json --test organs.json --test lesions.json -c spleen,GTV_Mass --run runs/a

Arms are data lists of the same cases, in which the structures are background; the first one must have no supervoxels.
Prints Markdown. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from VISTA3DCore.evaluation.data_list import TESTING, DataList, read_data_list
from VISTA3DCore.evaluation.evaluator import measured, tasks_of
from VISTA3DCore.evaluation.settings import ZERO_SHOT, Settings
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.plan import planned, read_start
from VISTA3DCore.training.recipe import read_recipe

SMALL = (
    "model={name: ablation, width: 16, click_width: 48, blocks_down: [1, 2, 2, 4], window: [32, 32, 32], "
    "spacing: [6.0, 6.0, 6.0], n_classes: 133}",
    "minimum_voxels=20",
    "precision=bf16",
    "data.augmentation=few-cases",
    "prompts.iterations=3",
    "prompts.margin=0.0",
    "prompts.small_errors=true",
    "prompts.least_voxels=30",
    # Without it the arm that has no supervoxels would never see the token of unknown objects.
    "prompts.zero_shot_regular=0.25",
    "optimizer.clip=5.0",
    "optimizer.average_decay=0.995",
    "optimizer.final_rate=0.05",
    "saving.every=200",
)
RESAMPLES = 10_000


@dataclass(frozen=True)
class Arm:
    """One way of training, and the data for it."""

    name: str
    data: DataList


def main() -> None:
    """Parse the command line, train what is missing, measure, print the tables."""
    options = _options()
    arms = [Arm(name, read_data_list(path)) for name, _, path in (text.partition("=") for text in options.arm)]
    begin = _trained(arms[0].data, options.run / "start", options.pretraining, 0, None, 1e-3)
    curves = {}
    for seed in range(options.seeds):
        for arm in arms:
            folder = options.run / f"{arm.name}-{seed}"
            model = _trained(arm.data, folder, options.steps, seed + 1, begin, 5e-4)
            curves[arm.name, seed] = _curves(model, folder / "evaluation", options)
    curves["start", 0] = _curves(begin, options.run / "start" / "evaluation", options)
    print(report(curves, options.clicks, [arm.name for arm in arms], options.seeds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", action="append", required=True, metavar="NAME=LIST")
    parser.add_argument("--test", action="append", required=True, type=Path, metavar="LIST")
    parser.add_argument("-c", "--classes", required=True, metavar="NAMES", help="what was held out")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining", type=int, default=1500, metavar="STEPS")
    parser.add_argument("--steps", type=int, default=600, help="of each arm")
    parser.add_argument("--clicks", type=int, default=5)
    return parser.parse_args()


def _trained(data: DataList, folder: Path, steps: int, seed: int, start: Path | None, rate: float) -> Path:
    """Train, or go on, and return the model's file."""
    changes = [*SMALL, f"steps={steps}", f"seed={seed}", f"optimizer.learning_rate={rate}", "optimizer.warm_up=30"]
    task = planned(read_recipe("interactive", changes=changes), [data], start and read_start(str(start)))
    return Trainer(task, folder, "cpu").run().model


def _curves(model: Path, folder: Path, options: argparse.Namespace) -> dict[tuple[str, str], tuple[float, ...]]:
    """Return Dice after 0, 1, 2 ... clicks of each structure of each case."""
    names = tuple(name.strip() for name in options.classes.split(","))
    settings = Settings(protocols=(ZERO_SHOT,), classes=names, clicks=options.clicks)
    segmenter = Segmenter.from_pretrained(model, device="cpu", claimed_only=False)
    found = {}
    for path in options.test:
        result = measured(segmenter, tasks_of(read_data_list(path), TESTING), settings, folder)
        found |= {(row.case, row.structure): row.curve for row in result.rows}
    return found


Curves = Mapping[tuple[str, int], Mapping[tuple[str, str], tuple[float, ...]]]


def report(curves: Curves, clicks: int, arms: Sequence[str], seeds: int) -> str:
    """Return Dice after each click, differences to the first arm with intervals, and Dice by structure."""
    objects = sorted(set.intersection(*(set(one) for one in curves.values())))
    dice = {
        arm: np.array([[_padded(curves[arm, s][o], clicks) for o in objects] for s in range(seeds)]) for arm in arms
    }
    begin = np.array([_padded(curves["start", 0][one], clicks) for one in objects])
    lines = [f"Zero-shot Dice, {len(objects)} objects of {len({case for case, _ in objects})} cases, {seeds} seeds", ""]
    lines += [_row("after clicks", range(1, clicks + 1)), _row("---", ["---"] * clicks)]
    lines += [_row("start", [f"{value:.3f}" for value in begin.mean(axis=0)[1:]])]
    for arm in arms:
        mean, spread = dice[arm].mean(axis=(0, 1)), dice[arm].mean(axis=1).std(axis=0, ddof=1)
        lines.append(_row(arm, [f"{mean[n]:.3f} ± {spread[n]:.3f}" for n in range(1, clicks + 1)]))
    for arm in arms[1:]:
        ends = [_interval(dice[arm][..., n] - dice[arms[0]][..., n]) for n in range(1, clicks + 1)]
        lines.append(_row(f"{arm} - {arms[0]}", [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in ends]))
    lines += ["", _row("Dice after the last click", arms), _row("---", ["---"] * len(arms))]
    for number, (case, structure) in enumerate(objects):
        lines.append(_row(f"{case}: {structure}", [f"{dice[arm][:, number, -1].mean():.3f}" for arm in arms]))
    return "\n".join(lines)


def _padded(curve: Sequence[float], clicks: int) -> list[float]:
    """Return a curve of full length: it ends early where no error is left that could be clicked."""
    return [*curve, *[curve[-1]] * (clicks + 1 - len(curve))]


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of [seeds, objects] and its 95 % interval: seeds and objects are both drawn anew."""
    rng, (seeds, objects) = np.random.default_rng(0), differences.shape
    rows = rng.integers(seeds, size=(RESAMPLES, seeds, 1))
    columns = rng.integers(objects, size=(RESAMPLES, 1, objects))
    means = differences[rows, columns].mean(axis=(1, 2))
    return float(differences.mean()), *np.percentile(means, [2.5, 97.5]).tolist()


def _row(name: str, values: Sequence[object]) -> str:
    return f"| {name} | {' | '.join(str(value) for value in values)} |"


if __name__ == "__main__":
    main()
