"""Make the small model: train it, validate it on patients that were left out, and write its claims.

    python model.py --shared ../shared --run runs/model

The same command again continues where it stopped: each run resumes at its last state, and finished runs are kept.
What happens is written in mini.json.
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
    parser.add_argument("--predictions", type=Path, help="Folder with another model's label maps (see lists.py).")
    parser.add_argument("--recipe", type=Path, default=HERE / "mini.json", help="Cases, runs and folds.")
    options = parser.parse_args()
    options.run.mkdir(parents=True, exist_ok=True)
    plan, lists = json.loads(options.recipe.read_text(encoding="utf-8")), {}
    for name, clicks in (("mini", False), ("mini-clicks", True)):
        lists[name] = options.run / f"{name}.json"
        write_list(plan["cases"], options.shared, lists[name], clicks, options.predictions)
    start = None
    for run in plan["runs"]:
        start = train(run, options, lists, start, options.share)
    figures = options.run / "figures.json"
    figures.unlink(missing_ok=True)
    for fold in plan["validation"]["folds"]:
        held_out = None
        for run in plan["runs"]:
            if run["name"] in plan["validation"]["runs"]:
                held_out = train(run, options, lists, held_out, options.share * plan["validation"]["share"], fold)
        validate("measure", str(held_out), str(lists["mini"]), str(fold), str(figures))
    result = options.run / "vista3d-mini.safetensors"
    shutil.copyfile(start, result)
    validate("claim", str(result), str(figures))
    print(f"The model: {result}")


def train(
    run: dict[str, Any],
    options: argparse.Namespace,
    lists: dict[str, Path],
    start: Path | None,
    share: float,
    fold: int | None = None,
) -> Path:
    """Make one run, or continue it, and return its model: that of the last step."""
    folder = options.run / (run["name"] if fold is None else f"{run['name']}-fold-{fold}")
    steps = max(1, round(run["steps"] * share))
    finished = folder / f"finished-{steps}"
    if finished.exists():  # made again, its file would have other bytes, and what began with it another start
        return _result(folder)
    command = [sys.executable, "-m"]
    if options.processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={options.processes}", "-m", "--"]
    command += ["VISTA3DCore.cli", "train", run["stage"], "--run", str(folder), "--cache", str(options.run / "cache")]
    command += ["--data", str(lists["mini-clicks" if "config" in run else "mini"]), "--workers", "1"]
    command += ["--set", f"steps={steps}", *(part for change in run["set"] for part in ("--set", change))]
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
