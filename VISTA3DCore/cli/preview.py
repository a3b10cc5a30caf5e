"""A picture of a segmentation: three planes of the CT with colored structures, surfaces, and a legend, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from VISTA3DCore.cli.planes import planes_of
from VISTA3DCore.cli.surface import render
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.output import Encoder
from VISTA3DCore.imaging.pictures import png_encoder
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume


def preview_encoder(
    volume: Volume,
    segmentation: Segmentation,
    title: str = "",
    clicks: Sequence[Click] = (),
    surfaces: bool = False,
) -> Encoder:
    """Return what writes axial, coronal and sagittal planes as PNG: see :func:`planes_of`.

    Radiological convention (the patient's right side is on the left), true proportions in mm, soft-tissue window.
    Oblique volumes are shown along their own axes, named by the closest of R, A and S.

    :param volume: the CT in HU, on the grid of the segmentation.
    :param clicks: drawn as crosses, positive ones green, negative ones red, faint where they are off the plane.
    :param surfaces: add the structures in 3D, from the front, the left and behind.
    :raises MissingPackageError: if matplotlib is missing.
    """
    require("A preview", "matplotlib")
    from VISTA3DCore.cli.preview_figure import BACKGROUND, DPI, preview_figure

    def draw() -> Figure:
        planes = planes_of(volume, segmentation, clicks)
        views = render(segmentation, BACKGROUND) if surfaces else {}
        return preview_figure(planes, views, segmentation.structures, title or volume.name)

    return png_encoder(draw, DPI)
