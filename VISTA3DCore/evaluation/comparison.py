"""Two evaluations side by side: paired differences with bootstrap intervals.

Only what both measured counts: the same structure of the same case under the same protocol. A dataset's figure is the
mean over structures of their means over cases. Structures of one case go wrong together, so resampling them as if they
were independent would promise too much: the interval draws whole *cases*, with all their structures. It says what other
patients of the same kind might give. With few cases no interval can be trusted; the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.markdown import number, table
from VISTA3DCore.evaluation.results import Row
from VISTA3DCore.evaluation.summary import protocol_title

RESAMPLES = 10_000
#: Fewer cases than these give intervals that are too narrow to be believed.
FEW_CASES = 10
_LEVEL = 0.95
# With fewer cases not even a sign test could reach 5 % (2 * 0.5 ** 5 = 6 %).
_FEWEST_CASES = 6

METRICS: dict[str, Callable[[Row], float | None]] = {
    "Dice": lambda row: row.dice,
    "Surface Dice": lambda row: row.surface_dice,
    "HD95 (mm)": lambda row: row.hd95_mm,
    "Volume error": lambda row: None if row.volume_error is None else abs(row.volume_error),
}
_BETTER_IF_LOWER = ("HD95 (mm)", "Volume error")


@dataclass(frozen=True)
class Difference:
    """How the second evaluation differs from the first.

    :param dataset: and ``protocol``, ``variant``: which rows.
    :param metric: key of :data:`METRICS`.
    :param cases: with a pair of values. :param structures: likewise.
    :param first: mean of the first evaluation. :param second: of the second one.
    :param mean: second - first. :param low: lower end of its interval (95 %). :param high: upper end.
    """

    dataset: str
    protocol: str
    variant: str
    metric: str
    cases: int
    structures: int
    first: float
    second: float
    low: float
    high: float

    @property
    def mean(self) -> float:
        return self.second - self.first

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``undecided`` where the interval holds 0 or fewer than six cases speak."""
        if self.cases < _FEWEST_CASES or self.low <= 0.0 <= self.high:
            return "undecided"
        return "better" if (self.mean > 0) != (self.metric in _BETTER_IF_LOWER) else "worse"


def compare(first: Sequence[Row], second: Sequence[Row], seed: int = 0, resamples: int = RESAMPLES) -> list[Difference]:
    """Compare two evaluations of the same cases.

    :raises InputError: if they have nothing in common, or one holds the same thing twice.
    """
    before, after = _by_key(first), _by_key(second)
    common = [key for key in before if key in after]
    if not common:
        raise InputError("The two reports have nothing in common; evaluate both models on the same data and protocol.")
    groups: dict[tuple[str, str, str], list[tuple[Row, Row]]] = {}
    for key in common:
        pair = before[key], after[key]
        groups.setdefault((pair[0].dataset, pair[0].protocol, pair[0].variant), []).append(pair)
    found = [
        _difference(group, metric, pairs, seed, resamples) for group, pairs in groups.items() for metric in METRICS
    ]
    return [one for one in found if one is not None]


def bootstrap_interval(
    values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES, level: float = _LEVEL
) -> tuple[float, float]:
    """Return the percentile interval of the mean over structures of their means over cases; whole cases are drawn.

    :param values: [cases, structures]; NaN where a case does not have a structure.
    """
    rng, known = np.random.default_rng(seed), ~np.isnan(values)
    filled, means = np.where(known, values, 0.0), np.empty(resamples)
    for number_ in range(resamples):
        drawn = np.bincount(rng.integers(len(values), size=len(values)), minlength=len(values))
        counts = drawn @ known
        present = counts > 0  # a structure that no drawn case has says nothing this time
        means[number_] = np.mean((drawn @ filled)[present] / counts[present])
    tail = 50.0 * (1.0 - level)
    low, high = np.percentile(means, (tail, 100.0 - tail))
    return float(low), float(high)


def per_structure(
    first: Sequence[Row], second: Sequence[Row], metric: str = "Dice"
) -> list[tuple[str, int, float, float]]:
    """Return for each structure its name (with the protocol), the number of pairs and both means."""
    before, after, pick = _by_key(first), _by_key(second), METRICS[metric]
    pairs: dict[str, list[tuple[float, float]]] = {}
    for key, row in before.items():
        one, other = (pick(row), pick(after[key])) if key in after else (None, None)
        if one is not None and other is not None:
            name = f"{row.dataset}, {protocol_title(row.protocol, row.variant)}: {row.structure}"
            pairs.setdefault(name, []).append((one, other))
    means = {name: np.mean(values, axis=0).tolist() for name, values in pairs.items()}
    return [(name, len(pairs[name]), *mean) for name, mean in means.items()]


def comparison_markdown(names: tuple[str, str], first: Sequence[Row], second: Sequence[Row], seed: int = 0) -> str:
    """Return the comparison as Markdown.

    :param names: of the two evaluations.
    """
    differences = compare(first, second, seed)
    heads = ("Dataset", "Protocol", "Metric", "Cases", "Structures", "A", "B", "B - A", "95 % interval", "B is")
    blocks = [
        f"# {names[1]} (B) against {names[0]} (A)",
        table(heads, map(_line, differences), texts=3),
        _note(differences),
    ]
    structures = sorted(per_structure(first, second), key=lambda one: one[3] - one[2])
    lines = [[name, str(count), number(a), number(b), number(b - a, "+.3f")] for name, count, a, b in structures]
    blocks += [
        "## Dice per structure, the greatest loss first",
        table(("Structure", "Cases", "A", "B", "B - A"), lines),
    ]
    return "\n\n".join(blocks) + "\n"


def _line(one: Difference) -> list[str]:
    interval = f"{one.low:+.3f} to {one.high:+.3f}"
    numbers = [number(one.first), number(one.second), number(one.mean, "+.3f"), interval]
    name = protocol_title(one.protocol, one.variant)
    return [one.dataset, name, one.metric, str(one.cases), str(one.structures), *numbers, one.verdict]


def _note(differences: Sequence[Difference]) -> str:
    text = (
        "Means over structures of their means over the cases that both evaluations measured. The interval is a paired "
        f"bootstrap over cases ({RESAMPLES} draws, percentiles): *undecided* where it holds 0, "
        f"and with fewer than {_FEWEST_CASES} cases."
    )
    if any(one.cases < FEW_CASES for one in differences):
        text += f" **Fewer than {FEW_CASES} cases: such intervals are too narrow, do not rely on them.**"
    return text


def _difference(
    group: tuple[str, str, str], metric: str, pairs: Sequence[tuple[Row, Row]], seed: int, resamples: int
) -> Difference | None:
    pick = METRICS[metric]
    values = [(a.case, a.structure, pick(a), pick(b)) for a, b in pairs]
    values = [one for one in values if None not in one]
    if not values:
        return None
    cases, structures = (list(dict.fromkeys(one[place] for one in values)) for place in (0, 1))
    both = np.full((2, len(cases), len(structures)), np.nan)
    for case, structure, a, b in values:
        both[:, cases.index(case), structures.index(structure)] = a, b
    first, second = np.nanmean(both, axis=1).mean(axis=1).tolist()
    interval = bootstrap_interval(both[1] - both[0], seed, resamples)
    return Difference(*group, metric, len(cases), len(structures), first, second, *interval)


def _by_key(rows: Sequence[Row]) -> dict[tuple[str, str, str, str, str], Row]:
    found = {row.key: row for row in rows}
    if len(found) < len(rows):
        raise InputError("A report holds one structure of one case twice; evaluate it anew into an empty folder.")
    return found
