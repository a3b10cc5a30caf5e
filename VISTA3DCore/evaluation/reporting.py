"""A report's folder: every number as CSV, the summary as Markdown, Dice as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from VISTA3DCore.evaluation.campaign import Evaluation
from VISTA3DCore.evaluation.clicking import AUTOMATIC, NOTHING, Curve
from VISTA3DCore.evaluation.picture import report_png
from VISTA3DCore.evaluation.protocols import HONEST, ZERO_SHOT
from VISTA3DCore.evaluation.report import draw_curves
from VISTA3DCore.evaluation.results import (
    CURVES_CSV,
    CURVES_PNG,
    REPORT_MD,
    REPORT_PNG,
    RESULTS_CSV,
    Row,
    curves_csv,
    results_csv,
    write_bytes,
)
from VISTA3DCore.evaluation.summary import markdown

# How the pictures of curves call the variants.
_CLICKING = {HONEST: "honest"}


def write_report(
    folder: Path, title: str, facts: dict[str, str], evaluation: Evaluation, more: dict[str, bytes] | None = None
) -> list[Path]:
    """Write ``results.csv``, ``report.md`` and ``report.png``, and where clicks were set one after another
    ``curves.csv`` and ``curves.png``; all of them appear together.

    :param facts: what was measured, name -> value, for the head of the report.
    :param more: further files, name -> content.
    :return: the files.
    :raises OutputError: if one cannot be written.
    """
    rows = evaluation.rows
    files = {RESULTS_CSV: results_csv(rows), **(more or {})}
    if any(row.dice is not None for row in rows):
        files[REPORT_PNG] = report_png(rows, title)
    if any(row.curve for row in rows):
        files |= {CURVES_CSV: curves_csv(rows), CURVES_PNG: _curves_png(rows, title)}
    pictures = "".join(f"\n![{name}]({name})\n" for name in files if name.endswith(".png"))
    text = markdown(title, facts, rows, evaluation.failures) + pictures
    files[REPORT_MD] = text.encode()
    written = {folder / name: content for name, content in files.items()}
    write_bytes(written)
    return list(written)


def _curves_png(rows: Sequence[Row], title: str) -> bytes:
    curves = [
        Curve(
            structure=row.structure,
            protocol=_CLICKING.get(row.variant, "oracle_best_so_far"),
            start=NOTHING if row.protocol == ZERO_SHOT else AUTOMATIC,
            dice=row.curve,
            case=row.case,
            zero_shot=row.protocol == ZERO_SHOT,
        )
        for row in rows
        if row.curve
    ]
    buffer = io.BytesIO()
    draw_curves(curves, f"Dice against clicks: {title}").savefig(buffer, format="png", dpi=150, facecolor="white")
    return buffer.getvalue()
