"""A picture of a segmentation: three planes of the CT with coloured structures and a legend, as PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.imaging.clicks import Click, positions_of
from VISTA3DCore.imaging.geometry import apply_affine, to_ras
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from VISTA3DCore.anatomy.catalogue import Structure
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume

WINDOW_HU = (-160.0, 240.0)  # soft tissue: width 400, level 40
MAX_LEGEND = 36
_LEGEND_COLUMNS = 6
_BACKGROUND, _TEXT, _FAINT = "#0d1015", "#e8eaed", "#949ca6"
_DPI = 130
_POSITIVE, _NEGATIVE = "#35d461", "#ff4d4d"
_FAR_MM, _FAR_ALPHA = 2.0, 0.35  # clicks farther than this from a plane are drawn faintly
_PLANE_IN, _MARGIN_IN, _GAP_IN, _TITLE_IN, _ROW_IN = 5.6, 0.3, 0.2, 1.05, 0.27  # inches


@dataclass(frozen=True)
class Mark:
    """A click as it is seen in a plane: mm from the left edge, from the top edge, and from the plane."""

    x: float
    y: float
    positive: bool
    distance: float


@dataclass(frozen=True)
class Plane:
    """One plane as it is seen: rows from top to bottom, columns from left to right.

    :param name: e.g. ``Axial``, with its position.
    :param image: HU [row, column].
    :param masks: catalogue index -> bool [row, column], structures that are visible here, to be drawn in this order.
    :param pixel: (width, height) of a pixel in mm.
    :param letters: directions at the left, right, top and bottom edge.
    :param marks: clicks, projected along the plane's normal.
    """

    name: str
    image: np.ndarray
    masks: dict[int, np.ndarray]
    pixel: tuple[float, float]
    letters: tuple[str, str, str, str]
    marks: tuple[Mark, ...] = ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in mm."""
        return self.image.shape[1] * self.pixel[0], self.image.shape[0] * self.pixel[1]


def write_preview(
    path: str | os.PathLike,
    volume: Volume,
    segmentation: Segmentation,
    title: str = "",
    clicks: Sequence[Click] = (),
) -> None:
    """Write axial, coronal and sagittal planes as PNG, by rename: see :func:`planes_of`.

    Radiological convention (the patient's right side is on the left), true proportions in mm, soft-tissue window.
    Oblique volumes are shown along their own axes, named by the closest of R, A and S.

    :param volume: the CT in HU, on the grid of the segmentation.
    :param clicks: drawn as crosses, positive ones green, negative ones red, faint where they lie off the plane.
    :raises OutputError: if the file cannot be written, or matplotlib is missing.
    """
    require("A preview", "matplotlib")
    figure = _draw(planes_of(volume, segmentation, clicks), segmentation.structures, title or volume.name)
    write_files({Path(path): lambda file: figure.savefig(file, format="png", dpi=_DPI, facecolor=_BACKGROUND)})


def planes_of(volume: Volume, segmentation: Segmentation, clicks: Sequence[Click] = ()) -> list[Plane]:
    """Return the axial, coronal and sagittal plane through the last click, or else through the centre of gravity of
    everything segmented."""
    image, affine = to_ras(volume.array, volume.affine)
    labels, _ = to_ras(segmentation.labels, volume.affine)
    masks = {index: to_ras(mask, volume.affine)[0] for index, mask in segmentation.masks.items()}
    places = apply_affine(np.linalg.inv(affine), positions_of(clicks))
    centre = _voxel(places[-1], image.shape) if clicks else _centre_of_gravity([labels > 0, *masks.values()])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    position = affine[:3, :3] @ centre + affine[:3, 3]
    planes = []
    for name, axis, letters in (("Axial", 2, "RLAP"), ("Coronal", 1, "RLSI"), ("Sagittal", 0, "APSI")):
        cut = tuple(centre[n] if n == axis else slice(None) for n in range(3))
        across, down = (n for n in range(3) if n != axis)
        planes.append(
            Plane(
                name=f"{name}  {'RAS'[axis]} {position[axis]:.0f} mm",
                image=_as_seen(image[cut]),
                masks=_masks_in(_as_seen(labels[cut]), {index: _as_seen(mask[cut]) for index, mask in masks.items()}),
                pixel=(float(spacing[across]), float(spacing[down])),
                letters=tuple(letters),
                marks=_marks(places, centre, image.shape, spacing, (across, down, axis), clicks),
            )
        )
    return planes


def _as_seen(plane: np.ndarray) -> np.ndarray:
    """Turn [R or A, A or S] into rows from top and columns from left: R, or A in sagittal planes, is on the left."""
    return plane[::-1, ::-1].T


def _voxel(place: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the voxel of the volume that is closest to a place given in voxels."""
    return tuple(int(n) for n in np.clip(np.floor(place + 0.5), 0, np.array(shape) - 1))


def _marks(
    places: np.ndarray,
    centre: tuple[int, int, int],
    shape: tuple[int, ...],
    spacing: np.ndarray,
    axes: tuple[int, int, int],
    clicks: Sequence[Click],
) -> tuple[Mark, ...]:
    """Return clicks as seen in a plane.

    :param places: [n, 3] of the clicks, in voxels.
    :param axes: the axis across, the axis down (indices fall along both, see :func:`_as_seen`), the plane's normal.
    """
    across, down, normal = axes
    lengths = (np.array(shape) - 0.5 - places) * spacing
    away = np.abs(places - centre)[:, normal] * spacing[normal]
    return tuple(
        Mark(float(length[across]), float(length[down]), click.positive, float(distance))
        for length, distance, click in zip(lengths, away, clicks, strict=True)
    )


def _masks_in(labels: np.ndarray, overlapping: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    masks = {int(index): labels == index for index in np.unique(labels) if index}
    return masks | {index: mask.astype(bool) for index, mask in overlapping.items() if mask.any()}


def _centre_of_gravity(masks: list[np.ndarray]) -> tuple[int, int, int]:
    """Return the voxel in the middle of all masks together; the middle of the volume if they are empty."""
    shape = masks[0].shape
    centre = []
    for axis in range(3):
        others = tuple(n for n in range(3) if n != axis)
        counts = sum(mask.sum(axis=others, dtype=np.int64) for mask in masks)
        total = counts.sum()
        centre.append(round(float(counts @ np.arange(shape[axis]) / total)) if total else shape[axis] // 2)
    return tuple(centre)


def _draw(planes: list[Plane], structures: tuple[Structure, ...], title: str) -> Figure:
    from matplotlib.figure import Figure

    visible = _visible(structures, planes)
    widths = [_PLANE_IN * min(max(plane.size[0] / plane.size[1], 0.4), 1.6) for plane in planes]
    rows = -(-min(len(visible), MAX_LEGEND) // _LEGEND_COLUMNS) + (len(visible) > MAX_LEGEND)
    width = sum(widths) + 2 * _MARGIN_IN + 2 * _GAP_IN
    legend_in = _ROW_IN * rows + _MARGIN_IN * (rows > 0)
    height = _TITLE_IN + _PLANE_IN + legend_in + _MARGIN_IN / 2
    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    _write_title(figure, title, len(visible), clicked=any(plane.marks for plane in planes))
    left, bottom = _MARGIN_IN, legend_in + _MARGIN_IN / 2
    for plane, plane_width in zip(planes, widths, strict=True):
        box = (left / width, bottom / height, plane_width / width, _PLANE_IN / height)
        _draw_plane(figure.add_axes(box), plane, visible)
        left += plane_width + _GAP_IN
    _write_legend(figure, visible, legend_in)
    return figure


def _visible(structures: tuple[Structure, ...], planes: list[Plane]) -> list[Structure]:
    """Return the structures that the planes cut, the largest area first."""
    area = {
        structure: sum(int(plane.masks[structure.index].sum()) for plane in planes if structure.index in plane.masks)
        for structure in structures
    }
    return sorted((structure for structure in structures if area[structure]), key=lambda s: -area[s])


def _draw_plane(axes: Axes, plane: Plane, structures: list[Structure]) -> None:
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
    axes.set(xticks=[], yticks=[], xlim=(0.0, width), ylim=(height, 0.0))
    axes.spines[:].set_visible(False)
    _annotate(axes, plane)


def _draw_mask(axes: Axes, mask: np.ndarray, pixel: tuple[float, float], color: np.ndarray) -> None:
    """Fill a mask and outline it along the same line, half-way between the pixel centres inside and outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = np.pad(mask[box].astype(np.float32), 1)
    x = (np.arange(inside.shape[1]) + columns[0] - 0.5) * pixel[0]
    y = (np.arange(inside.shape[0]) + rows[0] - 0.5) * pixel[1]
    axes.contourf(x, y, inside, levels=[0.5, 1.5], colors=[(*color, 0.5)])
    axes.contour(x, y, inside, levels=[0.5], colors=[(*(0.8 * color + 0.2), 1.0)], linewidths=0.9)


def _draw_mark(axes: Axes, mark: Mark) -> None:
    from matplotlib.patheffects import withStroke

    color, alpha = _POSITIVE if mark.positive else _NEGATIVE, 1.0 if mark.distance <= _FAR_MM else _FAR_ALPHA
    halo = [withStroke(linewidth=4.2, foreground="black", alpha=0.8 * alpha)]
    axes.plot(mark.x, mark.y, "+", color=color, markersize=15, markeredgewidth=2.4, alpha=alpha, path_effects=halo)


def _annotate(axes: Axes, plane: Plane) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.2, foreground="black", alpha=0.8)]
    style = {"color": _TEXT, "fontsize": 11, "fontweight": "bold", "transform": axes.transAxes, "path_effects": halo}
    left, right, top, bottom = plane.letters
    axes.text(0.014, 0.5, left, ha="left", va="center", **style)
    axes.text(0.986, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.986, top, ha="center", va="top", **style)
    axes.text(0.5, 0.014, bottom, ha="center", va="bottom", **style)
    axes.set_title(plane.name, loc="left", color=_FAINT, fontsize=9.5, pad=5)
    _draw_scale_bar(axes, plane.size, halo)


def _draw_scale_bar(axes: Axes, size: tuple[float, float], halo: list) -> None:
    length = next((mm for mm in (100.0, 50.0, 20.0, 10.0, 5.0) if mm <= 0.3 * size[0]), None)
    if length is None:
        return
    x, y = 0.025 * size[0], 0.975 * size[1]
    axes.plot([x, x + length], [y, y], color=_TEXT, linewidth=1.8, solid_capstyle="butt", path_effects=halo)
    style = {"color": _TEXT, "fontsize": 8.5, "path_effects": halo}
    axes.text(x, y - 0.012 * size[1], f"{length / 10:g} cm", ha="left", va="bottom", **style)


def _write_title(figure: Figure, title: str, count: int, clicked: bool) -> None:
    width, height = figure.get_size_inches()
    x, y = _MARGIN_IN / width, 1.0 - 0.22 / height
    figure.text(x, y, title, color=_TEXT, fontsize=15, fontweight="bold", ha="left", va="top")
    shown = "1 structure" if count == 1 else f"{count} structures"
    note = f"{shown} in these planes; soft-tissue window {WINDOW_HU[0]:.0f} to {WINDOW_HU[1]:.0f} HU"
    note += "; clicks: green positive, red negative" if clicked else ""
    figure.text(x, 1.0 - 0.52 / height, note, color=_FAINT, fontsize=9.5, ha="left", va="top")


def _write_legend(figure: Figure, structures: list[Structure], legend_in: float) -> None:
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    column_in = (width - 2 * _MARGIN_IN) / _LEGEND_COLUMNS
    for n, structure in enumerate(structures[:MAX_LEGEND]):
        x = _MARGIN_IN + column_in * (n % _LEGEND_COLUMNS)
        y = legend_in - _ROW_IN / 2 - _ROW_IN * (n // _LEGEND_COLUMNS)
        color = np.array(structure.color) / 255.0
        corner, sides = (x / width, (y - 0.075) / height), (0.15 / width, 0.15 / height)
        figure.add_artist(Rectangle(corner, *sides, facecolor=color, transform=figure.transFigure))
        figure.text((x + 0.22) / width, y / height, structure.display_name, color=_TEXT, fontsize=9.5, va="center")
    if len(structures) > MAX_LEGEND:
        y = legend_in - _ROW_IN / 2 - _ROW_IN * (MAX_LEGEND // _LEGEND_COLUMNS)
        more = f"and {len(structures) - MAX_LEGEND} smaller ones"
        figure.text(_MARGIN_IN / width, y / height, more, color=_FAINT, fontsize=9.5, va="center")
