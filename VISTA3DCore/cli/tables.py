"""Tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.statistics import StructureStatistics


def statistics_table(rows: list[StructureStatistics]) -> Table:
    """Return structure, volume, mean and SD in HU; the largest structure first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("structure", style="bold", no_wrap=True)
    for title in ("volume ml", "mean HU", "SD HU"):
        table.add_column(title, justify="right")
    for row in sorted(rows, key=lambda row: -row.volume_ml):
        volume = volume_text(row.volume_ml) if row.voxels else "-"
        table.add_row(row.display_name, volume, number(row.mean_hu, "{:.0f}"), number(row.sd_hu, "{:.0f}"))
    return table


def volume_text(ml: float) -> str:
    """Return a volume with as many digits as are of interest."""
    return f"{ml:.{2 if ml < 1 else 1 if ml < 100 else 0}f}"


def number(value: float | None, layout: str) -> str:
    """Return a value in a layout such as ``{:.2f}``, ``-`` for none."""
    return "-" if value is None else layout.format(value)
