"""The report as a picture: the roof with what was achieved under it, and a bar for every side of every measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from beside_reference.results import BenchmarkReport, Measurement
from VISTA3DCore.imaging.pictures import png_encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from VISTA3DCore.imaging.output import Encoder

# Colour-blind safe (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#222222")
_TEXT, _FAINT, _GRID = "#22262b", "#6b727b", "#e6e8eb"
_STYLES = ("-", "--", ":")
_MARKERS = "osD^vP*X"
_DPI = 150
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def report_encoder(report: BenchmarkReport) -> Encoder:
    """Return what draws the report as PNG."""
    return png_encoder(lambda: _figure(report), _DPI)


def _figure(report: BenchmarkReport) -> Figure:
    from matplotlib.figure import Figure

    groups = _groups(report)
    height = max(7.5, 1.2 + 0.26 * sum(len(members) + 1 for members in groups.values()))
    figure = Figure(figsize=(13.0, height), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.0, 1.15)})
    colors = {side.name: _COLORS[number % len(_COLORS)] for number, side in enumerate(report.sides)}
    _draw_roof(left, report, colors)
    _draw_bars(right, groups, colors)
    return figure


def _groups(report: BenchmarkReport) -> dict[str, list[Measurement]]:
    groups: dict[str, list[Measurement]] = {}
    for one in report.measurements:
        title = one.measure if one.volume == "window" else f"{one.measure}, {one.volume}"
        groups.setdefault(title, []).append(one)
    return groups


def _draw_roof(axes: Axes, report: BenchmarkReport, colors: dict[str, str]) -> None:
    """Rate of arithmetic against FLOP per byte: the slope is the memory's roof, the flat part the matrix products'."""
    threads = str(report.settings["threads"])
    bandwidth = report.roof["copy"][threads]
    intensity = np.geomspace(1.0, 3e3, 200)
    for style, (dtype, rates) in zip(_STYLES, report.roof["gemm"].items(), strict=False):
        roof = np.minimum(intensity * bandwidth, rates[threads])
        axes.loglog(intensity, roof, style, color=_TEXT, linewidth=1.4, label=f"{dtype}: {rates[threads]:,.0f} GFLOP/s")
    measures = _draw_points(axes, report, colors)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")  # powers of ten would need formulas, which pictures do without
    axes.set_xlabel("FLOP per byte that must be moved", color=_FAINT, fontsize=9)
    axes.set_ylabel("GFLOP/s", color=_FAINT, fontsize=9)
    axes.set_title(
        f"Under the roof ({threads} threads, copy {bandwidth:,.0f} GB/s)", loc="left", color=_TEXT, fontsize=11
    )
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_TEXT, labelsize=8.5)
    axes.set_box_aspect(0.85)
    axes.set_anchor("N")
    _explain(axes, measures, colors)


def _draw_points(axes: Axes, report: BenchmarkReport, colors: dict[str, str]) -> dict[str, str]:
    """Draw what was achieved; return the marker of each measure."""
    precisions = {side.name: side.about.get("precision", "float32") for side in report.sides}
    shown = [one for one in report.measurements if one.flops and one.values]
    measures = {name: _MARKERS[n % len(_MARKERS)] for n, name in enumerate(dict.fromkeys(one.measure for one in shown))}
    for one in shown:
        place = one.flops / (one.values * _BYTES[precisions[one.side]]), one.flops / one.seconds.median / 1e9
        axes.loglog(*place, measures[one.measure], color=colors[one.side], markersize=8, alpha=0.75)
    return measures


def _explain(axes: Axes, measures: dict[str, str], colors: dict[str, str]) -> None:
    """Put the legend below the roof: its lines, a marker for each measure, a colour for each side."""
    from matplotlib.lines import Line2D

    lines = axes.get_legend_handles_labels()[0]
    markers = [Line2D([], [], color=_FAINT, marker=one, linestyle="", label=name) for name, one in measures.items()]
    sides = [Line2D([], [], color=color, linewidth=6, label=name) for name, color in colors.items()]
    axes.legend(
        handles=[*lines, *markers, *sides], loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=2, frameon=False,
        fontsize=8.5, labelcolor=_TEXT,
    )  # fmt: skip


def _draw_bars(axes: Axes, groups: dict[str, list[Measurement]], colors: dict[str, str]) -> None:
    place, ticks = 0.0, []
    for title, members in groups.items():
        ticks.append((place - 0.9, title))
        for one in members:
            summary = one.seconds
            spread = [[summary.median - summary.lower_quartile], [summary.upper_quartile - summary.median]]
            axes.barh(place, summary.median, height=0.8, color=colors[one.side], xerr=spread, error_kw={"linewidth": 1})
            faster = "" if one.faster is None else f" ({one.faster:.1f}x)"
            label = f" {one.side}: {summary.median:.3g} s{faster}"
            axes.annotate(label, (summary.upper_quartile, place), va="center", fontsize=8, color=_TEXT)
            place += 1.0
        place += 1.2
    for height, title in ticks:
        axes.annotate(title, (0.0, height), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=_TEXT,
                      fontweight="bold")  # fmt: skip
    axes.set(xscale="log", ylim=(place - 0.6, -1.6), yticks=[])
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 30)  # room for the labels
    axes.set_xlabel(
        "seconds: median and quartiles; (x): times faster than the reference as shipped", color=_FAINT, fontsize=9
    )
    axes.set_title("Time", loc="left", color=_TEXT, fontsize=11)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_TEXT, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
