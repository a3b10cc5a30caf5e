"""``vista3d finetune``: new structures from few cases, the old ones kept."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from VISTA3DCore.cli import training_run
from VISTA3DCore.cli.evaluation import Device, Quiet


class Branch(str, Enum):
    """What learns."""

    both = "both"
    automatic = "automatic"
    click = "click"


def finetune(  # noqa: PLR0913, PLR0917 - each parameter is an option
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to begin with: its name, or a file.")],
    data: training_run.Data,
    run: training_run.Run = None,
    branch: Annotated[Branch, typer.Option(help="What learns the new structures.")] = Branch.both,
    old: Annotated[
        list[Path] | None,
        typer.Option(metavar="LIST", help="Data with structures that the model knows, to rehearse; may be repeated."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.")] = None,
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
    """Teach a model new structures from a few labelled CTs.

    What the labels leave open is taken from the starting model, so that it goes on knowing what it knew; further data
    with old structures help. In the data list, give each new structure the index or name of a structure of the
    catalogue; objects with other names can only be clicked.

    **Examples**

    - `vista3d finetune vista3d-ct --data my_tumours.json --run runs/tumours`
    - `vista3d finetune mini --data two_hearts.json --run runs/heart --branch automatic --steps 300`
    """
    training_run.require_training()
    from VISTA3DCore.training.plan import Choices, expected_model, planned, read_start
    from VISTA3DCore.training.recipe import read_recipe

    branch_changes = _BRANCHES[branch] + ([f"steps={steps}"] if steps else [])
    recipe = read_recipe("finetune", config, [*branch_changes, *(changes or ())])
    lists, rehearsed = training_run.read_lists(data), training_run.read_lists(old or [])
    begin = read_start(model)
    session = training_run.Session(run, device, workers, minutes, check, quiet)
    training_run.conduct(
        session,
        lists,
        lambda: expected_model(recipe, begin),
        lambda progress: planned(recipe, lists, begin, rehearsed, Choices(fold, cache), progress),
        fold,
        rehearsed,
    )


_BRANCHES = {
    Branch.both: [],
    Branch.automatic: ["frozen=[click_decoder, click_head]", "prompts.drop_clicks=1.0"],
    Branch.click: ["frozen=[class_decoder, class_head, class_vectors]", "prompts.drop_label=1.0"],
}
