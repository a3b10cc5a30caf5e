"""Summarize rows: means per structure, per dataset the mean of these, as the paper averages, and curves of clicks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from VISTA3DCore.evaluation.metrics import BOTH, INVENTED, MISSED
from VISTA3DCore.evaluation.results import Row
from VISTA3DCore.evaluation.settings import BEST_SO_FAR, HONEST, TRIALS

Group = tuple[str, str, str]
"""Dataset, protocol, variant."""


@dataclass(frozen=True)
class Summary:
    """One structure, or one dataset, under one protocol. Means are None where no case has a value.

    :param name: of the structure, or of the dataset.
    :param cases: in which the reference holds the structure; of a dataset, in which it holds any.
    :param dice: mean; a missed structure counts as 0.
    :param surface_dice: mean, likewise.
    :param hd95_mm: median over the cases in which both have voxels.
    :param volume_error: mean of the absolute values.
    :param missed: cases in which the model found nothing of what is there.
    :param invented: cases in which it found what is not there.
    """

    name: str
    cases: int
    dice: float | None
    surface_dice: float | None
    hd95_mm: float | None
    volume_error: float | None
    missed: int
    invented: int


def groups_of(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """Return the rows by dataset, protocol and variant, in the order in which they come."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.protocol, row.variant), []).append(row)
    return groups


def protocol_title(protocol: str, variant: str) -> str:
    """Return how a protocol is named in reports."""
    return protocol if variant == HONEST else f"{protocol} ({variant})"


def per_structure(rows: Sequence[Row]) -> list[Summary]:
    """Summarize each structure of one group, by index and then by name."""
    structures: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        key = (1 << 30 if row.index is None else row.index, row.structure)
        structures.setdefault(key, []).append(row)
    return [_summary(name, members) for (_, name), members in sorted(structures.items())]


def overall(name: str, rows: Sequence[Row]) -> Summary:
    """Summarize one group: the mean over structures of their means over cases."""
    structures = [one for one in per_structure(rows) if one.cases]
    return Summary(
        name,
        len({row.case for row in rows if row.dice is not None}),
        dice=_mean(one.dice for one in structures),
        surface_dice=_mean(one.surface_dice for one in structures),
        hd95_mm=_mean(one.hd95_mm for one in structures),
        volume_error=_mean(one.volume_error for one in structures),
        missed=sum(row.outcome == MISSED for row in rows),
        invented=sum(row.outcome == INVENTED for row in rows),
    )


def _summary(name: str, rows: Sequence[Row]) -> Summary:
    distances = [row.hd95_mm for row in rows if row.outcome == BOTH and row.hd95_mm is not None]
    return Summary(
        name,
        sum(row.dice is not None for row in rows),
        _mean(row.dice for row in rows),
        _mean(row.surface_dice for row in rows),
        median(distances) if distances else None,
        _mean(None if row.volume_error is None else abs(row.volume_error) for row in rows),
        sum(row.outcome == MISSED for row in rows),
        sum(row.outcome == INVENTED for row in rows),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def mean_curve(rows: Sequence[Row]) -> list[float]:
    """Return the mean of Dice after 0, 1, 2 ... clicks over the rows that have such a curve."""
    curves = [row.curve for row in rows if row.curve]
    return [fmean(values) for values in zip(*curves, strict=False)]


_SIMULATION_TITLES = {
    HONEST: "honest clicks",
    BEST_SO_FAR: "oracle: best so far",
    TRIALS: "oracle: best trial",
}


@dataclass(frozen=True)
class ClickSummary:
    """The curves of one simulation and start together.

    :param protocol: the simulation, as of the rows.
    :param start: as of the rows.
    :param zero_shot: as of the rows.
    :param count: number of curves.
    :param mean: mean Dice after 0, 1, 2 ... clicks.
    :param lower: first quartile of Dice.
    :param upper: third quartile of Dice.
    :param seconds: median time of a click, None if none was set.
    :param losses: after 0, 1, 2 ... clicks, how much Dice the curve that lost most has lost since the start; 0: none.
    :param losers: the structures of these curves, "" where none has lost; with several cases, the case comes first.
    """

    protocol: str
    start: str
    zero_shot: bool
    count: int
    mean: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    seconds: float | None
    losses: tuple[float, ...]
    losers: tuple[str, ...]

    @property
    def largest_loss(self) -> tuple[float, str, int]:
        """The largest loss of all, its structure, and after how many clicks; (0.0, "", 0) if none has lost."""
        worst = max(range(len(self.losses)), key=self.losses.__getitem__)
        return self.losses[worst], self.losers[worst], worst

    @property
    def title(self) -> str:
        """What it is, in words."""
        start = "from the automatic result" if self.start == "automatic" else "from nothing"
        return f"{_SIMULATION_TITLES[self.protocol]} {start}{', class unknown' if self.zero_shot else ''}"

    def holds(self, row: Row) -> bool:
        """Return whether a row is of this group."""
        return _click_group(row) == (self.protocol, self.start, self.zero_shot)


def summarize_clicks(rows: Sequence[Row]) -> list[ClickSummary]:
    """Return the mean and the quartiles of Dice for each simulation and start, each curve counted once.

    :param rows: with curves; those of one group have equally many clicks, as one evaluation gives them.
    """
    groups: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        groups.setdefault(_click_group(row), []).append(row)
    return [_click_summary(key, members) for key, members in groups.items()]


def _click_group(row: Row) -> tuple[str, str, bool]:
    return row.simulation, row.start, row.is_zero_shot


def _click_summary(key: tuple[str, str, bool], rows: Sequence[Row]) -> ClickSummary:
    scores = np.array([row.curve for row in rows])
    lower, upper = np.percentile(scores, (25, 75), axis=0)
    seconds = [value for row in rows for value in row.click_seconds]
    lost = np.maximum(scores[:, :1] - scores, 0.0)
    worst = lost.argmax(axis=0)
    several = len({row.case for row in rows}) > 1
    names = [f"{row.case}: {row.structure}" if several else row.structure for row in rows]
    losses = lost.max(axis=0).tolist()
    return ClickSummary(
        *key,
        count=len(rows),
        mean=tuple(scores.mean(axis=0).tolist()),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        seconds=float(np.median(seconds)) if seconds else None,
        losses=tuple(losses),
        losers=tuple(names[number] if loss else "" for number, loss in zip(worst.tolist(), losses, strict=True)),
    )
