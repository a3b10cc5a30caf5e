"""From a volume to the model grid: spacing, foreground crop, intensity scaling, RAS, in the order of the bundle.

The steps are those of NV-Segment-CT's configs/inference.json. Only the resampling happens on the whole volume.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import ras_orientation, to_ras
from VISTA3DCore.imaging.readers import check_ct
from VISTA3DCore.imaging.resampling import resample_to_spacing
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    import torch

# Voxels of the model grid around the foreground (CropForegroundd in the bundle).
FOREGROUND_MARGIN = 10

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class ModelGrid:
    """What the network sees.

    :param image: [i, j, k] in RAS order, float32, scaled to [0, 1].
    :param affine: 4x4, voxel index -> RAS mm.
    """

    image: np.ndarray
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.image.shape

    @property
    def tensor(self) -> torch.Tensor:
        """The image, wherever it lies."""
        import torch

        return torch.from_numpy(self.image)

    def crop(self, box: Box) -> ModelGrid:
        """Return a view of a box of voxels."""
        return ModelGrid(self.image[box], self.affine_of(box))

    def affine_of(self, box: Box) -> np.ndarray:
        """Return the affine of a box of voxels."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in box]
        return affine


def preprocess(
    volume: Volume, config: ModelConfig, progress: Progress | None = None, device: torch.device | None = None
) -> ModelGrid:
    """Resample, crop to the foreground (HU > 0 plus a margin), scale intensities, reorient to RAS.

    :param device: where the network runs; a CUDA device does the work, with the same result.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress = Progress.of(progress)
    if device is not None and device.type == "cuda":
        from VISTA3DCore.inference.device_preprocessing import preprocess_there

        progress.update(0.0, "Preprocessing")
        if (grid := preprocess_there(volume, config, device)) is not None:
            progress.update(1.0, "Preprocessing")
            return grid
    spacing = model_spacing(volume.affine, config)
    image, affine = resample_to_spacing(volume.array, volume.affine, spacing, progress.part(0.0, 0.9))
    box = foreground_box(image)
    cropped = ModelGrid(image, affine).crop(box)
    progress.update(0.9, "Preprocessing")
    image, affine = to_ras(_scaled(cropped.image, config), cropped.affine)
    return ModelGrid(np.ascontiguousarray(image), affine)


def model_spacing(affine: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Return the model's spacing (mm, given along R, A, S) along the axes of an image."""
    permutation, _ = ras_orientation(affine)
    spacing = np.empty(3)
    spacing[list(permutation)] = config.spacing
    return spacing


def foreground_box(image: np.ndarray, margin: int = FOREGROUND_MARGIN) -> Box:
    """Return the bounding box of the voxels above 0 and a margin, within the image; everything if there are none.

    As MONAI's ``CropForegroundd(margin=10, allow_smaller=True)``, which however fails on images without foreground.
    """
    profiles = [np.zeros(size, dtype=bool) for size in image.shape]
    for k in range(image.shape[2]):
        inside = image[:, :, k] > 0
        profiles[0] |= inside.any(axis=1)
        profiles[1] |= inside.any(axis=0)
        profiles[2][k] = inside.any()
    if not profiles[2].any():
        return tuple(slice(0, size) for size in image.shape)
    return tuple(span(profile, margin) for profile in profiles)


def span(profile: np.ndarray, margin: int = FOREGROUND_MARGIN) -> slice:
    """Return the part of an axis from the first to the last True, and a margin, within the axis."""
    occupied = np.flatnonzero(profile)
    return slice(max(int(occupied[0]) - margin, 0), min(int(occupied[-1]) + margin + 1, len(profile)))


def _scaled(image: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Return a new float32 array with the configured intensity range mapped to [0, 1] and clipped."""
    low, high = config.intensity_range
    if config.intensity_percentiles is not None:
        low, high = (float(value) for value in np.percentile(image, config.intensity_percentiles))
    scaled = image - np.float32(low)
    scaled /= np.float32(max(high - low, np.finfo(np.float32).tiny))
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def check_input(volume: Volume, config: ModelConfig) -> None:
    """Check that a model can make sense of a volume's intensities; oddities become warnings.

    :raises InputError: with the reason, if it cannot.
    """
    if config.intensity_percentiles is not None:
        _check_finite(volume)
        return
    for sentence in check_ct(volume):
        warnings.warn(sentence, UserWarning, stacklevel=3)


def _check_finite(volume: Volume) -> None:
    if not np.isfinite(volume.array).all():
        raise InputError("The image contains NaN or infinite values; repair it first.")
    if volume.array.min() == volume.array.max():
        raise InputError("All voxels of the image have the same value; there is nothing to segment.")
