"""Pictures as files. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from VISTA3DCore.imaging.output import Encoder


def png_encoder(draw: Callable[[], Figure], dpi: int) -> Encoder:
    """Return what draws a figure and writes it as PNG.

    Names of files, series and structures are shown as they are: ``$`` begins no formula.
    """

    def encode(file: BinaryIO) -> None:
        import matplotlib

        # Texts of ticks are made when the figure is saved, so the settings hold until then.
        with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
            draw().savefig(file, format="png", dpi=dpi)

    return encode
