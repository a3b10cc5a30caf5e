"""``vista3d evaluate``: how good a model is, measured against references."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from VISTA3DCore.cli import evaluate_clicks, evaluate_compare, evaluate_paper, evaluation
from VISTA3DCore.cli.command import Command
from VISTA3DCore.cli.segment import Preset, Restoration
from VISTA3DCore.errors import InputError

app = typer.Typer(no_args_is_help=True, invoke_without_command=True, rich_markup_mode="markdown")


class Protocol(str, Enum):
    """How the model is asked."""

    auto = "auto"
    point = "point"
    auto_point = "auto+point"
    zero_shot = "zero-shot"


Data = Annotated[
    list[Path],
    typer.Option("--data", metavar="LIST|FOLDER", help="A data list, or a folder with one; may be repeated."),
]
Section = Annotated[
    str, typer.Option("--section", "--split", metavar="NAME", help="Which cases: training, testing ...")
]
Fold = Annotated[int | None, typer.Option("--fold", help="Only the cases of one fold.")]
Protocols = Annotated[list[Protocol], typer.Option("--protocol", "-p", help="How the model is asked; may be repeated.")]
Variants = Annotated[
    list[evaluation.Variant],
    typer.Option("--variant", help="honest: as a user; paper: as the published numbers; may be repeated."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="The report; the same command again resumes it."),
]


@app.callback()
def evaluate(  # noqa: PLR0913, PLR0917 - each parameter is an option
    context: typer.Context,
    data: Data = [],  # noqa: B006 - typer copies it
    section: Section = "testing",
    fold: Fold = None,
    protocol: Protocols = [Protocol.auto],  # noqa: B006 - typer copies it
    variant: Variants = [evaluation.Variant.honest],  # noqa: B006 - typer copies it
    classes: evaluation.Classes = ["everything"],  # noqa: B006 - typer copies it
    clicks: evaluation.Clicks = 5,
    tolerance: evaluation.Tolerance = 3.0,
    model: evaluation.Model = "",
    device: evaluation.Device = "auto",
    preset: evaluation.AutomaticPreset = Preset.paper,
    restoration: evaluation.AutomaticRestoration = Restoration.smooth,
    seed: evaluation.Seed = 0,
    output: Output = None,
    as_json: evaluation.AsJson = False,
    quiet: evaluation.Quiet = False,
) -> None:
    """Measure a model against references: Dice, surface Dice, HD95 and volume error per structure and dataset.

    Writes results.csv (every number), report.md and report.png. A case that cannot be measured is named at the end
    and stops nothing; the same command resumes an interrupted evaluation.

    *honest* is what a user gets. *paper* is how VISTA3D's published numbers were measured: but for `auto`, the
    reference then helps, and no user reaches them.

    **Examples**

    - `vista3d evaluate --data cases/ -o report/`
    - `vista3d evaluate --data list.json -p auto -p point -p auto+point --variant honest --variant paper -o report/`
    - `vista3d evaluate --data lesions.json -p zero-shot -n 10 -o report/`
    - `vista3d evaluate compare before/ after/`: did it get better?
    - `vista3d evaluate paper table1.json -o report/`: the paper's table 1, on your copies of its datasets
    - `vista3d evaluate clicks -i ct.nii.gz -r labels.nii.gz -o clicks.csv --plot clicks.png`
    """
    if context.invoked_subcommand is not None:
        return
    if not data:
        raise InputError("Give a data list, or a folder with one, with --data.")
    if output is None:
        raise InputError("Give a folder for the report with --output.")
    from VISTA3DCore.evaluation.settings import Settings

    names = _unique(protocol), _unique(variant), evaluation.names_in(classes)
    settings = Settings(*names, clicks, tolerance, preset.value, restoration.value, seed)
    evaluation.run(evaluation.lists(data, section, fold, settings), output, model, device, as_json, quiet)


def _unique(chosen: Iterable[Enum]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.value for one in chosen))


app.command(cls=Command)(evaluate_clicks.clicks)
app.command(cls=Command)(evaluate_compare.compare)
app.command(cls=Command)(evaluate_paper.paper)
