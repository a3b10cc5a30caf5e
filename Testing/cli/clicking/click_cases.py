"""What the tests of ``vista3d click`` share: where they click, and what they read from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.imaging.volume import Volume

VOXEL = (20, 16, 18)
LIVER, SPLEEN, RIGHT_KIDNEY, LEFT_KIDNEY, TUMOUR = 1, 3, 5, 14, 26
CONFIG = {"width": 8, "blocks_down": (1, 1, 1), "window": (32, 32, 32), "spacing": (12.0, 12.0, 12.0)}


def in_mm(volume: Volume, voxel: tuple[float, float, float]) -> tuple[float, float, float]:
    return tuple(apply_affine(volume.affine, voxel).tolist())


def as_text(position: tuple[float, float, float]) -> str:
    return ",".join(map(repr, map(float, position)))


def masks_of(path: Path) -> dict[str, np.ndarray]:
    """Read a .seg.nrrd with SimpleITK alone: segment name -> bool [i, j, k]."""
    image = sitk.ReadImage(str(path))
    layers = sitk.GetArrayFromImage(image).T.reshape(-1, *image.GetSize())
    found, number = {}, 0
    while image.HasMetaDataKey(f"Segment{number}_Name"):
        name, value, layer = (image.GetMetaData(f"Segment{number}_{key}") for key in ("Name", "LabelValue", "Layer"))
        found[name] = layers[int(layer)] == int(value)
        number += 1
    return found
