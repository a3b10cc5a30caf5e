"""The picture of an evaluation: Dice of every structure, a dot per case and a bar at the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.evaluation.results import Row
from VISTA3DCore.evaluation.summary import groups_of, overall, per_structure, protocol_title
from VISTA3DCore.imaging.pictures import png_encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from VISTA3DCore.imaging.output import Encoder

# Colour-blind safe (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#222222")
_TEXT, _FAINT, _GRID = "#22262b", "#6b727b", "#e6e8eb"
_DPI = 150
_ROW_INCHES, _HEAD_INCHES = 0.17, 0.85


def report_encoder(rows: Sequence[Row], title: str) -> Encoder:
    """Return what draws, as PNG, Dice of every structure under every protocol, a panel per dataset.

    :param rows: at least one with a reference.
    """
    return png_encoder(lambda: _figure(rows, title), _DPI)


def _figure(rows: Sequence[Row], title: str) -> Figure:
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
        _draw(axes, name, part, colors)
    return figure


def _colors(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    pairs = dict.fromkeys((row.protocol, row.variant) for row in rows)
    return {pair: _COLORS[number % len(_COLORS)] for number, pair in enumerate(pairs)}


def _height(rows: Sequence[Row]) -> float:
    structures = len({row.structure for row in rows})
    return _HEAD_INCHES + structures * _ROW_INCHES * max(1.0, 0.7 * len(groups_of(rows)))


def _draw(axes: Axes, name: str, rows: Sequence[Row], colors: dict[tuple[str, str], str]) -> None:
    groups = groups_of(rows)
    names = [one.name for one in per_structure(rows)]
    step = 0.8 / len(groups)
    for number, ((_, protocol, variant), members) in enumerate(groups.items()):
        color, shift = colors[protocol, variant], (number - (len(groups) - 1) / 2) * step
        places = {structure: place + shift for place, structure in enumerate(names)}
        mean = overall(name, members).dice
        label = f"{protocol_title(protocol, variant)}: mean {mean:.3f}"
        heights = [places[row.structure] for row in members]
        axes.scatter([row.dice for row in members], heights, s=11, color=color, alpha=0.45, linewidths=0, clip_on=False)
        means = per_structure(members)
        axes.scatter(
            [one.dice for one in means], [places[one.name] for one in means],
            marker="|", s=70 if len(groups) < 3 else 40, color=color, linewidths=2.2, label=label, clip_on=False,
        )  # fmt: skip
    _finish(axes, name, names)


def _finish(axes: Axes, name: str, names: Sequence[str]) -> None:
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
