"""A synthetic abdomen: where no real CT can be had, something with known structures at plausible HU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.volume import Volume

SHAPE = (124, 92, 100)
SPACING_MM = 3.0
NOISE_HU = 12.0
_UNBOUNDED = float("inf")


@dataclass(frozen=True)
class _Ellipsoid:
    """One painted body; centre and radii in RAS mm from the middle of the volume.

    A radius of infinity makes a cylinder. ``name`` is empty for tissue that is no structure of the catalogue.
    """

    name: str
    hu: float
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    z_range: tuple[float, float] = (-_UNBOUNDED, _UNBOUNDED)

    def mask(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        parts = [((p - c) / r) ** 2 for p, c, r in zip((x, y, z), self.centre, self.radii, strict=True)]
        return (parts[0] + parts[1] + parts[2] <= 1.0) & (z >= self.z_range[0]) & (z < self.z_range[1])


def _both_sides(name: str, hu: float, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> list:
    x, y, z = centre
    return [_Ellipsoid(f"right {name}", hu, (x, y, z), radii), _Ellipsoid(f"left {name}", hu, (-x, y, z), radii)]


def _spine() -> list[_Ellipsoid]:
    """Return T12 to L5, 30 mm each with a 5 mm disc, and the spinal cord behind them."""
    names = [f"vertebrae {level}" for level in ("T12", "L1", "L2", "L3", "L4", "L5")]
    bodies = [
        _Ellipsoid(name, 240.0, (0, -48, 0), (23, 18, _UNBOUNDED), (70.0 - 35 * n, 100.0 - 35 * n))
        for n, name in enumerate(names)
    ]
    disc = _Ellipsoid("", 80.0, (0, -48, 0), (22, 17, _UNBOUNDED), (-105.0, 100.0))
    return [disc, *bodies, _Ellipsoid("spinal cord", 35.0, (0, -75, 0), (8, 7, _UNBOUNDED))]


# Painted in this order. HU: the means of real unenhanced CTs (liver 45-60, spleen 45, kidney 30, muscle 50, fat -100).
_BODIES: tuple[_Ellipsoid, ...] = (
    _Ellipsoid("", -100.0, (0, 0, 0), (172, 122, _UNBOUNDED)),
    _Ellipsoid("", 50.0, (0, -4, 0), (150, 102, _UNBOUNDED)),
    _Ellipsoid("", -95.0, (0, 8, 0), (136, 84, _UNBOUNDED)),
    *_both_sides("autochthon", 52.0, (38, -80, 0), (27, 18, _UNBOUNDED)),
    *_both_sides("iliopsoas", 52.0, (48, -42, -70), (20, 20, 60)),
    *_both_sides("hip", 330.0, (98, -35, -140), (36, 40, 50)),
    *_spine(),
    *_both_sides("lung lower lobe", -830.0, (75, -5, 125), (58, 78, 75)),
    _Ellipsoid("colon", 15.0, (112, 5, -40), (20, 22, 70)),
    _Ellipsoid("colon", 15.0, (-112, 5, -40), (20, 22, 70)),
    _Ellipsoid("stomach", 35.0, (-50, 40, 40), (42, 30, 38)),
    _Ellipsoid("spleen", 46.0, (-98, -28, 45), (27, 40, 42)),
    _Ellipsoid("liver", 55.0, (72, 18, 45), (62, 62, 55)),
    _Ellipsoid("gallbladder", 5.0, (52, 55, -2), (14, 14, 22)),
    *_both_sides("kidney", 30.0, (66, -50, -10), (26, 26, 50)),
    _Ellipsoid("pancreas", 40.0, (-8, 12, 5), (62, 12, 14)),
    _Ellipsoid("aorta", 42.0, (-9, -20, 0), (10, 10, _UNBOUNDED), (-90.0, _UNBOUNDED)),
    _Ellipsoid("inferior vena cava", 38.0, (17, -18, 0), (12, 10, _UNBOUNDED), (-90.0, _UNBOUNDED)),
    _Ellipsoid("bladder", 8.0, (0, 25, -125), (40, 34, 30)),
)


def paint_phantom(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """Paint the phantom.

    :param shape: voxels along R, A, S; the voxels' size is chosen such that the anatomy fills a volume of any shape.
    :param seed: of the noise.
    :return: the CT in HU (float32, RAS), and the label map [i, j, k], value = index of the catalogue ``vista3d-ct``.
    """
    step = np.array(SHAPE) * SPACING_MM / np.array(shape)
    x, y, z = np.ogrid[tuple(slice(0, n) for n in shape)]
    x, y, z = ((axis - (n - 1) / 2) * s for axis, n, s in zip((x, y, z), shape, step, strict=True))
    image, labels = np.full(shape, -1000.0, np.float32), np.zeros(shape, np.uint16)
    for body in _BODIES:
        inside = body.mask(x, y, z)
        image[inside] = body.hu
        labels[inside] = catalogue().find(body.name).index if body.name else 0
    image = _blurred(image) + np.random.default_rng(seed).normal(0.0, NOISE_HU, shape).astype(np.float32)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = -step * (np.array(shape) - 1) / 2
    return Volume(image, affine, name="synthetic phantom", modality="CT"), labels


def _blurred(image: np.ndarray) -> np.ndarray:
    """Soften edges with the kernel 1/4, 1/2, 1/4 along each axis, as a scanner's resolution does."""
    for axis in range(3):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, middle, high = (np.take(padded, np.arange(n, n + image.shape[axis]), axis) for n in range(3))
        image = 0.25 * low + 0.5 * middle + 0.25 * high
    return image
