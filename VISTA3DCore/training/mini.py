"""The recipe of the small model that the repository carries.

``python -m VISTA3DCore.training.mini --data FOLDER --run runs/mini`` trains it, resuming where it was stopped;
``--start MODEL --click-only`` trains the interactive branch on top of an automatic one. ``--export FILE`` writes the
averaged weights of the run as a model in fp16.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from VISTA3DCore.network.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.training.datasets import LoadedCase, load_case, read_index, trained_classes
from VISTA3DCore.training.loop import Trainer, TrainingConfig
from VISTA3DCore.training.packaged import packaged_case

MODEL = ModelConfig(
    name="mini",
    width=16,
    click_width=48,
    blocks_down=(1, 2, 2, 4),
    window=(48, 48, 48),
    spacing=(4.0, 4.0, 4.0),
    n_classes=133,
)
TRAINING = TrainingConfig(steps=4000, crop=60)
WEIGHTS = {"lidc-idri-0001": 4.0, "totalseg_s0009": 4.0, "totalseg_s0003": 1.2, "pancreas_ctcb_001": 0.5}
"""Completely annotated trunks teach most; the rest has a small share each."""
OTHER_WEIGHT = 0.12
MINIMUM_VOXELS = 20


def load_cases(data: Path, packages: Path, crop: int) -> list[LoadedCase]:
    """Load what teaches the model: split ``train`` of ``data``'s index, and the packaged chest CT.

    :param packages: folder in which files from packages are kept.
    :param crop: smallest side in voxels; smaller volumes are padded.
    """
    cases = [*read_index(data), packaged_case(packages)]
    weighted = [replace(case, weight=WEIGHTS.get(case.name, OTHER_WEIGHT)) for case in cases]
    loaded = [load_case(case, MODEL, crop) for case in weighted]
    return [case for case in loaded if case.annotated]


def main() -> None:
    """Parse the command line and train or export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.json")
    parser.add_argument("--packages", type=Path, default=user_data_dir() / "samples", help="keeps fetched files")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run's state")
    parser.add_argument("--steps", type=int, default=TRAINING.steps)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop (resumably) after this time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rate", type=float, default=TRAINING.learning_rate, help="peak learning rate")
    parser.add_argument("--click-only", action="store_true", help="train the interactive branch alone")
    parser.add_argument("--start", type=Path, help="begin a new run with the weights of this model")
    parser.add_argument("--export", type=Path, help="write the model here and stop, without training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training = replace(TRAINING, steps=arguments.steps, learning_rate=arguments.rate)
    if arguments.click_only:
        training = replace(training, click_only=True, click_interval=1)
    cases = load_cases(arguments.data, arguments.packages, training.crop)
    classes = trained_classes(cases, MINIMUM_VOXELS)
    print(f"{len(cases)} cases, {len(classes)} classes", flush=True)  # noqa: T201
    trainer = Trainer(replace(MODEL, classes=classes), training, cases, classes, arguments.run / "state.pt")
    if arguments.start and not trainer.step:
        trainer.start_from(load_checkpoint(arguments.start)[1])
    if arguments.export:
        save_checkpoint(arguments.export, trainer.model, trainer.average, torch.float16)
    else:
        trainer.run(time.monotonic() + arguments.minutes * 60, _print)


def _print(step: int, losses: dict[str, float]) -> None:
    text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
    print(f"{time.strftime('%H:%M:%S')}  step {step}  {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
