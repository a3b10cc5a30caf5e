"""``vista3d evaluate paper``: the layout of the paper's table 1, with one's own numbers beside the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from VISTA3DCore.cli import evaluation
from VISTA3DCore.cli.console import say
from VISTA3DCore.cli.outputs import check_extra
from VISTA3DCore.errors import InputError, OutputError

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.evaluator import Evaluation

TABLE_MD = "table1.md"

File = Annotated[Path, typer.Argument(metavar="FILE.json", help="Where the datasets are; see --template.")]
Template = Annotated[bool, typer.Option("--template", help="Write FILE.json to be filled in, and stop.")]
Variants = Annotated[
    list[evaluation.Variant],
    typer.Option("--variant", help="paper: as the published numbers; honest: as a user; may be repeated."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="The report; the same command again resumes it."),
]


def paper(  # noqa: PLR0913, PLR0917 - each parameter is an option
    file: File,
    template: Template = False,
    variant: Variants = [evaluation.Variant.paper],  # noqa: B006 - typer copies it
    tolerance: evaluation.Tolerance = 3.0,
    model: evaluation.Model = "",
    device: evaluation.Device = "auto",
    seed: evaluation.Seed = 0,
    output: Output = None,
    as_json: evaluation.AsJson = False,
    quiet: evaluation.Quiet = False,
) -> None:
    """Repeat table 1 of the VISTA3D paper on your copies of its datasets; published numbers stand beside yours.

    The lists of test cases are in Project-MONAI/VISTA, folder vista3d/data/jsons. Rows without a folder are left out.

    **Examples**

    - `vista3d evaluate paper table1.json --template`
    - `vista3d evaluate paper table1.json -m vista3d-ct -o report/`
    """
    if template:
        _write_template(file)
        return
    if output is None:
        raise InputError("Give a folder for the report with --output.")
    from VISTA3DCore.evaluation.paper_table import OURS, paper_tasks
    from VISTA3DCore.evaluation.settings import Settings

    variants = tuple(dict.fromkeys(one.value for one in variant))
    jobs = []
    for task in paper_tasks(file):
        settings = Settings(tuple(OURS), variants, task.classes, clicks=1, tolerance_mm=tolerance, seed=seed)
        jobs.append(evaluation.Job(task.row.name, task.tasks, settings))
    evaluation.run(jobs, output, model, device, as_json, quiet, _table)


def _table(measured: Evaluation, facts: dict[str, str]) -> dict[str, bytes]:
    from VISTA3DCore.evaluation.paper_table import paper_table

    head = "".join(f"- **{name}**: {value}\n" for name, value in facts.items())
    return {TABLE_MD: f"{paper_table(measured.rows)}\n{head}".encode()}


def _write_template(file: Path) -> None:
    from VISTA3DCore.evaluation.paper_table import template
    from VISTA3DCore.imaging.output import bytes_encoder, write_files

    check_extra(file, "the template", ".json")
    if file.exists():
        raise OutputError(f"'{file}' exists already; choose another name for the template.")
    write_files({file: bytes_encoder((json.dumps(template(), indent=2) + "\n").encode())})
    say(f"Wrote {file}: give 'list' (paths are relative to this file) and 'root' for each dataset that you have.")
