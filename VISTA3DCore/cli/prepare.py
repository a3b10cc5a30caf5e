"""``vista3d prepare``: pseudo-labels and supervoxels for a data list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli import training_run
from VISTA3DCore.cli.console import print_json, say, spoken_warnings
from VISTA3DCore.cli.evaluation import AsJson, Device, Quiet
from VISTA3DCore.cli.reporting import Reporter
from VISTA3DCore.errors import InputError

if TYPE_CHECKING:
    from VISTA3DCore.progress import Progress
    from VISTA3DCore.training.preparation import Prepared


def prepare(
    data: training_run.Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Gets the maps and the new list.")],
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="NAME|FILE", help="Predicts pseudo-labels; without it, none are made."),
    ] = "",
    supervoxels: Annotated[
        str, typer.Option(metavar="GENERATOR", help="As for 'supervoxels --generator'; without it, none are made.")
    ] = "",
    agreement: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Dice between a structure's predictions from which it is kept.")
    ] = 0.8,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add pseudo-labels and supervoxels to the training cases of data lists.

    A model predicts what was not annotated, three times, of the CT as it is and of the CT a little larger and smaller.
    Where the predictions differ, the voxels are unknown (255); structures whose predictions differ much are left out.
    Maps that the same model made with the same options are kept.

    **Examples**

    - `vista3d prepare --data lists/mine.json -m vista3d-ct --supervoxels auto -o prepared/`
    - `vista3d train interactive --data prepared/mine.json --run runs/1`
    """
    if not model and not supervoxels:
        raise InputError("Nothing was asked for; give --model NAME, --supervoxels GENERATOR, or both.")
    with spoken_warnings(), Reporter(quiet) as reporter:
        made = _prepared(data, output, model, supervoxels, agreement, device, reporter.progress)
        for one in made:
            report = {"cases": one.report, "failures": one.failures}
            one.path.with_suffix(".report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json([{"list": str(one.path), "cases": one.report, "failures": one.failures} for one in made])
    elif not quiet:
        _show(made)


def _prepared(
    data: Sequence[Path],
    output: Path,
    model: str,
    supervoxels: str,
    agreement: float,
    device: str,
    progress: Progress,
) -> list[Prepared]:
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.supervoxels.generation import PRESETS, Details, check_parameters
    from VISTA3DCore.training.preparation import prepare as prepare_list
    from VISTA3DCore.training.pseudo_labels import Reliability

    lists = training_run.read_lists(data)
    if supervoxels:
        check_parameters(supervoxels, details=Details(), **PRESETS["paper"])
    segmenter = Segmenter.from_pretrained(model, device, claimed_only=False) if model else None
    reliability = Reliability(agreement=agreement)
    parts = [progress.part(number / len(lists), (number + 1) / len(lists)) for number in range(len(lists))]
    return [
        prepare_list(one, output, segmenter, supervoxels or None, reliability, part)
        for one, part in zip(lists, parts, strict=True)
    ]


def _show(made: Sequence[Prepared]) -> None:
    for one in made:
        for case, about in one.report.items():
            kept = about.get("pseudo_label", {}).get("kept")
            told = [] if kept is None else [f"{len(kept)} structures predicted"]
            told += [f"{about['supervoxels']['count']} supervoxels"] if "supervoxels" in about else []
            say(f"{case}: {', '.join(told)}")
        for case, reason in one.failures.items():
            say(f"Not prepared: {case}: {reason}", "yellow")
        say(f"Wrote {one.path}")
