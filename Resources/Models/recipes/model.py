"""Make the small model: train it, validate it on patients that were left out, and write its claims.

    python model.py --shared ../shared --run runs/model

The same command again continues where it stopped: each run resumes at its last state, and finished runs are kept.
What happens is written in mini.json. With --start, the runs that leave patients out are not made for the model itself:
it continues from other weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lists import write_list
from validate import main as validate

HERE = Path(__file__).parent
RESULT, LAST = "model.safetensors", "last.safetensors"


def main() -> None:
    """Train, validate, claim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="Folder with data, anatomies and pseudo.")
    parser.add_argument("--run", type=Path, required=True, help="Folder of the runs and of the result.")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="Training processes.")
    parser.add_argument("--share", type=float, default=1.0, help="Part of the steps, for a trial.")
    parser.add_argument("--start", type=Path, help="Continue from this model instead of from nothing.")
    parser.add_argument("--recipe", type=Path, default=HERE / "mini.json", help="Cases, runs and folds.")
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    plan = json.loads(options.recipe.read_text(encoding="utf-8"))
    lists = write_lists(plan["cases"], options)
    model, measured = options.start, {}
    for run in plan["runs"]:
        if options.start and "fold" in run:
            continue
        data = [lists["clicks"] if "config" in run else lists["labeled"]]
        if run.get("predictions"):
            data = [lists["kept"], predicted(lists["predict"], model, options.run)]
        model = train(run, options, data, model, options.share, run.get("fold"))
        if run.get("measured"):
            measured[run["fold"]] = model
    folds = {*plan["validation"]["folds"], *(run["fold"] for run in plan["runs"] if "fold" in run)}
    for fold in sorted(folds - set(measured)):
        held_out = None
        for run in plan["runs"]:
            if run["name"] in plan["validation"]["runs"]:
                share = options.share * plan["validation"]["share"]
                held_out = train(run, options, [lists["labeled"]], held_out, share, fold, f"-fold-{fold}")
        measured[fold] = held_out
    figures = options.run / "figures.json"
    figures.unlink(missing_ok=True)
    for fold, held_out in measured.items():
        validate("measure", str(held_out), str(lists["labeled"]), str(fold), str(figures))
    result = options.run / "vista3d-mini.safetensors"
    shutil.copyfile(model, result)
    validate("claim", str(result), str(figures))
    print(f"The model: {result}")


def write_lists(cases: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Path]:
    """Write the data lists: labeled cases, those without predictions, those that get some, and those for clicks."""
    automatic = [case for case in cases if not case.get("clicks")]
    chosen = {
        "labeled": [case for case in automatic if not case.get("unlabeled")],
        "kept": [case for case in automatic if not case.get("predict")],
        "predict": [case for case in automatic if case.get("predict")],
        "clicks": [case for case in cases if not case.get("unlabeled")],
    }
    lists = {name: options.run / f"{name}.json" for name in chosen}
    for name, some in chosen.items():
        write_list(some, options.shared, lists[name])
    return lists


def predicted(data: Path, model: Path, folder: Path) -> Path:
    """Let a model predict what is not labeled in the cases of a list; return the list with the predictions.

    The predictions of an earlier call are kept, because this model has not changed.
    """
    output = folder / "predicted"
    command = [sys.executable, "-m", "VISTA3DCore.cli", "prepare", "--data", str(data), "--model", str(model)]
    subprocess.run([*command, "--output", str(output)], check=True)
    return output / data.name


def train(
    run: dict[str, Any],
    options: argparse.Namespace,
    data: list[Path],
    start: Path | None,
    share: float,
    fold: int | None,
    suffix: str = "",
) -> Path:
    """Make one run, or continue it, and return its model: that of the last step."""
    folder = options.run / f"{run['name']}{suffix}"
    steps = max(1, round(run["steps"] * share))
    finished = folder / f"finished-{steps}"
    if finished.exists():  # made again, its file would have other bytes, and what began with it another start
        return _result(folder)
    command = [sys.executable, "-m"]
    if options.processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={options.processes}", "-m", "--"]
    command += ["VISTA3DCore.cli", "train", run["stage"], "--run", str(folder), "--cache", str(options.run / "cache")]
    command += [part for one in data for part in ("--data", str(one))] + ["--workers", "1"]
    command += ["--set", f"steps={steps}", *(part for change in run.get("set", ()) for part in ("--set", change))]
    command += ["--config", str(HERE / run["config"])] if "config" in run else []
    command += ["--start", str(start)] if start else []
    command += ["--fold", str(fold)] if fold is not None else []
    # Two processes with one thread each wait less for each other than one with two threads.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if options.processes > 1 else {}
    subprocess.run(command, check=True, env={**os.environ, **threads})
    finished.touch()
    return _result(folder)


def _result(folder: Path) -> Path:
    return folder / LAST if (folder / LAST).exists() else folder / RESULT


if __name__ == "__main__":
    main()
