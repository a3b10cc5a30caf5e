"""The report of a clicking study: every number as CSV, and a picture of the mean curves as PNG."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.clicking import AUTOMATIC, Curve
from VISTA3DCore.imaging.output import Encoder
from VISTA3DCore.imaging.pictures import png_encoder
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CSV_COLUMNS = ("case", "structure", "protocol", "start", "zero_shot", "clicks", "dice", "clicks_used", "seconds")

# Colour-blind safe (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_TEXT, _FAINT, _GRID = "#22262b", "#6b727b", "#e6e8eb"
_DPI = 150
_PROTOCOL_TITLES = {
    "honest": "honest clicks",
    "oracle_best_so_far": "oracle: best so far",
    "oracle_trials": "oracle: best trial",
}


@dataclass(frozen=True)
class Summary:
    """The curves of one protocol and start together.

    :param protocol: as of the curves.
    :param start: as of the curves.
    :param zero_shot: as of the curves.
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
        start = "from the automatic result" if self.start == AUTOMATIC else "from nothing"
        return f"{_PROTOCOL_TITLES[self.protocol]} {start}{', class unknown' if self.zero_shot else ''}"

    def holds(self, curve: Curve) -> bool:
        """Whether a curve is of this group."""
        return _group_of(curve) == (self.protocol, self.start, self.zero_shot)


def summarise(curves: Sequence[Curve]) -> list[Summary]:
    """Return the mean and the quartiles of Dice for each protocol and start, each curve counted once.

    Curves of one group have equally many clicks, as one study gives them.
    """
    groups: dict[tuple[str, str, bool], list[Curve]] = {}
    for curve in curves:
        groups.setdefault(_group_of(curve), []).append(curve)
    return [_summary(key, group) for key, group in groups.items()]


def curves_csv_encoder(curves: Sequence[Curve]) -> Encoder:
    """Return what writes, as CSV, one line per case, structure, protocol, start and number of clicks.

    ``seconds`` is the time of the call that set this click, empty at 0 clicks and where no further click was set;
    ``clicks_used`` is the number of clicks that the whole curve has set.
    """

    def encode(file: BinaryIO) -> None:
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(CSV_COLUMNS)
        table.writerows(row for curve in curves for row in _rows(curve))
        file.write(text.getvalue().encode())

    return encode


def curve_png_encoder(curves: Sequence[Curve], title: str = "") -> Encoder:
    """Return what draws, as PNG, mean Dice against the number of clicks, a line per protocol and start.

    The band holds the middle half of the curves, thin lines are the single ones.

    :raises InputError: if there is no curve. :raises MissingPackageError: without matplotlib.
    """
    require("A plot", "matplotlib")
    if not curves:
        raise InputError("There is no curve to draw.")
    return png_encoder(lambda: _draw_curves(curves, title), _DPI)


def _rows(curve: Curve) -> list[tuple]:
    head = curve.case, curve.structure, curve.protocol, curve.start, int(curve.zero_shot)
    times = ["", *(f"{seconds:.4f}" for seconds in curve.seconds)]
    return [
        (*head, clicks, f"{dice:.4f}", curve.clicks_used, times[clicks] if clicks < len(times) else "")
        for clicks, dice in enumerate(curve.dice)
    ]


def _group_of(curve: Curve) -> tuple[str, str, bool]:
    return curve.protocol, curve.start, curve.zero_shot


def _summary(key: tuple[str, str, bool], curves: Sequence[Curve]) -> Summary:
    scores = np.array([curve.dice for curve in curves])
    lower, upper = np.percentile(scores, (25, 75), axis=0)
    seconds = [value for curve in curves for value in curve.seconds]
    lost = np.maximum(scores[:, :1] - scores, 0.0)
    worst = lost.argmax(axis=0)
    several = len({curve.case for curve in curves}) > 1
    names = [f"{curve.case}: {curve.structure}" if several else curve.structure for curve in curves]
    losses = lost.max(axis=0).tolist()
    return Summary(
        *key,
        count=len(curves),
        mean=tuple(scores.mean(axis=0).tolist()),
        lower=tuple(lower.tolist()),
        upper=tuple(upper.tolist()),
        seconds=float(np.median(seconds)) if seconds else None,
        losses=tuple(losses),
        losers=tuple(names[row] if loss else "" for row, loss in zip(worst.tolist(), losses, strict=True)),
    )


def _draw_curves(curves: Sequence[Curve], title: str) -> Figure:
    """Return the picture that :func:`write_curve_png` writes; at least one curve is needed."""
    from matplotlib.figure import Figure

    summaries = summarise(curves)
    figure = Figure(figsize=(7.6, 5.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    heights = _spread([summary.mean[-1] for summary in summaries])
    for n, summary in enumerate(summaries):
        members = [curve for curve in curves if summary.holds(curve)]
        _draw_group(axes, summary, members, heights[n], _COLORS[n % len(_COLORS)])
    _label_axes(axes, max(len(summary.mean) for summary in summaries) - 1, title)
    return figure


def _draw_group(axes: Axes, summary: Summary, curves: Sequence[Curve], height: float, color: str) -> None:
    """Draw single curves, their middle half and their mean, whose last value is written at a height of its own."""
    x = np.arange(len(summary.mean))
    for curve in curves:
        axes.plot(x, curve.dice, color=color, linewidth=0.7, alpha=max(0.08, 0.35 / len(curves) ** 0.4))
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
    axes.set_xlabel("number of clicks", color=_TEXT, fontsize=11)
    axes.set_ylabel("Dice", color=_TEXT, fontsize=11)
    axes.set_title(title or "Dice against clicks", loc="left", color=_TEXT, fontsize=13, fontweight="bold", pad=22)
    note = "thick: mean; band: middle half; thin: one structure of one case each"
    axes.text(0.0, 1.025, note, transform=axes.transAxes, color=_FAINT, fontsize=8.5)
    axes.set(xlim=(-0.12, clicks + 0.12), ylim=(0.0, 1.005))
    axes.xaxis.get_major_locator().set_params(integer=True)
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
