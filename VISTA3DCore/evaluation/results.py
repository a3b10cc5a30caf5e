"""What an evaluation measured: one row for each structure of each case and protocol, as files that open again."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.settings import AUTO_POINT, BEST_SO_FAR, CLICKS, PAPER, ZERO_SHOT_PROTOCOLS
from VISTA3DCore.imaging.clicks import Click

RESULTS_CSV, CURVES_CSV = "results.csv", "curves.csv"


@dataclass(frozen=True)
class Row:
    """One structure of one case under one protocol.

    :param dataset: name of the data list.
    :param case: name in the list.
    :param structure: official name, or the reference's name of an object without class.
    :param index: of the structure; None for an object without class.
    :param protocol: as of :mod:`VISTA3DCore.evaluation.settings`, like the variant.
    :param outcome: as of :class:`VISTA3DCore.evaluation.metrics.Agreement`, like the next six.
    :param clicks: how many were set.
    :param seconds: of computing; for ``auto`` an equal share of the case's time.
    :param curve: Dice after 0, 1, 2 ... clicks, where they were set one after another.
    :param placed: the clicks, in order, where there is a curve.
    :param click_seconds: of computing, for each of them.
    """

    dataset: str
    case: str
    structure: str
    index: int | None
    protocol: str
    variant: str
    outcome: str
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    volume_error: float | None
    reference_ml: float
    predicted_ml: float
    clicks: int = 0
    seconds: float = 0.0
    curve: tuple[float, ...] = ()
    placed: tuple[Click, ...] = ()
    click_seconds: tuple[float, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What makes rows of two evaluations comparable."""
        return self.dataset, self.case, self.structure, self.protocol, self.variant

    @property
    def start(self) -> str:
        """What the first click meets: ``automatic`` or ``nothing``."""
        return "automatic" if self.protocol in (AUTO_POINT, CLICKS) else "nothing"

    @property
    def is_zero_shot(self) -> bool:
        """Whether the model was told no class."""
        return self.protocol in ZERO_SHOT_PROTOCOLS

    @property
    def simulation(self) -> str:
        """How clicks were set one after another and counted; the paper's zero-shot is an oracle."""
        return BEST_SO_FAR if self.variant == PAPER else self.variant


_CURVE_FIELDS = ("curve", "placed", "click_seconds")
_COLUMNS = tuple(field.name for field in fields(Row) if field.name not in _CURVE_FIELDS)
CLICK_COLUMNS = ("case", "structure", "protocol", "start", "zero_shot", "clicks", "dice", "clicks_used", "seconds")
CURVE_COLUMNS = ("dataset", "case", "structure", "protocol", "variant", "clicks", "dice")


@dataclass(frozen=True)
class Failure:
    """A case that could not be measured, and why, in one sentence."""

    dataset: str
    case: str
    protocol: str
    variant: str
    reason: str


def results_csv(rows: Iterable[Row]) -> bytes:
    """Return every number but the curves as CSV; nothing stands for no value."""
    return _csv(_COLUMNS, ([_text(getattr(row, name)) for name in _COLUMNS] for row in rows))


def curves_csv(rows: Iterable[Row]) -> bytes:
    """Return Dice after each click as CSV."""
    lines = (
        [row.dataset, row.case, row.structure, row.protocol, row.variant, clicks, _text(dice)]
        for row in rows
        for clicks, dice in enumerate(row.curve)
    )
    return _csv(CURVE_COLUMNS, lines)


def clicks_csv(rows: Iterable[Row]) -> bytes:
    """Return, as CSV, one line per case, structure, simulation, start and number of clicks.

    ``seconds`` is the time of the call that set this click, empty at 0 clicks and where no further click was set;
    ``clicks_used`` is the number of clicks that the whole curve has set.
    """
    lines = []
    for row in rows:
        times = ["", *(f"{seconds:.4f}" for seconds in row.click_seconds)]
        head = row.case, row.structure, row.simulation, row.start, int(row.is_zero_shot)
        for clicks, dice in enumerate(row.curve):
            seconds = times[clicks] if clicks < len(times) else ""
            lines.append((*head, clicks, f"{dice:.4f}", row.clicks, seconds))
    return _csv(CLICK_COLUMNS, lines, "\r\n")


def read_results(report: str | os.PathLike[str]) -> list[Row]:
    """Read the rows of a report.

    :param report: a report's folder, or its ``results.csv``.
    :raises InputError: if it holds none.
    """
    path = Path(report)
    path = path / RESULTS_CSV if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_row(line) for line in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}; give the folder of a report.") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"'{path}' is no table of results; give the folder of a report.") from error
    if not rows:
        raise InputError(f"'{path}' holds no results.")
    return rows


def save_rows(path: Path, key: str, rows: Sequence[Row]) -> None:
    """Keep what one case gave under one protocol; ``key`` stands for everything that the numbers depend on.

    :raises OutputError: if the file cannot be written.
    """
    content = json.dumps({"key": key, "rows": [asdict(row) for row in rows]}, indent=1)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def load_rows(path: Path, key: str) -> list[Row] | None:
    """Return kept rows; None if there are none, or they were made with something else."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] != key:
            return None
        return [_stored_row(row) for row in kept["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _stored_row(row: dict[str, Any]) -> Row:
    placed = tuple(Click(tuple(one["position"]), one["positive"]) for one in row.get("placed", ()))
    seconds = tuple(row.get("click_seconds", ()))
    return Row(**{**row, "curve": tuple(row["curve"]), "placed": placed, "click_seconds": seconds})


def _csv(columns: Sequence[str], lines: Iterable[Sequence[Any]], line_end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator=line_end)
    table.writerow(columns)
    table.writerows(lines)
    return text.getvalue().encode()


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = {}
    for field in fields(Row):
        if field.name in _CURVE_FIELDS:
            continue
        text, kind = line[field.name], str(field.type)
        number = None if not text and "None" in kind else kind
        if number is None:
            values[field.name] = None
        elif kind.startswith("int"):
            values[field.name] = int(text)
        else:
            values[field.name] = float(text) if kind.startswith("float") else text
    return Row(**values)
