"""Reading images from files and folders, and judging whether one can be a CT in Hounsfield units."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.compression import available_threads
from VISTA3DCore.imaging.formats.dicom import is_dicom, read_series
from VISTA3DCore.imaging.formats.itk import read_with_itk
from VISTA3DCore.imaging.formats.nifti import is_nifti, read_nifti
from VISTA3DCore.paths import expanded, readable

if TYPE_CHECKING:
    from VISTA3DCore.imaging.volume import Volume

# The least contrast that a CT of a person shows (fat to muscle is about 150 HU); z-scored images span about 10.
_LEAST_SPAN = 50.0


class StoredImage(NamedTuple):
    """What a file or a DICOM series holds: voxels [i, j, k], a 4x4 affine (voxel index -> RAS mm), name, modality."""

    array: np.ndarray
    affine: np.ndarray
    name: str
    modality: str | None = None


def read_image(path: str | PathLike[str]) -> StoredImage:
    """Read NIfTI, NRRD, MHA/MHD, or a DICOM series: its folder, or any one of its files.

    Of a DICOM folder the largest CT series is read (localizers are left out); with several series a UserWarning says
    which one. The rescale slope and intercept are applied.

    :return: the image in RAS; integer voxels stay integers.
    :raises InputError: if there is nothing readable, with the reason.
    """
    path = expanded(path)
    if not os.path.exists(path):  # noqa: PTH110 - of a name that is too long, Path.exists raises
        hint = f" It is a pattern; of a DICOM series, give the folder ('{path.parent}')." if _is_pattern(path) else ""
        raise InputError(f"'{path}' does not exist.{hint}")
    if not os.access(path, os.R_OK):
        raise InputError(f"'{path}' cannot be opened: permission denied.")
    if path.is_dir() or is_dicom(path):
        return StoredImage(*read_series(path))
    array, affine = read_nifti(path) if is_nifti(path) else read_with_itk(path)
    return StoredImage(array, affine, readable(path.name))


def _is_pattern(path: Path) -> bool:
    return any(sign in path.name for sign in "*?[")


def check_ct(volume: Volume) -> list[str]:
    """Judge whether the volume is a CT in Hounsfield units.

    :return: warnings (sentences) where that is doubtful.
    :raises InputError: where it certainly is not, or cannot be segmented: NaN, constant, normalised, another modality.
    """
    if volume.modality not in (None, "CT"):
        raise InputError(f"The image is of modality {volume.modality}, but this model segments CT.")
    array = volume.array
    if array.dtype.kind == "f":
        _check_finite(array)
    lowest, highest = _extremes(array)
    if lowest == highest:
        raise InputError(f"All voxels of the image have the same value ({lowest:g}); there is nothing to segment.")
    if (lowest >= 0 and highest <= 255) or highest - lowest < _LEAST_SPAN:
        raise InputError(
            f"The image's values run from {lowest:g} to {highest:g}, so it was normalized or is not a CT; "
            "give the CT in Hounsfield units."
        )
    if lowest >= 0:
        raise InputError(
            f"The image's values run from {lowest:g} to {highest:g}, never below 0: it is not a CT, or its rescale "
            "intercept (often -1024) was not applied; give the CT in Hounsfield units."
        )
    return _doubts(lowest, highest)


def _extremes(array: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest value; several threads look for them, because memory is the limit."""
    threads = available_threads()
    parts = np.array_split(array, min(threads, array.shape[2]), axis=2 if array.flags.f_contiguous else 0)
    with ThreadPoolExecutor(threads, "extremes") as pool:
        found = list(pool.map(lambda part: (part.min(), part.max()), filter(np.size, parts)))
    return float(min(low for low, _ in found)), float(max(high for _, high in found))


def _check_finite(array: np.ndarray) -> None:
    bad = sum(int(np.count_nonzero(~np.isfinite(array[:, :, k]))) for k in range(array.shape[2]))
    if bad:
        raise InputError(
            f"The image has {bad:,} voxels without a number (NaN or infinite); replace them, e.g. by -1024 (air)."
        )


def _doubts(lowest: float, highest: float) -> list[str]:
    if lowest > -200:
        return [f"The image's lowest value is {lowest:g}: a CT in Hounsfield units has air (-1000) or at least fat."]
    if lowest < -10000 or highest > 40000:
        return [f"The image's values run from {lowest:g} to {highest:g}, far beyond those of a CT."]
    return []
