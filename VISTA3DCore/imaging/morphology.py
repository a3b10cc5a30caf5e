"""Small tools on 3-D masks."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk


def depth(mask: np.ndarray) -> np.ndarray:
    """Return the distance in voxels of each voxel of a mask from its outside, float32 [x, y, z]; 0 outside.

    Beyond the array lies outside.
    """
    image = sitk.GetImageFromArray(np.pad(~mask, 1, constant_values=True).view(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=False)
    return np.maximum(sitk.GetArrayViewFromImage(distance)[1:-1, 1:-1, 1:-1], 0.0)


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels on either side of a mask's surface, which have a face neighbour that differs, bool."""
    result = np.zeros(mask.shape, dtype=bool)
    for axis in range(3):
        lines, found = np.moveaxis(mask, axis, 0), np.moveaxis(result, axis, 0)
        differs = lines[1:] != lines[:-1]
        found[1:] |= differs
        found[:-1] |= differs
    return result


def box_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over each voxel and its 26 neighbours, float32 [x, y, z]; the border is repeated."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    return sitk.GetArrayFromImage(sitk.Mean(image, (1, 1, 1)))
