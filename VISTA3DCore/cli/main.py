"""The command line ``vista3d``: parses, calls the engine, prints. Every error is one sentence and an exit code."""

from __future__ import annotations

from typing import Annotated

import typer

from VISTA3DCore import __version__
from VISTA3DCore.cli import (
    classes,
    click,
    demo,
    doctor,
    evaluate,
    finetune,
    models,
    prepare,
    segment,
    supervoxels,
    train,
)
from VISTA3DCore.cli.command import Command, CommandGroup
from VISTA3DCore.cli.console import print_text

app = typer.Typer(
    cls=CommandGroup,
    name="vista3d",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 unexpected error, 2 wrong usage or unknown structure, 3 input, 4 model, 5 device, "
    "6 output, 130 cancelled.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_text(f"vista3d {__version__}")
        raise typer.Exit()


@app.callback()
def vista3d(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show Python's traceback of an error.")] = False,
) -> None:
    """VISTA3D: a CT goes in, named structures come out.

    **First steps**

    - `vista3d demo`: a real CT, segmented and shown
    - `vista3d segment ct.nii.gz -o organs.seg.nrrd`: your own CT
    - `vista3d click ct.nii.gz --class liver --positive 42,-10,88 -o liver.seg.nrrd`: point at it, correct it
    - `vista3d classes --search kidney`: what can be asked for
    - `vista3d doctor`: what this computer can do
    """


app.command(cls=Command)(segment.segment)
app.command(cls=Command)(click.click)
app.command(cls=Command)(classes.classes)
app.add_typer(models.app, name="models")
app.add_typer(evaluate.app, name="evaluate")
app.command(cls=Command)(supervoxels.supervoxels)
app.command(cls=Command)(prepare.prepare)
app.command(cls=Command)(train.train)
app.command(cls=Command)(finetune.finetune)
app.command(cls=Command)(demo.demo)
app.command(cls=Command)(doctor.doctor)
