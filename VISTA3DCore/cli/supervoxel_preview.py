"""A picture of supervoxels: three planes of the CT with their outlines, and below each with their colours, as PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.cli.planes import WINDOW_HU
from VISTA3DCore.imaging.geometry import to_ras
from VISTA3DCore.imaging.output import Encoder
from VISTA3DCore.imaging.pictures import png_encoder
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    from VISTA3DCore.imaging.volume import Volume

_BACKGROUND, _TEXT, _LINE = "#0d1015", "#e8eaed", "#ffd23f"
_PLANES = (("Axial", 2), ("Coronal", 1), ("Sagittal", 0))
_PLANE_IN, _TITLE_IN, _GAP_IN, _DPI = 4.6, 0.5, 0.08, 130
_OPACITY = 0.45


def supervoxel_preview_encoder(volume: Volume, labels: np.ndarray, title: str) -> Encoder:
    """Return what writes axial, coronal and sagittal planes through the middle of the body as PNG.

    Radiological convention, true proportions, soft-tissue window.

    :param volume: the CT in HU.
    :param labels: supervoxels [i, j, k] on the same grid, 0 outside the body.
    :raises MissingPackageError: if matplotlib is missing.
    """
    require("A preview", "matplotlib")
    return png_encoder(lambda: _figure(volume, labels, title), _DPI)


def _figure(volume: Volume, labels: np.ndarray, title: str) -> Figure:
    from matplotlib.figure import Figure

    image, affine = to_ras(volume.array, volume.affine)
    labels, _ = to_ras(labels, volume.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    planes = [(name, *_cut(image, labels, spacing, axis)) for name, axis in _PLANES]
    widths = [_PLANE_IN * size[0] / size[1] for *_, size in planes]
    figure_size = (sum(widths) + 4 * _GAP_IN, 2 * _PLANE_IN + _TITLE_IN + 2 * _GAP_IN)
    figure = Figure(figsize=figure_size, facecolor=_BACKGROUND)
    figure.text(_GAP_IN / figure_size[0], 1 - 0.1 / figure_size[1], title, color=_TEXT, fontsize=12, va="top")
    colors = _colors(int(labels.max()))
    left = _GAP_IN
    for (name, hu, plane, size), width in zip(planes, widths, strict=True):
        for row, overlay in enumerate((colors[plane], None)):
            bottom = _GAP_IN / 2 + row * (_PLANE_IN + _GAP_IN)
            box = (left / figure_size[0], bottom / figure_size[1], width / figure_size[0], _PLANE_IN / figure_size[1])
            _draw(figure.add_axes(box), hu, plane, size, overlay)
        figure.axes[-1].text(0.01 * size[0], 0.01 * size[1], name, color=_TEXT, fontsize=9, va="top")
        left += width + _GAP_IN
    return figure


def _cut(
    image: np.ndarray, labels: np.ndarray, spacing: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return HU and labels of the plane in the middle of the body, as seen, and its width and height in mm."""
    across, down = (n for n in range(3) if n != axis)
    places = np.flatnonzero((labels > 0).any(axis=(across, down)))
    place = int(places[len(places) // 2]) if len(places) else labels.shape[axis] // 2
    size = (labels.shape[across] * float(spacing[across]), labels.shape[down] * float(spacing[down]))
    return *(array.take(place, axis)[::-1, ::-1].T for array in (image, labels)), size


def _colors(count: int) -> np.ndarray:
    """Return RGBA of each label, different ones for neighbouring numbers, none for 0."""
    from matplotlib.colors import hsv_to_rgb

    hues = (np.arange(count + 1) * 0.61803398875) % 1.0  # the golden section keeps neighbours apart
    rgb = hsv_to_rgb(np.stack([hues, np.full(count + 1, 0.75), np.full(count + 1, 1.0)], axis=-1))
    return np.concatenate([rgb, np.where(np.arange(count + 1) > 0, _OPACITY, 0.0)[:, None]], axis=-1)


def _draw(axes: Axes, hu: np.ndarray, plane: np.ndarray, size: tuple[float, float], overlay: np.ndarray | None) -> None:
    extent = (0.0, size[0], size[1], 0.0)
    low, high = WINDOW_HU
    axes.imshow(hu.astype(np.float32), cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bicubic")
    if overlay is not None:
        axes.imshow(overlay, extent=extent, interpolation="nearest")
    else:
        axes.add_collection(_outlines(plane, (size[0] / plane.shape[1], size[1] / plane.shape[0])))
    axes.set(xticks=[], yticks=[], xlim=(0.0, size[0]), ylim=(size[1], 0.0))
    axes.set_axis_off()


def _outlines(plane: np.ndarray, pixel: tuple[float, float]) -> LineCollection:
    """Return lines in mm between pixels of different labels."""
    from matplotlib.collections import LineCollection

    width, height = pixel
    rows, columns = np.nonzero(plane[:, 1:] != plane[:, :-1])
    upright = np.stack([np.stack([columns + 1, rows], -1), np.stack([columns + 1, rows + 1], -1)], 1)
    rows, columns = np.nonzero(plane[1:] != plane[:-1])
    flat = np.stack([np.stack([columns, rows + 1], -1), np.stack([columns + 1, rows + 1], -1)], 1)
    return LineCollection(list(np.concatenate([upright, flat]) * (width, height)), colors=_LINE, linewidths=0.7)
