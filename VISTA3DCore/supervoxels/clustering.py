"""SLIC on features: scikit-image's, with spacing and the air left out."""

from __future__ import annotations

import numpy as np

from VISTA3DCore.supervoxels.grid import WorkingGrid


def cluster(features: np.ndarray, grid: WorkingGrid, segments: int, compactness: float, sigma: float) -> np.ndarray:
    """Return supervoxels, numbered from 1 on: int32 [a, b, c], 0 in the air.

    Features are smoothed channel by channel here, because scikit-image would need another copy of all of them.

    :param features: float16 [a, b, c, channels].
    :param segments: about how many.
    :param compactness: weight of closeness against similarity; scikit-image scales features to 0..1 first.
    :param sigma: of the smoothing in mm.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.segmentation import slic

    smooth = np.empty(features.shape, np.float32)
    for channel in range(features.shape[-1]):
        widths = [sigma / mm for mm in grid.spacing]
        smooth[..., channel] = gaussian_filter(features[..., channel].astype(np.float32), widths)
    relative = np.array(grid.spacing) / min(grid.spacing)
    labels = slic(
        smooth,
        n_segments=segments,
        compactness=compactness,
        spacing=relative,
        mask=None if grid.body.all() else grid.body,
        channel_axis=-1,
    )
    return np.where(grid.body, labels, 0).astype(np.int32)
