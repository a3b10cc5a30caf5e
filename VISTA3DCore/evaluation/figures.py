"""Draw the pictures of a report: Dice of every structure, and Dice against the number of clicks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.results import Row
from VISTA3DCore.evaluation.summary import (
    ClickSummary,
    groups_of,
    overall,
    per_structure,
    protocol_title,
    summarize_clicks,
)
from VISTA3DCore.imaging.pictures import png_encoder
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from VISTA3DCore.imaging.output import Encoder

# Color-blind safe (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#222222")
_TEXT, _FAINT, _GRID = "#22262b", "#6b727b", "#e6e8eb"
_DPI = 150
_ROW_INCHES, _HEAD_INCHES = 0.17, 0.85


def dice_encoder(rows: Sequence[Row], title: str) -> Encoder:
    """Return what draws, as PNG, Dice of every structure under every protocol, a panel per dataset.

    :param rows: at least one with a reference.
    """
    return png_encoder(lambda: _dice_figure(rows, title), _DPI)


def curves_encoder(rows: Sequence[Row], title: str = "") -> Encoder:
    """Return what draws, as PNG, mean Dice against the number of clicks, a line per simulation and start.

    The band holds the middle half of the curves, thin lines are the single ones.

    :param rows: with curves.
    :raises InputError: if there is none. :raises MissingPackageError: without matplotlib.
    """
    require("A plot", "matplotlib")
    if not rows:
        raise InputError("There is no curve to draw.")
    return png_encoder(lambda: _curves_figure(rows, title), _DPI)


def _dice_figure(rows: Sequence[Row], title: str) -> Figure:
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.dice is not None]
    datasets = list(dict.fromkeys(row.dataset for row in measured))
    members = [[row for row in measured if row.dataset == name] for name in datasets]
    heights = [_height(part) for part in members]
    figure = Figure(figsize=(9.0, sum(heights) + 0.5), facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", color=_TEXT, fontsize=13, fontweight="bold")
    panels = figure.subplots(len(datasets), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    colors = _colors(measured)
    for axes, name, part in zip(panels, datasets, members, strict=True):
        _draw_panel(axes, name, part, colors)
    return figure


def _colors(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    pairs = dict.fromkeys((row.protocol, row.variant) for row in rows)
    return {pair: _COLORS[number % len(_COLORS)] for number, pair in enumerate(pairs)}


def _height(rows: Sequence[Row]) -> float:
    structures = len({row.structure for row in rows})
    return _HEAD_INCHES + structures * _ROW_INCHES * max(1.0, 0.7 * len(groups_of(rows)))


def _draw_panel(axes: Axes, name: str, rows: Sequence[Row], colors: dict[tuple[str, str], str]) -> None:
    groups = groups_of(rows)
    names = [one.name for one in per_structure(rows)]
    step = 0.8 / len(groups)
    for number, ((_, protocol, variant), members) in enumerate(groups.items()):
        color, shift = colors[protocol, variant], (number - (len(groups) - 1) / 2) * step
        places = {structure: place + shift for place, structure in enumerate(names)}
        mean = overall(name, members).dice
        label = f"{protocol_title(protocol, variant)}: mean {mean:.3f}"
        heights = [places[row.structure] for row in members]
        axes.scatter(
            [_drawn(row.dice) for row in members], heights, s=11, color=color, alpha=0.45, linewidths=0, clip_on=False
        )
        means = per_structure(members)
        axes.scatter(
            [_drawn(one.dice) for one in means], [places[one.name] for one in means],
            marker="|", s=70 if len(groups) < 3 else 40, color=color, linewidths=2.2, label=label, clip_on=False,
        )  # fmt: skip
    _label_panel(axes, name, names)


def _drawn(dice: float | None) -> float:
    """Return where a value is drawn; what has none is left out."""
    return float("nan") if dice is None else dice


def _label_panel(axes: Axes, name: str, names: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(names)), names)
    axes.set(xlim=(0.0, 1.0), ylim=(len(names) - 0.4, -0.6))
    axes.set_xticks(np.arange(0.0, 1.01, 0.1))
    axes.set_xlabel("Dice (dots: cases; bars: their mean)", color=_FAINT, fontsize=9)
    axes.set_title(name, loc="left", color=_TEXT, fontsize=11, fontweight="bold")
    axes.grid(axis="x", color=_GRID, linewidth=0.9)
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f5f6f7", zorder=0, linewidth=0)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_TEXT, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8.5, labelcolor=_TEXT,
        handletextpad=0.2, borderaxespad=0.2,
    )  # fmt: skip


def _curves_figure(rows: Sequence[Row], title: str) -> Figure:
    from matplotlib.figure import Figure

    summaries = summarize_clicks(rows)
    figure = Figure(figsize=(7.6, 5.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    heights = _spread([summary.mean[-1] for summary in summaries])
    for n, summary in enumerate(summaries):
        members = [row for row in rows if summary.holds(row)]
        _draw_group(axes, summary, members, heights[n], _COLORS[n % len(_COLORS)])
    _label_axes(axes, max(len(summary.mean) for summary in summaries) - 1, title)
    return figure


def _draw_group(axes: Axes, summary: ClickSummary, rows: Sequence[Row], height: float, color: str) -> None:
    """Draw single curves, their middle half and their mean, whose last value is written at a height of its own."""
    x = np.arange(len(summary.mean))
    for row in rows:
        axes.plot(x, row.curve, color=color, linewidth=0.7, alpha=max(0.08, 0.35 / len(rows) ** 0.4))
    axes.fill_between(x, summary.lower, summary.upper, color=color, alpha=0.13, linewidth=0)
    axes.plot(
        x, summary.mean, color=color, linewidth=2.4, marker="o", markersize=5.5, markeredgecolor="white",
        label=f"{summary.title} (n = {summary.count})", clip_on=False, zorder=3,
    )  # fmt: skip
    axes.annotate(
        f"{summary.mean[-1]:.2f}", (x[-1], height), xytext=(8, 0), textcoords="offset points",
        color=color, fontsize=10, fontweight="bold", va="center", annotation_clip=False,
    )  # fmt: skip


def _spread(values: Sequence[float], gap: float = 0.035) -> list[float]:
    """Return heights in the order of the values that lie at least a gap apart, so that texts there can be read."""
    heights = np.array(values, dtype=float)
    order = np.argsort(-heights, kind="stable")
    for above, below in itertools.pairwise(order):
        heights[below] = min(heights[below], heights[above] - gap)
    return heights.tolist()


def _label_axes(axes: Axes, clicks: int, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("number of clicks", color=_TEXT, fontsize=11)
    axes.set_ylabel("Dice", color=_TEXT, fontsize=11)
    axes.set_title(title or "Dice against clicks", loc="left", color=_TEXT, fontsize=13, fontweight="bold", pad=22)
    note = "thick: mean; band: middle half; thin: one structure of one case each"
    axes.text(0.0, 1.025, note, transform=axes.transAxes, color=_FAINT, fontsize=8.5)
    axes.set(xlim=(-0.12, clicks + 0.12), ylim=(0.0, 1.005))
    locator = axes.xaxis.get_major_locator()
    assert isinstance(locator, MaxNLocator)
    locator.set_params(integer=True)
    axes.set_yticks(np.arange(0.0, 1.01, 0.1))
    axes.grid(axis="y", color=_GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_FAINT, labelsize=9.5, length=0, pad=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.legend(
        loc="best",
        frameon=True,
        facecolor="white",
        edgecolor="none",
        framealpha=0.85,
        fontsize=9,
        labelcolor=_TEXT,
    )
