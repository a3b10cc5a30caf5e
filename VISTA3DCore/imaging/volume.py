"""An image in space. Needs numpy alone, because it also runs inside Slicer before anything was installed."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import orthonormalised, shape_of, spacing_of

# Micro-CT is as fine as 0.001 mm, a radiotherapy survey scan as coarse as 10 mm; beyond these a header is broken or
# uses metres or micrometres.
FINEST_SPACING = 1e-3
COARSEST_SPACING = 50.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A three-dimensional image: ``array[i, j, k]`` and where its voxels are.

    :param array: any real dtype, shape [i, j, k]; not copied.
    :param affine: 4x4, voxel index -> RAS millimetres; axes slightly off perpendicular are straightened with a warning.
    :param name: what to call it in messages.
    :param modality: the DICOM modality ("CT", "MR", "PT" ...) where it is known.
    :raises InputError: if it is not a usable volume.
    """

    array: np.ndarray
    affine: np.ndarray
    name: str = ""
    modality: str | None = None

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        _check_array(array)
        affine = np.array(self.affine, dtype=np.float64)
        check_affine(affine)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", orthonormalised(affine))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along i, j, k."""
        return shape_of(self.array.shape)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing along i, j, k in millimeters."""
        i, j, k = spacing_of(self.affine).tolist()
        return i, j, k

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Volume:
        """Read NIfTI, NRRD, MHA/MHD or a DICOM series folder; see :func:`VISTA3DCore.imaging.readers.read_image`.

        :raises InputError: if there is no usable volume, with the reason.
        """
        # The readers need SimpleITK; this module needs numpy alone.
        from VISTA3DCore.imaging.readers import read_image

        volume = cls(*read_image(path))
        if min(volume.shape) < 2:
            raise InputError(f"'{Path(path).name}' is a single slice; a volume is needed.")
        return volume


def _check_array(array: np.ndarray) -> None:
    if array.ndim != 3:
        raise InputError(f"The image has {array.ndim} dimensions; a volume with three is needed.")
    if array.size == 0:
        raise InputError(f"The image has no voxels (its size is {' x '.join(map(str, array.shape))}).")
    if array.dtype.kind not in "biuf":
        raise InputError(f"The image's voxels are of type {array.dtype}; real numbers are needed.")


def check_affine(affine: np.ndarray) -> None:
    """Check that a 4x4 affine places voxels sensibly.

    :raises InputError: if it is not finite, singular, or its spacing is zero or absurd.
    """
    if affine.shape != (4, 4) or not np.all(np.isfinite(affine)) or not np.allclose(affine[3], (0, 0, 0, 1)):
        raise InputError("The image's affine is not a valid 4x4 matrix; its header is damaged.")
    spacing = spacing_of(affine)
    if np.any(spacing < FINEST_SPACING) or np.any(spacing > COARSEST_SPACING):
        sizes = " x ".join(f"{length:g}" for length in spacing)
        raise InputError(
            f"The image's voxel spacing is {sizes} mm; each must be between {FINEST_SPACING:g} and "
            f"{COARSEST_SPACING:g} mm. Correct the header."
        )
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise InputError("The image's affine is singular (two axes point the same way); its header is damaged.")
