"""What many rows say together: means per structure, and per dataset the mean of these, as the paper averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from VISTA3DCore.evaluation.metrics import BOTH, INVENTED, MISSED
from VISTA3DCore.evaluation.protocols import HONEST
from VISTA3DCore.evaluation.results import Failure, Row

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


def per_structure(rows: Sequence[Row]) -> list[Summary]:
    """Summarise each structure of one group, by index and then by name."""
    structures: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        key = (1 << 30 if row.index is None else row.index, row.structure)
        structures.setdefault(key, []).append(row)
    return [_summary(name, members) for (_, name), members in sorted(structures.items())]


def overall(name: str, rows: Sequence[Row]) -> Summary:
    """Summarise one group: the mean over structures of their means over cases."""
    structures = [one for one in per_structure(rows) if one.cases]
    return Summary(
        name,
        len({row.case for row in rows if row.dice is not None}),
        *(_mean(getattr(one, key) for one in structures) for key in ("dice", "surface_dice", "hd95_mm")),
        volume_error=_mean(one.volume_error for one in structures),
        missed=sum(row.outcome == MISSED for row in rows),
        invented=sum(row.outcome == INVENTED for row in rows),
    )


def _summary(name: str, rows: Sequence[Row]) -> Summary:
    distances = [row.hd95_mm for row in rows if row.outcome == BOTH]
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


def protocol_title(protocol: str, variant: str) -> str:
    """Return how a protocol is named in reports."""
    return protocol if variant == HONEST else f"{protocol} ({variant})"


def table(heads: Sequence[str], lines: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a Markdown table; the first columns, ``texts`` of them, are text, the others numbers."""
    marks = [*["---"] * texts, *["---:"] * (len(heads) - texts)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, marks, *lines))


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number for a table; a dash stands for none."""
    return "–" if value is None else format(value, form)


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


def mean_curve(rows: Sequence[Row]) -> list[float]:
    """Return the mean of Dice after 0, 1, 2 ... clicks over the rows that have such a curve."""
    curves = [row.curve for row in rows if row.curve]
    return [fmean(values) for values in zip(*curves, strict=False)]


def _failures(failures: Sequence[Failure]) -> str:
    cases: dict[tuple[str, str, str], list[str]] = {}
    for one in failures:
        cases.setdefault((one.dataset, one.case, one.reason), []).append(protocol_title(one.protocol, one.variant))
    lines = [
        f"- **{case}** of {dataset} ({', '.join(names)}): {reason}" for (dataset, case, reason), names in cases.items()
    ]
    return "\n".join(lines)
