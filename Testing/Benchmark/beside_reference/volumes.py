"""The volumes of the benchmark: phantoms of named sizes, or a CT of one's own, as files that every side reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.imaging.writers import encode_nifti

# A phantom is painted this much coarser than its grid, and its edges are then as soft as a scanner's.
_PAINTED_MM = 3.0
_NOISE_HU = 12.0
_MARKER_HU = 100
_AIR_HU, _HIGHEST_HU = -1024, 3000
_SIZE = re.compile(r"(\d+)(?:x(\d+)x(\d+))?(?:@([\d.]+)(?:,([\d.]+),([\d.]+))?)?")


@dataclass(frozen=True)
class Size:
    """A phantom's grid: voxels along R, A, S, and their spacing in mm."""

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]


#: A: a common abdomen and chest CT. B: 500 mm wide at the model's spacing, the size of the bundle's own benchmark.
#: N: the size of NVIDIA NIM's table. L: a long one. S: for processors.
SIZES = {
    "A": Size("A", (512, 512, 600), (0.78, 0.78, 1.0)),
    "B": Size("B", (333, 333, 603), (1.5, 1.5, 1.5)),
    "N": Size("N", (256, 256, 256), (1.5, 1.5, 1.5)),
    "L": Size("L", (512, 512, 1000), (0.78, 0.78, 1.0)),
    "S": Size("S", (256, 256, 120), (0.9375, 0.9375, 2.0)),
}


def parse_size(text: str) -> Size:
    """Return a size by its letter, or from ``VOXELS[xVOXELSxVOXELS][@MM[,MM,MM]]``; 1.5 mm without a spacing.

    :raises InputError: if the text is neither.
    """
    if text.upper() in SIZES:
        return SIZES[text.upper()]
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InputError(f"'{text}' is no size; use one of {', '.join(SIZES)}, or e.g. 160, 200x200x100@0.8,0.8,2.")
    first, *rest = found.groups()
    shape = tuple(int(one or first) for one in (first, *rest[:2]))
    spacing = tuple(float(one or rest[2] or 1.5) for one in (rest[2], *rest[3:]))
    if min(shape) < 2 or min(spacing) <= 0:
        raise InputError(f"The size '{text}' is too small; a volume has at least two voxels along each axis.")
    return Size(text, shape, spacing)


def one_window(window: tuple[int, int, int], spacing: tuple[float, float, float], share: float = 1.0) -> Size:
    """Return a grid finer in plane and coarser across than the model's, which covers a share of one window."""
    finer = tuple(step * factor for step, factor in zip(spacing, (0.625, 0.625, 4 / 3), strict=True))
    counts = zip(window, spacing, finer, strict=True)
    return Size("window", tuple(round((share * side - 1) * step / fine) + 1 for side, step, fine in counts), finer)


def phantom(size: Size, seed: int = 0) -> Volume:
    """Paint a CT in HU (int16, RAS), slice by slice, so that a large one needs little more than itself.

    Something bright in two corners keeps the crop to the foreground from making the volume smaller.
    """
    extent = np.multiply(size.shape, size.spacing)
    coarse_shape = tuple(int(count) for count in np.maximum(np.ceil(extent / _PAINTED_MM), 8))
    coarse = paint_phantom(coarse_shape, seed)[0].array
    places = [np.linspace(0, have - 1, want) for have, want in zip(coarse_shape, size.shape, strict=True)]
    array, noise = np.empty(size.shape, dtype=np.int16, order="F"), np.random.default_rng(seed)
    for k, place in enumerate(places[2]):
        plane = _between(_between(_between(coarse, [place], 2)[..., 0], places[0], 0), places[1], 1)
        plane += noise.standard_normal(plane.shape, dtype=np.float32) * _NOISE_HU
        array[:, :, k] = np.clip(np.rint(plane), _AIR_HU, _HIGHEST_HU)
    array[:2, :2, :2] = array[-2:, -2:, -2:] = _MARKER_HU
    affine = np.diag([*size.spacing, 1.0])
    affine[:3, 3] = -np.multiply(size.spacing, np.subtract(size.shape, 1)) / 2
    return Volume(array, affine, name=f"phantom {size.name}", modality="CT")


def _between(array: np.ndarray, places: np.ndarray | list[float], axis: int) -> np.ndarray:
    """Interpolate linearly at fractional indices along an axis."""
    low = np.floor(places).astype(int)
    weight = (np.asarray(places) - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    below, above = np.take(array, low, axis), np.take(array, np.minimum(low + 1, array.shape[axis] - 1), axis)
    return below + weight * (above - below)


def write_volume(path: Path, volume: Volume) -> None:
    """Write a volume as compressed NIfTI, which both the bundle and we read."""
    array = volume.array if volume.array.dtype.kind in "iu" else volume.array.astype(np.float32)
    write_files({path: lambda file: encode_nifti(file, array, volume.affine, True, volume.name)})
