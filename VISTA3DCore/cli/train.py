"""``vista3d train``: one of the stages, from data lists to a model."""

from __future__ import annotations

from typing import Annotated

import typer

from VISTA3DCore.cli import training_run
from VISTA3DCore.cli.evaluation import Device, Quiet


def train(  # noqa: PLR0913, PLR0917 - each parameter is an option
    stage: Annotated[
        str,
        typer.Argument(
            metavar="STAGE",
            help="interactive, interactive-finetuning, automatic, automatic-finetuning (the paper's four), or mini.",
        ),
    ],
    data: training_run.Data,
    run: training_run.Run = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="The model to begin with: that of the stage before. Default: nothing."),
    ] = None,
    config: training_run.Config = None,
    changes: training_run.Changes = None,
    fold: training_run.Fold = None,
    check: training_run.Check = None,
    minutes: training_run.Minutes = None,
    workers: training_run.Workers = 0,
    cache: training_run.Cache = None,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a model, stage by stage. A run that was stopped or killed goes on where it was.

    **Examples**

    - `vista3d train automatic --data lists/mine.json --check`: what is wrong with the data
    - `vista3d train interactive --data a.json --data b.json --run runs/1 --fold 0`
    - `vista3d train automatic --data a.json --run runs/3 --start runs/2/model.safetensors --set batch=4`
    - `torchrun --nproc-per-node 4 -m -- VISTA3DCore.cli train automatic --data a.json --run runs/3 --set batch=4`
    """
    training_run.require_training()
    from VISTA3DCore.training.plan import Choices, expected_model, planned, read_start
    from VISTA3DCore.training.recipe import read_recipe

    recipe = read_recipe(stage, config, changes or ())
    lists = training_run.read_lists(data)
    begin = None if start is None else read_start(start)
    session = training_run.Session(run, device, workers, minutes, check, quiet)
    training_run.conduct(
        session,
        lists,
        lambda: expected_model(recipe, begin),
        lambda progress: planned(recipe, lists, begin, choices=Choices(fold, cache), progress=progress),
        fold,
    )
