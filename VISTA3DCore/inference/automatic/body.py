"""The patient's body in a CT: without the table, tubes, blankets and the air around."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.averaging import averaged, coarse_edges
from VISTA3DCore.imaging.components import large_pieces
from VISTA3DCore.imaging.geometry import spacing_of
from VISTA3DCore.inference.preprocessing import ModelGrid
from VISTA3DCore.network.config import ModelConfig

# Voxels on which the body is looked for: coarse enough to average a table's thin shell with the foam inside it.
_COARSE_MM = 6.0
# Between fat (-100 HU) and what a table's shell leaves of itself in a coarse voxel (about -600 HU).
_BODY_HU = -350.0
# Pieces below this share of the largest one are no body; an arm or a leg apart from the trunk is larger.
_SMALL_SHARE = 0.02


def find_body(grid: ModelGrid, config: ModelConfig) -> np.ndarray:
    """Return the body and about 12 mm around it, bool on the model grid; everything where no body is found.

    Soft tissue on a grid of about 6 mm, opened, so that what is thinner than three such voxels goes, without small
    pieces. Lungs and bowel gas inside are not filled: what counts are the body's extent and where it is not.

    :raises InputError: if the model does not scale intensities by Hounsfield units.
    """
    if config.intensity_percentiles is not None:
        raise InputError("The body crop needs Hounsfield units, so it is there for CT models only; leave it out.")
    low, high = config.intensity_range
    shape = _coarse_shape(grid)
    everything = tuple(slice(0, size) for size in grid.shape)
    tissue = averaged(grid.image, everything, shape) > (_BODY_HU - low) / (high - low)
    body = _dilated(large_pieces(_opened(tissue), _SMALL_SHARE))
    if not body.any():
        return np.ones(grid.shape, dtype=bool)
    places = [_coarse_index(size, coarse) for size, coarse in zip(grid.shape, shape, strict=True)]
    return body[np.ix_(*places)]


def _coarse_shape(grid: ModelGrid) -> tuple[int, ...]:
    sizes = np.array(grid.shape) * spacing_of(grid.affine) / np.maximum(spacing_of(grid.affine), _COARSE_MM)
    return tuple(int(size) for size in np.maximum(np.rint(sizes), 1))


def _coarse_index(size: int, coarse: int) -> np.ndarray:
    """Return the coarse voxel of each fine one."""
    return np.repeat(np.arange(coarse), np.diff(coarse_edges(size, coarse)))


def _opened(mask: np.ndarray) -> np.ndarray:
    """Return a mask without what is thinner than three voxels; at the image's sides it goes on as it is there."""
    padded = np.pad(mask, 1, mode="edge")
    return _filtered(sitk.BinaryMorphologicalOpening, padded)[1:-1, 1:-1, 1:-1]


def _dilated(mask: np.ndarray) -> np.ndarray:
    return _filtered(sitk.BinaryDilate, mask, 2)


def _filtered(operation: object, mask: np.ndarray, radius: int = 1) -> np.ndarray:
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8))
    return sitk.GetArrayFromImage(operation(image, (radius,) * 3, sitk.sitkBall)).astype(bool)
