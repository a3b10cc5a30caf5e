"""A picture of a correction: the structure before and after the clicks, beside the reference, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from VISTA3DCore.cli.planes import Plane, planes_of
from VISTA3DCore.cli.preview_figure import (
    BACKGROUND,
    DPI,
    GAP_IN,
    HEAD_IN,
    MARGIN_IN,
    TEXT,
    TITLE_IN,
    add_row,
    draw_outline,
    draw_plane,
    proportion,
    write_title,
)
from VISTA3DCore.imaging.components import bounding_box
from VISTA3DCore.imaging.geometry import spacing_of
from VISTA3DCore.imaging.output import Encoder
from VISTA3DCore.imaging.pictures import png_encoder
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.imaging.clicks import Click

_PANEL_IN, _CAPTION_IN = 4.4, 0.3
_AROUND_MM = 25.0
_NOTE = "Color: segmentation; white: reference; + green: click that adds; + red: click that removes"


def correction_encoder(
    volume: Volume,
    structure: Structure,
    states: dict[str, np.ndarray],
    reference: np.ndarray,
    clicks: Sequence[Click],
    title: str,
) -> Encoder:
    """Return what writes, as PNG, a row of three planes through the first click for each state of a structure.

    :param states: masks, bool [i, j, k], by caption, e.g. before and after. :param reference: likewise.
    :param clicks: at least one; drawn in every state.
    """
    changed = np.logical_or.reduce(list(states.values())) & ~np.logical_and.reduce(list(states.values()))
    cut = _surroundings(changed | reference, spacing_of(volume.affine))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in cut]
    part = Volume(volume.array[cut], affine)

    def seen(mask: np.ndarray) -> list[Plane]:
        labels = mask[cut] * np.uint16(structure.index)
        return planes_of(part, Segmentation(labels, {}, (structure,), affine), clicks, clicks[0].position)

    def draw() -> Figure:
        return _figure({name: seen(mask) for name, mask in states.items()}, seen(reference), structure, title)

    return png_encoder(draw, DPI)


def _surroundings(mask: np.ndarray, spacing: np.ndarray) -> tuple[slice, ...]:
    """Return the bounding box of a mask, with a margin."""
    margin, box = np.ceil(_AROUND_MM / spacing).astype(int), bounding_box(mask)
    assert box is not None
    sides = zip(box, margin.tolist(), mask.shape, strict=True)
    return tuple(slice(max(side.start - more, 0), min(side.stop + more, size)) for side, more, size in sides)


def _figure(states: dict[str, list[Plane]], reference: list[Plane], structure: Structure, title: str) -> Figure:
    widths = [_PANEL_IN * proportion(*plane.size) for plane in reference]
    row_in = _PANEL_IN + HEAD_IN + _CAPTION_IN
    width = sum(widths) + 2 * GAP_IN + 2 * MARGIN_IN
    height = TITLE_IN - HEAD_IN + row_in * len(states) + MARGIN_IN
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    write_title(figure, title, _NOTE)
    for row, (name, planes) in enumerate(states.items()):
        bottom = MARGIN_IN + row_in * (len(states) - 1 - row)
        caption = (MARGIN_IN / width, (bottom + row_in - _CAPTION_IN) / height)
        figure.text(*caption, name, color=TEXT, fontsize=12, fontweight="bold", va="bottom")
        panels = add_row(figure, bottom, widths, _PANEL_IN)
        for plane, truth, axes in zip(planes, reference, panels, strict=True):
            draw_plane(axes, plane, (structure,))
            draw_outline(axes, truth.masks.get(structure.index), plane.pixel, "white")
    return figure
