"""Lesions that are not there: irregular blobs inside organs, in the manner of the tumours that stage 4 learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.evaluation.simulation import eroded

_BONES = (*catalogue()[21].members, 127)


@dataclass(frozen=True)
class LesionKind:
    """A lesion of the catalogue and what it looks like.

    :param index: its class.
    :param hosts: structures in which it grows.
    :param radius_mm: smallest, middle and largest; small ones are more frequent.
    :param hu: ranges to draw from, as often as each other; with ``relative`` they are added to the host's HU.
    :param texture: standard deviation of its smooth texture, HU.
    :param rim: how often its rim is brighter than its middle.
    """

    index: int
    hosts: tuple[int, ...]
    radius_mm: tuple[float, float, float]
    hu: tuple[tuple[float, float], ...]
    relative: bool = False
    texture: float = 12.0
    rim: float = 0.0


LESIONS = (
    LesionKind(23, (28, 29, 30, 31, 32), (4, 9, 28), ((0, 70), (0, 70), (-650, -300)), texture=25.0),
    LesionKind(24, (4,), (5, 9, 20), ((-55, -15), (-90, -50)), relative=True),
    LesionKind(26, (1,), (4, 12, 38), ((-60, -15), (-60, -15), (20, 60)), relative=True, rim=0.4),
    LesionKind(27, (62,), (7, 11, 24), ((30, 100),)),
    LesionKind(116, (14,), (4, 10, 28), ((-5, 18),), texture=3.0),
    LesionKind(117, (5,), (4, 10, 28), ((-5, 18),), texture=3.0),
    LesionKind(128, _BONES, (4, 8, 18), ((10, 90), (450, 900)), texture=40.0),
)
"""Radii and densities: usual ranges in the public tumour data sets (MSD) and in radiology's textbooks."""


def add_lesions(
    image: np.ndarray,
    label: np.ndarray,
    spacing: Sequence[float],
    count: int,
    rng: np.random.Generator,
    least_voxels: int = 8,
) -> list[int]:
    """Paint lesions into the organs of a patch, in place.

    :param image: float32 [i, j, k], HU.
    :param label: uint8 [i, j, k], classes.
    :param spacing: mm.
    :param count: how many are tried; those that find no room are left out.
    :return: the classes that were added.
    """
    present = set(np.unique(label).tolist())
    possible = [kind for kind in LESIONS if not present.isdisjoint(kind.hosts)]
    grown = []
    for _ in range(count if possible else 0):
        kind = possible[rng.integers(len(possible))]
        if _grow(image, label, np.asarray(spacing, float), kind, rng, least_voxels):
            grown.append(kind.index)
    return grown


def _grow(
    image: np.ndarray,
    label: np.ndarray,
    spacing: np.ndarray,
    kind: LesionKind,
    rng: np.random.Generator,
    least_voxels: int,
) -> bool:
    here = [host for host in kind.hosts if (label == host).any()]
    if not here:
        return False
    organ = np.isin(label, here[rng.integers(len(here))])
    inner = eroded(organ)
    voxels = np.argwhere(inner if inner.any() else organ)
    centre = voxels[rng.integers(len(voxels))]
    radius = float(rng.triangular(*kind.radius_mm))
    reach = np.ceil(1.6 * radius / spacing).astype(int) + 1
    box = tuple(slice(max(int(at - far), 0), int(at + far) + 1) for at, far in zip(centre, reach, strict=True))
    depth = _depth(box, label.shape, centre, spacing, radius, rng)
    inside = (depth > 0) & organ[box]
    if np.count_nonzero(inside) < least_voxels:
        return False
    _paint(image[box], inside, depth, spacing, kind, rng)
    label[box][inside] = kind.index
    return True


def _depth(
    box: tuple[slice, ...],
    shape: tuple[int, ...],
    centre: np.ndarray,
    spacing: np.ndarray,
    radius: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return how deep in the lesion the voxels of a box are, about mm, negative outside: a lumpy ellipsoid."""
    axes = [np.arange(*side.indices(size)) - at for side, size, at in zip(box, shape, centre, strict=True)]
    offsets = np.stack(np.meshgrid(*[axis * step for axis, step in zip(axes, spacing, strict=True)], indexing="ij"))
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    stretched = np.tensordot(np.diag(1 / rng.uniform(0.75, 1.3, 3)) @ frame, offsets, axes=1)
    distance = np.sqrt((stretched**2).sum(0))
    lumps = _smooth_noise(distance.shape, 0.5 * radius / spacing, rng)
    return radius * (1 + 0.22 * lumps) - distance


def _smooth_noise(shape: tuple[int, ...], sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise of standard deviation about 1, smoothed by ``sigma`` voxels."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), np.maximum(sigma, 0.3), mode="wrap")
    return noise / max(float(noise.std()), 1e-6)


def _paint(
    image: np.ndarray,
    inside: np.ndarray,
    depth: np.ndarray,
    spacing: np.ndarray,
    kind: LesionKind,
    rng: np.random.Generator,
) -> None:
    """Blend the lesion into the image, in place; its border is one to three mm wide, as tumours infiltrate."""
    host = float(np.median(image[inside]))
    hu = rng.uniform(*kind.hu[rng.integers(len(kind.hu))]) + (host if kind.relative else 0.0)
    texture = kind.texture * _smooth_noise(image.shape, 2.5 / spacing, rng)
    if rng.random() < kind.rim:
        texture += rng.uniform(20, 60) * np.exp(-(((depth - 2.0) / 2.5) ** 2))
    share = 1 / (1 + np.exp(-np.clip(depth, -30, 30) / rng.uniform(0.4, 1.2)))
    share *= ndimage.uniform_filter(inside.astype(np.float32), 3)
    image += (share * (hu + texture - image)).astype(np.float32)
