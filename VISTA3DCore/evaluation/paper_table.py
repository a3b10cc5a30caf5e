"""The layout of table 1 of the VISTA3D paper: 14 datasets, the published Dice, and one's own beside it.

The datasets are not ours to give: a template names, for each row, the list of test cases (those of the paper are in
Project-MONAI/VISTA, ``vista3d/data/jsons``) and the folder of one's own copy. Rows without a folder are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import TESTING, read_data_list, read_json
from VISTA3DCore.evaluation.evaluator import Task, tasks_of
from VISTA3DCore.evaluation.markdown import number, table
from VISTA3DCore.evaluation.results import Row
from VISTA3DCore.evaluation.settings import HONEST, PAPER
from VISTA3DCore.evaluation.summary import groups_of, overall

#: The columns of the paper's table that our protocols repeat, and their titles there.
OURS = {"auto": "automatic", "point": "click", "auto+point": "auto+point"}


@dataclass(frozen=True)
class PaperRow:
    """A row of the table.

    :param name: of the dataset, as in the paper.
    :param list_file: of the paper's test cases; None where it was not published.
    :param labels: value in the dataset -> index of the structure.
    :param structures: indices of those that the row's mean is taken over.
    :param published: column -> Dice; None where the paper has none.
    :param favoured: columns whose method made the reference, or may have learned from its test cases.
    """

    name: str
    list_file: str | None
    labels: Mapping[str, int]
    structures: tuple[int, ...]
    published: Mapping[str, float | None]
    favoured: tuple[str, ...] = ()


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Return the rows in the order of the paper."""
    content = _content()
    return tuple(
        PaperRow(
            row["name"],
            row["list"],
            row["labels"],
            tuple(row["structures"]),
            row["published"],
            tuple(content["favoured"].get(row["name"], ())),
        )
        for row in content["rows"]
    )


def template() -> dict[str, dict[str, str | None]]:
    """Return what a user fills in: for each row the list of cases and the folder that its paths start from."""
    return {row.name: {"list": row.list_file, "root": None} for row in paper_rows()}


@dataclass(frozen=True)
class PaperTask:
    """The cases of one row.

    :param classes: names of the structures to measure.
    """

    row: PaperRow
    tasks: Sequence[Task]
    classes: tuple[str, ...]


def paper_tasks(path: Path) -> list[PaperTask]:
    """Read a filled-in template.

    A row may also have ``section`` (default: ``testing``) and ``labels`` (where a copy's values differ).

    :raises InputError: if it has another form, names no folder, or a list cannot be used.
    """
    filled, rows = read_json(path), {row.name: row for row in paper_rows()}
    if not isinstance(filled, dict) or not all(isinstance(one, dict) for one in filled.values()):
        raise InputError(f"'{path}' is no template of the paper's table; write one with --template.")
    unknown = [name for name in filled if name not in rows]
    if unknown:
        raise InputError(f"'{path}' names '{unknown[0]}'; the rows of the table are: {', '.join(rows)}.")
    found = [_task(rows[name], entry, path.parent) for name, entry in filled.items() if entry.get("root")]
    if not found:
        raise InputError(f"'{path}' names no folder; give 'root' for at least one dataset.")
    return found


def paper_table(rows: Sequence[Row]) -> str:
    """Return the table as Markdown: published Dice, and what was measured.

    :param rows: of an evaluation of :func:`paper_tasks`; the datasets are the rows' names.
    """
    means = {
        (dataset, protocol, variant): overall(dataset, members).dice
        for (dataset, protocol, variant), members in groups_of(rows).items()
    }
    variants = [one for one in (PAPER, HONEST) if any(variant == one for _, _, variant in means)]
    ours = [(protocol, variant) for variant in variants for protocol in OURS]
    shown = [row for row in paper_rows() if any(dataset == row.name for dataset, _, _ in means)]
    cases = {row.name: len({one.case for one in rows if one.dataset == row.name}) for row in shown}
    lines = [
        _line(row, [means.get((row.name, *one)) for one in ours], str(cases.get(row.name, "–"))) for row in paper_rows()
    ]
    lines += _averages(shown, [[means.get((row.name, *one)) for row in shown] for one in ours])
    published = [OURS.get(name, name) for name in _content()["columns"]]
    heads = ["Dice", *published, *(f"ours: {OURS[protocol]} ({variant})" for protocol, variant in ours), "Cases"]
    return "\n\n".join(["# Table 1 of the VISTA3D paper", table(heads, lines), _note()]) + "\n"


def _task(row: PaperRow, entry: Mapping[str, Any], folder: Path) -> PaperTask:
    if not isinstance(entry.get("list"), str):
        raise InputError(f"The row '{row.name}' has a folder but no list of cases; give 'list'.")
    instead = {
        "name": row.name,
        "root": str((folder / str(entry["root"])).resolve()),
        "labels": entry.get("labels", dict(row.labels)),
    }
    tasks = tasks_of(read_data_list(folder / entry["list"], instead=instead), str(entry.get("section", TESTING)))
    known = catalogue()
    return PaperTask(row, tasks, tuple(known[index].name for index in row.structures))


def _line(row: PaperRow, measured: Sequence[float | None], cases: str) -> list[str]:
    published = [number(row.published[name]) + ("†" if name in row.favoured else "") for name in _content()["columns"]]
    return [row.name, *published, *map(number, measured), cases]


def _averages(shown: Sequence[PaperRow], measured: Sequence[Sequence[float | None]]) -> list[list[str]]:
    """Return the paper's averages, and those over the datasets that were measured."""
    lines = []
    for title, rows, own in (
        ("Average", paper_rows(), [[None]] * len(measured)),
        (f"Average of the {len(shown)} measured", shown, measured),
    ):
        published = [[row.published[name] for row in rows] for name in _content()["columns"]]
        lines.append([title, *(number(_mean(column)) for column in (*published, *own)), ""])
    return lines


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _note() -> str:
    return (
        f"Published numbers: {_content()['source']}; automatic, click and auto+point are VISTA3D's. † favoured: the "
        "reference was made with it, and test cases may be in its training. Published click and auto+point were "
        "measured as our variant *paper*, with the reference in the loop; *honest* is what a user gets. A dash: not "
        "published, or not measured."
    )


@cache
def _content() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("paper_table.json").read_text(encoding="utf-8"))
