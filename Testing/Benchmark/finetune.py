"""What fine-tuning gives and costs: the small model learns a structure that it lacks from two real CTs.

``python Testing/Benchmark/finetune.py --new new.json --old old.json --run runs/heart``: two lists in the layout of
Documentation/training.md. ``new`` holds two training cases of the new structure and its test cases, ``old`` test cases
of structures that the model knows. Prints Dice before and after as Markdown; a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from VISTA3DCore.evaluation.data_list import TESTING, DataList, read_data_list
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.plan import planned, read_start
from VISTA3DCore.training.recipe import read_recipe


def dice_by_class(model: str | Path, data: DataList) -> dict[int, float]:
    """Return the mean Dice of each class over the test cases that show it, by the automatic branch."""
    segmenter = Segmenter.from_pretrained(model, device="auto", claimed_only=False)
    found: dict[int, list[float]] = {}
    for item in data.section(TESTING):
        wanted = {index: value for value, ids in item.classes.items() if len(ids) == 1 for index in ids}
        wanted = {index: value for index, value in wanted.items() if index in segmenter.available}
        label = np.asarray(Volume.read(item.label).array)
        with segmenter.open(Volume.read(item.image)) as session:
            answer = session.segment(sorted(wanted)) if wanted else None
        for index, value in wanted.items():
            target, mask = label == value, answer[index]
            if target.any():
                found.setdefault(index, []).append(2 * (target & mask).sum() / (target.sum() + mask.sum()))
    return {index: float(np.mean(values)) for index, values in sorted(found.items())}


def finetuned(start: str, new: DataList, run: Path, minutes: float, changes: list[str]) -> Path:
    """Fine-tune the automatic branch and return the model's file."""
    branch = ["frozen=[click_decoder, click_head]", "prompts.drop_clicks=1.0", "data.augmentation=few-cases"]
    recipe = read_recipe("finetune", changes=[*branch, *changes])
    trainer = Trainer(planned(recipe, [new], read_start(start)), run)
    return trainer.run(until=time.monotonic() + 60 * minutes).model


def main() -> None:
    """Parse the command line, fine-tune, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="mini")
    parser.add_argument("--new", type=Path, required=True)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    arguments = parser.parse_args()
    new, old = read_data_list(arguments.new), read_data_list(arguments.old)
    model = finetuned(arguments.start, new, arguments.run, arguments.minutes, arguments.changes)
    print("| Data | Class | before | after |\n|---|---|---|---|")
    for name, data in (("new", new), ("old", old)):
        before, after = (dice_by_class(one, data) for one in (arguments.start, model))
        for index in after:
            print(f"| {name} | {index} | {before.get(index, 0.0):.3f} | {after[index]:.3f} |")
        means = [np.mean([scores.get(index, 0.0) for index in after]) for scores in (before, after)]
        print(f"| {name} | mean | {means[0]:.3f} | {means[1]:.3f} |")


if __name__ == "__main__":
    main()
