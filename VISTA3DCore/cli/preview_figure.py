"""How previews look: planes of a CT with colored structures and clicks, surfaces, titles and legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from VISTA3DCore.cli.planes import WINDOW_HU, Mark, Plane
from VISTA3DCore.cli.surface import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from VISTA3DCore.anatomy.structure import Structure

BACKGROUND, TEXT, FAINT = "#0d1015", "#e8eaed", "#949ca6"
DPI = 110
_MAX_LEGEND, _LEGEND_COLUMNS = 18, 6
_POSITIVE, _NEGATIVE = "#35d461", "#ff4d4d"
_FAR_MM, _FAR_ALPHA = 2.0, 0.35  # clicks farther than this from a plane are drawn faintly
PANEL_IN, MARGIN_IN, GAP_IN, TITLE_IN = 5.6, 0.3, 0.2, 1.05  # inches
HEAD_IN, _LEGEND_ROW_IN = 0.3, 0.27
_OUTLINED: dict[str, Any] = {"linewidth": 2.2, "foreground": "black", "alpha": 0.8}


def preview_figure(
    planes: Sequence[Plane], views: Mapping[View, np.ndarray], structures: Sequence[Structure], title: str
) -> Figure:
    """Return a figure: a row of planes, a row of surfaces if there are any, and a legend of the largest structures.

    :param views: for each view its picture, RGB [row, column, 3], rows from top to bottom.
    """
    visible = _visible(structures, planes)
    widths = [PANEL_IN * proportion(*plane.size) for plane in planes]
    full = sum(widths) + GAP_IN * (len(planes) - 1)
    shapes = [proportion(picture.shape[1], picture.shape[0]) for picture in views.values()]
    view_in = (full - GAP_IN * (len(views) - 1)) / sum(shapes) if views else 0.0
    planes_bottom = _legend_height(len(visible)) + MARGIN_IN / 2 + (view_in + HEAD_IN if views else 0.0)
    size = (full + 2 * MARGIN_IN, planes_bottom + PANEL_IN + TITLE_IN)
    figure = Figure(figsize=size, facecolor=BACKGROUND)
    write_title(figure, title, _note(len(visible), any(plane.marks for plane in planes)))
    for plane, axes in zip(planes, add_row(figure, planes_bottom, widths, PANEL_IN), strict=True):
        draw_plane(axes, plane, visible)
    views_bottom = _legend_height(len(visible)) + MARGIN_IN / 2
    panels = add_row(figure, views_bottom, [view_in * shape for shape in shapes], view_in)
    for (view, picture), axes in zip(views.items(), panels, strict=True):
        _draw_view(axes, view, picture)
    _write_legend(figure, visible)
    return figure


def proportion(width: float, height: float) -> float:
    """Return width / height, kept within what can be looked at side by side."""
    return min(max(width / height, 0.4), 1.6)


def add_row(figure: Figure, bottom: float, widths: Sequence[float], height: float) -> list[Axes]:
    """Add panels side by side; all lengths in inches."""
    across, up = figure.get_size_inches()
    lefts = [MARGIN_IN + sum(widths[:number]) + number * GAP_IN for number in range(len(widths))]
    boxes = [
        (left / across, bottom / up, width / across, height / up) for left, width in zip(lefts, widths, strict=True)
    ]
    return [figure.add_axes(box) for box in boxes]


def _legend_height(count: int) -> float:
    rows = -(-min(count, _MAX_LEGEND) // _LEGEND_COLUMNS) + (count > _MAX_LEGEND)
    return _LEGEND_ROW_IN * rows + MARGIN_IN * (rows > 0)


def _visible(structures: Sequence[Structure], planes: Sequence[Plane]) -> list[Structure]:
    """Return the structures that the planes cut, the largest area first."""
    area = {
        structure: sum(int(plane.masks[structure.index].sum()) for plane in planes if structure.index in plane.masks)
        for structure in structures
    }
    return sorted((structure for structure in structures if area[structure]), key=lambda s: -area[s])


def draw_plane(axes: Axes, plane: Plane, structures: Sequence[Structure]) -> None:
    """Draw a plane of the CT, the structures and the clicks."""
    width, height = plane.size
    axes.set_facecolor("black")
    axes.imshow(
        np.clip(plane.image.astype(np.float32), *WINDOW_HU),
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        extent=(0.0, width, height, 0.0),
        interpolation="bicubic",
    )
    colors = {structure.index: np.array(structure.color) / 255.0 for structure in structures}
    for index, mask in plane.masks.items():
        if index in colors:
            _draw_mask(axes, mask, plane.pixel, colors[index])
    for mark in plane.marks:
        _draw_mark(axes, mark)
    axes.set(xlim=(0.0, width), ylim=(height, 0.0))
    _annotate(axes, plane.letters, plane.name)
    _draw_scale_bar(axes, plane.size)


def _draw_mask(axes: Axes, mask: np.ndarray, pixel: tuple[float, float], color: np.ndarray) -> None:
    """Fill a mask and outline it along the same line."""
    axes.contourf(*_contoured(mask, pixel), levels=[0.5, 1.5], colors=[(*color, 0.42)])
    draw_outline(axes, mask, pixel, tuple(0.8 * color + 0.2))


def draw_outline(
    axes: Axes, mask: np.ndarray | None, pixel: tuple[float, float], color: str | tuple[float, ...]
) -> None:
    """Outline a mask, half-way between the pixel centers inside and outside; None is an empty mask."""
    if mask is not None:
        axes.contour(*_contoured(mask, pixel), levels=[0.5], colors=[color], linewidths=0.9)


def _contoured(mask: np.ndarray, pixel: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y in mm and the values of the part of a mask that is not empty, with a margin."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = np.pad(mask[box].astype(np.float32), 1)
    x = (np.arange(inside.shape[1]) + columns[0] - 0.5) * pixel[0]
    y = (np.arange(inside.shape[0]) + rows[0] - 0.5) * pixel[1]
    return x, y, inside


def _draw_mark(axes: Axes, mark: Mark) -> None:
    color, alpha = _POSITIVE if mark.positive else _NEGATIVE, 1.0 if mark.distance <= _FAR_MM else _FAR_ALPHA
    halo = [withStroke(linewidth=4.2, foreground="black", alpha=0.8 * alpha)]
    axes.plot(mark.x, mark.y, "+", color=color, markersize=15, markeredgewidth=2.4, alpha=alpha, path_effects=halo)


def _draw_view(axes: Axes, view: View, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="hanning")
    _annotate(axes, view.letters, view.name)


def _annotate(axes: Axes, letters: Sequence[str], name: str) -> None:
    """Write the directions at the edges, and a name above."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    halo = [withStroke(**_OUTLINED)]
    style: dict[str, Any] = {
        "color": TEXT,
        "fontsize": 11,
        "fontweight": "bold",
        "transform": axes.transAxes,
        "path_effects": halo,
    }
    left, right, top, bottom = letters
    axes.text(0.014, 0.5, left, ha="left", va="center", **style)
    axes.text(0.986, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.986, top, ha="center", va="top", **style)
    axes.text(0.5, 0.014, bottom, ha="center", va="bottom", **style)
    axes.set_title(name, loc="left", color=FAINT, fontsize=9.5, pad=5)


def _draw_scale_bar(axes: Axes, size: tuple[float, float]) -> None:
    length = next((mm for mm in (100.0, 50.0, 20.0, 10.0, 5.0) if mm <= 0.3 * size[0]), None)
    if length is None:
        return
    halo = [withStroke(**_OUTLINED)]
    x, y = 0.025 * size[0], 0.975 * size[1]
    axes.plot([x, x + length], [y, y], color=TEXT, linewidth=1.8, solid_capstyle="butt", path_effects=halo)
    style: dict[str, Any] = {"color": TEXT, "fontsize": 8.5, "path_effects": halo}
    axes.text(x, y - 0.012 * size[1], f"{length / 10:g} cm", ha="left", va="bottom", **style)


def _note(count: int, clicked: bool) -> str:
    shown = "1 structure" if count == 1 else f"{count} structures"
    note = f"{shown} in these planes; soft-tissue window {WINDOW_HU[0]:.0f} to {WINDOW_HU[1]:.0f} HU"
    return note + ("; clicks: green positive, red negative" if clicked else "")


def write_title(figure: Figure, title: str, note: str) -> None:
    """Write a title and a line below it at the top left."""
    width, height = figure.get_size_inches()
    x = MARGIN_IN / width
    style: dict[str, Any] = {"ha": "left", "va": "top"}
    figure.text(x, 1.0 - 0.22 / height, title, color=TEXT, fontsize=15, fontweight="bold", **style)
    figure.text(x, 1.0 - 0.52 / height, note, color=FAINT, fontsize=9.5, **style)


def _write_legend(figure: Figure, structures: Sequence[Structure]) -> None:
    legend_in = _legend_height(len(structures))
    width, height = figure.get_size_inches()
    column_in = (width - 2 * MARGIN_IN) / _LEGEND_COLUMNS
    for n, structure in enumerate(structures[:_MAX_LEGEND]):
        x = MARGIN_IN + column_in * (n % _LEGEND_COLUMNS)
        y = legend_in - _LEGEND_ROW_IN / 2 - _LEGEND_ROW_IN * (n // _LEGEND_COLUMNS)
        color = np.array(structure.color) / 255.0
        corner, sides = (x / width, (y - 0.075) / height), (0.15 / width, 0.15 / height)
        figure.add_artist(Rectangle(corner, *sides, facecolor=color, transform=figure.transFigure))
        figure.text((x + 0.22) / width, y / height, structure.display_name, color=TEXT, fontsize=9.5, va="center")
    if len(structures) > _MAX_LEGEND:
        y = legend_in - _LEGEND_ROW_IN / 2 - _LEGEND_ROW_IN * (_MAX_LEGEND // _LEGEND_COLUMNS)
        more = f"and {len(structures) - _MAX_LEGEND} smaller ones"
        figure.text(MARGIN_IN / width, y / height, more, color=FAINT, fontsize=9.5, va="center")
