"""The recipe of the small model that the repository carries.

``python -m VISTA3DCore.training.mini --data FOLDER --run runs/mini`` trains it, resuming where it was stopped;
``--export FILE`` writes the result.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.datasets import Case, LoadedCase, load_case, read_index, trained_classes
from VISTA3DCore.training.loop import Trainer, TrainingConfig

MODEL = ModelConfig(
    name="mini", width=16, blocks_down=(1, 2, 2, 4), window=(64, 64, 64), spacing=(3.0, 3.0, 3.0), n_classes=133
)
WEIGHTS = {"lidc-idri-0001": 4.0, "totalseg_s0009": 4.0, "totalseg_s0003": 1.2, "pancreas_ctcb_001": 0.5}
"""Completely annotated trunks teach most; the rest has a small share each."""
OTHER_WEIGHT = 0.12
MINIMUM_VOXELS = 20


def training_cases(data: Path, extra: Path | None) -> list[Case]:
    """Return the cases of ``data``'s index (split ``train``) and of the optional folder ``extra``.

    ``extra`` holds one more completely annotated CT: ``ct.nii.gz``, ``label.nii.gz`` and ``classes.json`` (label
    value -> class indices), with its name in ``name.txt``.
    """
    cases = read_index(data)
    if extra is not None:
        classes = {int(value): tuple(ids) for value, ids in json.loads((extra / "classes.json").read_text()).items()}
        name = (extra / "name.txt").read_text().strip()
        cases.append(Case(name, extra / "ct.nii.gz", extra / "label.nii.gz", classes, complete=True))
    return [replace(case, weight=WEIGHTS.get(case.name, OTHER_WEIGHT)) for case in cases]


def load_cases(data: Path, extra: Path | None, crop: int) -> list[LoadedCase]:
    """Load what can teach the model: cases without any of its structures are left out."""
    loaded = [load_case(case, MODEL, crop) for case in training_cases(data, extra)]
    return [case for case in loaded if case.annotated]


def main() -> None:
    """Parse the command line and train or export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.json")
    parser.add_argument("--extra", type=Path, help="folder of one more completely annotated CT")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run's state")
    parser.add_argument("--steps", type=int, default=TrainingConfig.steps)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop (resumably) after this time")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training = TrainingConfig(steps=arguments.steps)
    cases = load_cases(arguments.data, arguments.extra, training.crop)
    classes = trained_classes(cases, MINIMUM_VOXELS)
    print(f"{len(cases)} cases, {len(classes)} classes", flush=True)  # noqa: T201
    trainer = Trainer(replace(MODEL, classes=classes), training, cases, classes, arguments.run / "state.pt")
    trainer.run(time.monotonic() + arguments.minutes * 60, _print)


def _print(step: int, losses: dict[str, float]) -> None:
    text = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
    print(f"{time.strftime('%H:%M:%S')}  step {step}  {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
