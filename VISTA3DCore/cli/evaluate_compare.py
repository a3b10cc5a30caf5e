"""``vista3d evaluate compare``: did a model get better?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from VISTA3DCore.cli import evaluation
from VISTA3DCore.cli.console import print_json, say, show
from VISTA3DCore.cli.outputs import check_extra

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.comparison import Difference

First = Annotated[Path, typer.Argument(metavar="A", help="A report's folder, or its results.csv.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same data and protocol.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE.md", help="Write it as Markdown, with every structure.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the intervals.")]


def compare(
    first: First, second: Second, output: Output = None, seed: Seed = 0, as_json: evaluation.AsJson = False
) -> None:
    """Compare two evaluations: paired differences with bootstrap intervals (95 %, whole cases are drawn).

    **Examples**

    - `vista3d evaluate compare before/ after/`
    - `vista3d evaluate compare before/ after/ -o comparison.md`
    """
    from VISTA3DCore.evaluation.comparison import FEW_CASES, comparison_markdown
    from VISTA3DCore.evaluation.comparison import compare as compare_rows
    from VISTA3DCore.evaluation.results import read_results
    from VISTA3DCore.imaging.output import bytes_encoder, write_files

    if output is not None:
        check_extra(output, "the comparison", ".md")
    rows = read_results(first), read_results(second)
    differences = compare_rows(*rows, seed)
    if output is not None:
        text = comparison_markdown((str(first), str(second)), *rows, seed)
        write_files({output: bytes_encoder(text.encode())})
    if as_json:
        print_json([{**asdict(one), "mean": one.mean, "verdict": one.verdict} for one in differences])
        return
    show(_table(differences))
    if any(one.cases < FEW_CASES for one in differences):
        say(f"Note: with fewer than {FEW_CASES} cases such intervals are too narrow; do not rely on them.", "yellow")
    if output is not None:
        say(f"Wrote {output}")


def _table(differences: list[Difference]) -> Table:
    from VISTA3DCore.evaluation.summary import protocol_title

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("dataset", "protocol", "metric"):
        table.add_column(name)
    for name in ("cases", "A", "B", "B - A", "95 % interval", "B is"):
        table.add_column(name, justify="right")
    for one in differences:
        numbers = (f"{one.first:.3f}", f"{one.second:.3f}", f"{one.mean:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}")
        names = (one.dataset, protocol_title(one.protocol, one.variant), one.metric, str(one.cases))
        table.add_row(*names, *numbers, one.verdict)
    return table
