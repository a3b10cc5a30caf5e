"""Write a report: every number as CSV, the summary as Markdown, Dice as pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from VISTA3DCore.evaluation.evaluator import Evaluation
from VISTA3DCore.evaluation.figures import curves_encoder, dice_encoder
from VISTA3DCore.evaluation.markdown import number, table
from VISTA3DCore.evaluation.results import (
    CURVES_CSV,
    RESULTS_CSV,
    Failure,
    Row,
    clicks_csv,
    curves_csv,
    results_csv,
)
from VISTA3DCore.evaluation.settings import HONEST
from VISTA3DCore.evaluation.summary import Group, Summary, groups_of, mean_curve, overall, per_structure, protocol_title
from VISTA3DCore.imaging.output import Encoder, bytes_encoder, write_files
from VISTA3DCore.progress import Progress

REPORT_MD, REPORT_PNG, CURVES_PNG = "report.md", "report.png", "curves.png"
_HEADS = ("Cases", "Dice", "Surface Dice", "HD95 (mm)", "Volume error", "Missed", "Invented")
_ORACLE = {"point", "auto+point", "zero-shot"}
_NOTES = """\
Dice and surface Dice: 1 is perfect; a structure that was missed counts as 0. HD95: median over the cases in which both
the reference and the model have voxels. Volume error: mean of |predicted - reference| / reference. Missed: the model
found nothing of what is there; invented: it found what the reference does not hold. A dataset's figures are means over
its structures of their means over cases.
"""
_ORACLE_NOTE = """\
The variant *paper* of protocols with clicks looks at the reference to place clicks in every window or to keep the best
result. It is how the published numbers were measured, and an upper bound that no user reaches.
"""


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
    tables = {RESULTS_CSV: results_csv(rows), **(more or {})}
    pictures: dict[str, Encoder] = {}
    if any(row.dice is not None for row in rows):
        pictures[REPORT_PNG] = dice_encoder(rows, title)
    if any(row.curve for row in rows):
        tables[CURVES_CSV] = curves_csv(rows)
        pictures[CURVES_PNG] = curves_encoder([row for row in rows if row.curve], f"Dice against clicks: {title}")
    links = "".join(f"\n![{name}]({name})\n" for name in pictures)
    tables[REPORT_MD] = (markdown(title, facts, rows, evaluation.failures) + links).encode()
    files: dict[Path, Encoder] = {folder / name: bytes_encoder(content) for name, content in tables.items()}
    drawn = {folder / name: encoder for name, encoder in pictures.items()}
    return write_files(files | drawn, optional=drawn)


def write_click_report(
    rows: Sequence[Row], title: str, table: Path, plot: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    """Write Dice after each click as CSV, and a picture of its mean where a file for it is given.

    :return: the files.
    :raises OutputError: if one cannot be written.
    """
    pictures = {} if plot is None else {plot: curves_encoder(rows, f"Dice against clicks: {title}")}
    return write_files({table: bytes_encoder(clicks_csv(rows)), **pictures}, progress, optional=pictures)


def markdown(title: str, facts: dict[str, str], rows: Sequence[Row], failures: Sequence[Failure]) -> str:
    """Return the report as Markdown.

    :param facts: what was measured, name -> value, for the head.
    """
    groups = groups_of(rows)
    blocks = [f"# {title}", _facts(facts), "## Summary", _overview(groups), _NOTES.strip()]
    if any(protocol in _ORACLE and variant != HONEST for _, protocol, variant in groups):
        blocks.append(_ORACLE_NOTE.strip())
    for dataset in dict.fromkeys(name for name, _, _ in groups):
        own = {key: members for key, members in groups.items() if key[0] == dataset}
        blocks += [f"## {dataset}", *_comparison(own), *_details(own), *_curves(own)]
    if failures:
        blocks += ["## Not measured", _failures(failures)]
    return "\n\n".join(blocks) + "\n"


def _facts(facts: dict[str, str]) -> str:
    return "\n".join(f"- **{name}**: {value}" for name, value in facts.items())


def _cells(one: Summary) -> list[str]:
    percent = "–" if one.volume_error is None else f"{100 * one.volume_error:.0f} %"
    scores = [number(one.dice), number(one.surface_dice), number(one.hd95_mm, ".1f"), percent]
    return [str(one.cases), *scores, str(one.missed), str(one.invented)]


def _overview(groups: dict[Group, list[Row]]) -> str:
    lines = []
    for (dataset, protocol, variant), rows in groups.items():
        structures = sum(one.cases > 0 for one in per_structure(rows))
        cells = _cells(overall(dataset, rows))
        lines.append([dataset, protocol_title(protocol, variant), str(structures), *cells])
    return table(("Dataset", "Protocol", "Structures", *_HEADS), lines, texts=2)


def _comparison(groups: dict[Group, list[Row]]) -> list[str]:
    """Return a table of Dice with a column per protocol, where there are several."""
    if len(groups) < 2:
        return []
    columns = [{one.name: one for one in per_structure(rows)} for rows in groups.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    pick: Callable[[dict, str], str] = lambda column, name: number(column[name].dice) if name in column else "–"  # noqa: E731
    lines = [[name, *(pick(column, name) for column in columns)] for name in names]
    heads = ["Dice", *(protocol_title(protocol, variant) for _, protocol, variant in groups)]
    return [table(heads, lines)]


def _details(groups: dict[Group, list[Row]]) -> list[str]:
    blocks = []
    for (_, protocol, variant), rows in groups.items():
        lines = [[one.name, *_cells(one)] for one in per_structure(rows)]
        blocks += [f"### {protocol_title(protocol, variant)}", table(("Structure", *_HEADS), lines)]
    return blocks


def _curves(groups: dict[Group, list[Row]]) -> list[str]:
    """Return mean Dice after each click, a line per protocol that sets them one after another."""
    means = {key: mean_curve(rows) for key, rows in groups.items()}
    means = {key: mean for key, mean in means.items() if mean}
    if not means:
        return []
    longest = max(len(mean) for mean in means.values())
    lines = [
        [protocol_title(protocol, variant), *map(number, mean), *["–"] * (longest - len(mean))]
        for (_, protocol, variant), mean in means.items()
    ]
    return ["### Mean Dice after 0, 1, 2 ... clicks", table(("Protocol", *map(str, range(longest))), lines)]


def _failures(failures: Sequence[Failure]) -> str:
    cases: dict[tuple[str, str, str], list[str]] = {}
    for one in failures:
        cases.setdefault((one.dataset, one.case, one.reason), []).append(protocol_title(one.protocol, one.variant))
    lines = [
        f"- **{case}** of {dataset} ({', '.join(names)}): {reason}" for (dataset, case, reason), names in cases.items()
    ]
    return "\n".join(lines)
