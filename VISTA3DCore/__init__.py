"""VISTA3DCore: the engine of VISTA3D for 3D Slicer.

A CT volume goes in, named structures come out, and a click corrects them at once. Importing this package costs
milliseconds: torch, monai and image libraries are imported only by the modules that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from VISTA3DCore.account import describe_user

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue
    from VISTA3DCore.errors import VistaError
    from VISTA3DCore.imaging.clicks import Click
    from VISTA3DCore.imaging.geometry import Region
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.inference.clicks.results import ClickResult, Suggestion
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.inference.session import Session
    from VISTA3DCore.progress import Progress

__version__ = "0.1.0"

_EXPORTS = {
    "Catalogue": "VISTA3DCore.anatomy.catalogue",
    "Click": "VISTA3DCore.imaging.clicks",
    "ClickResult": "VISTA3DCore.inference.clicks.results",
    "Progress": "VISTA3DCore.progress",
    "Region": "VISTA3DCore.imaging.geometry",
    "Segmentation": "VISTA3DCore.imaging.segmentation",
    "Segmenter": "VISTA3DCore.inference.segmenter",
    "Session": "VISTA3DCore.inference.session",
    "Suggestion": "VISTA3DCore.inference.clicks.results",
    "VistaError": "VISTA3DCore.errors",
    "Volume": "VISTA3DCore.imaging.volume",
}

describe_user()  # before anything that asks is imported, in whichever process

__all__ = [
    "Catalogue",
    "Click",
    "ClickResult",
    "Progress",
    "Region",
    "Segmentation",
    "Segmenter",
    "Session",
    "Suggestion",
    "VistaError",
    "Volume",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public class at its first use, so that importing the package stays cheap."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
