"""Tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.statistics import StructureStatistics


def statistics_table(rows: list[StructureStatistics], dice_title: str | None = None) -> Table:
    """Return structure, volume, mean and SD in HU, and, with a title for it, Dice; the largest structure first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("structure", style="bold", no_wrap=True)
    for title in ("volume ml", "mean HU", "SD HU", *([dice_title] if dice_title else [])):
        table.add_column(title, justify="right")
    for row in sorted(rows, key=lambda row: -row.volume_ml):
        cells = [
            _volume(row.volume_ml) if row.voxels else "-",
            _number(row.mean_hu, "{:.0f}"),
            _number(row.sd_hu, "{:.0f}"),
        ]
        table.add_row(row.display_name, *cells, *([_number(row.dice, "{:.2f}")] if dice_title else []))
    return table


def _volume(ml: float) -> str:
    return f"{ml:.{2 if ml < 1 else 1 if ml < 100 else 0}f}"


def _number(value: float | None, layout: str) -> str:
    return "-" if value is None else layout.format(value)
