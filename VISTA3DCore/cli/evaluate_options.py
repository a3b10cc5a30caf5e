"""Options that the commands of ``vista3d evaluate`` share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from VISTA3DCore.cli.command import structure_names
from VISTA3DCore.cli.segment import Preset, Restoration


class Variant(str, Enum):
    """Who decides which results count."""

    honest = "honest"
    paper = "paper"


Classes = Annotated[
    list[str],
    typer.Option("--classes", "-c", metavar="NAMES", help="As for 'segment'; default: all of the reference."),
]
Clicks = Annotated[
    int,
    typer.Option("--clicks", "-n", min=1, help="How many clicks the honest 'auto+point' and 'zero-shot' set at most."),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the protocols that click at random.")]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="NAME|FILE", help="Default: vista3d-ct if it was downloaded, else the small 'mini'."
    ),
]
Device = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 ... or mps.")]
AutomaticPreset = Annotated[Preset, typer.Option("--preset", help="Of the automatic result, as for 'segment'.")]
AutomaticRestoration = Annotated[
    Restoration, typer.Option("--restoration", help="Of the automatic result, as for 'segment'.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON for programs.")]
Folder = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FOLDER", help="The report; the same command again goes on where it was."),
]
Tolerance = Annotated[float, typer.Option("--tolerance", min=0.0, metavar="MM", help="Of the surface Dice.")]


def names_in(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in several texts, split at commas."""
    return structure_names(texts) if texts else ()
