"""A run of training in a process of its own: ``python training_child.py FOLDER [NAME=VALUE ...]``.

It is killed by a test, started by torchrun in another. ``TRAINING_CHILD_WORKERS`` says how many processes load.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from training_phantoms import phantom, recipe, task

from VISTA3DCore.training.loop import Trainer


def main() -> None:
    """Train both branches on two phantoms, with everything that has a state: clicks, average, accumulation."""
    torch.set_num_threads(1)
    changes = ("steps=10", "batch=2", "prompts.iterations=2", "optimizer.average_decay=0.9", *sys.argv[2:])
    chosen = recipe(
        "mini",
        "prompts.drop_clicks=0.5",
        "batch=1",
        "data.augmentation=few-cases",
        "data.crop=16",
        "model={}",
        "precision=fp32",
        *changes,
    )
    workers = int(os.environ.get("TRAINING_CHILD_WORKERS", "0"))
    Trainer(task(chosen, [phantom(0), phantom(1)]), Path(sys.argv[1]), device="cpu", workers=workers).run()


if __name__ == "__main__":
    main()
