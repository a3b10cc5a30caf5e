"""A report's folder: every number as CSV, the summary as Markdown, Dice as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from VISTA3DCore.evaluation.campaign import Evaluation
from VISTA3DCore.evaluation.clicking import AUTOMATIC, NOTHING, Curve
from VISTA3DCore.evaluation.picture import report_encoder
from VISTA3DCore.evaluation.protocols import HONEST, ZERO_SHOT
from VISTA3DCore.evaluation.report import curve_png_encoder
from VISTA3DCore.evaluation.results import (
    CURVES_CSV,
    CURVES_PNG,
    REPORT_MD,
    REPORT_PNG,
    RESULTS_CSV,
    Row,
    bytes_encoder,
    curves_csv,
    results_csv,
)
from VISTA3DCore.evaluation.summary import markdown
from VISTA3DCore.imaging.output import Encoder, write_files

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
    tables, pictures = {RESULTS_CSV: results_csv(rows), **(more or {})}, {}
    if any(row.dice is not None for row in rows):
        pictures[REPORT_PNG] = report_encoder(rows, title)
    if any(row.curve for row in rows):
        tables[CURVES_CSV] = curves_csv(rows)
        pictures[CURVES_PNG] = _curves_encoder(rows, title)
    links = "".join(f"\n![{name}]({name})\n" for name in pictures)
    tables[REPORT_MD] = (markdown(title, facts, rows, evaluation.failures) + links).encode()
    files = {folder / name: bytes_encoder(content) for name, content in tables.items()}
    drawn = {folder / name: encoder for name, encoder in pictures.items()}
    return write_files(files | drawn, optional=drawn)


def _curves_encoder(rows: Sequence[Row], title: str) -> Encoder:
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
    return curve_png_encoder(curves, f"Dice against clicks: {title}")
