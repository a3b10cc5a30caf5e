"""A small case that has several windows for the tiny model."""

from __future__ import annotations

import numpy as np

from VISTA3DCore.imaging.volume import Volume

#: On the tiny model's grid (12 mm), RAS axes flipped as NIfTI of scanners has them; two windows of 32 along i and j.
SHAPE = (44, 40, 30)
AFFINE = np.array([[-12.0, 0, 0, 250], [0, -12.0, 0, 250], [0, 0, 12.0, -170], [0, 0, 0, 1.0]])


def paint_case(seed: int = 0) -> tuple[Volume, np.ndarray]:
    """Return a noisy volume and labels (catalogue indices) of a liver, a spleen and a kidney in it."""
    rng = np.random.default_rng(seed)
    image, labels = rng.normal(-300.0, 60.0, SHAPE), np.zeros(SHAPE, dtype=np.uint8)
    places = np.indices(SHAPE)
    for index, hu, centre, radius in ((1, 120, (14, 20, 15), 9), (3, 300, (33, 16, 14), 6), (5, 500, (24, 32, 16), 4)):
        inside = sum((place - middle) ** 2 for place, middle in zip(places, centre, strict=True)) <= radius**2
        labels[inside], image[inside] = index, rng.normal(hu, 40.0, int(inside.sum()))
    return Volume(image.astype(np.int16), AFFINE, "ct.nii.gz"), labels
