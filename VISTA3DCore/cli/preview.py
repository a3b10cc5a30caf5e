"""A picture of a segmentation: three planes of the CT with colored structures, surfaces, and a legend, as PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from VISTA3DCore.cli.planes import planes_of
from VISTA3DCore.cli.surface import render
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.packages import require

if TYPE_CHECKING:
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume


def write_preview(
    path: str | os.PathLike,
    volume: Volume,
    segmentation: Segmentation,
    title: str = "",
    clicks: Sequence[Click] = (),
    surfaces: bool = False,
) -> None:
    """Write axial, coronal and sagittal planes as PNG, by rename: see :func:`planes_of`.

    Radiological convention (the patient's right side is on the left), true proportions in mm, soft-tissue window.
    Oblique volumes are shown along their own axes, named by the closest of R, A and S.

    :param volume: the CT in HU, on the grid of the segmentation.
    :param clicks: drawn as crosses, positive ones green, negative ones red, faint where they are off the plane.
    :param surfaces: add the structures in 3D, from the front, the left and behind.
    :raises OutputError: if the file cannot be written; :raises MissingPackageError: if matplotlib is missing.
    """
    require("A preview", "matplotlib")
    from VISTA3DCore.cli.preview_figure import BACKGROUND, DPI, preview_figure

    planes = planes_of(volume, segmentation, clicks)
    views = render(segmentation, BACKGROUND) if surfaces else {}
    figure = preview_figure(planes, views, segmentation.structures, title or volume.name)
    write_files({Path(path): lambda file: figure.savefig(file, format="png", dpi=DPI)})
