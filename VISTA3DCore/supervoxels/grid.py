"""The working grid: coarse enough for bounded memory, with the air around the body removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from VISTA3DCore.imaging.averaging import averaged, coarse_edges
from VISTA3DCore.imaging.components import label_components
from VISTA3DCore.imaging.volume import Volume

AIR_HU = -800.0
"""Below is air or lung (Project-MONAI/VISTA scripts/slic_process_sam.py)."""
SMALL_SHARE = 0.01
"""Pieces below this share of the largest one (table, tubes) are no body; they would use up supervoxels."""
OUTSIDE_HU = -950.0
"""Median below: air outside the body. Lung tissue that touches the image's border has a median near -850."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class WorkingGrid:
    """The body's box of a volume, averaged to coarser voxels.

    :param image: HU, float32 [a, b, c].
    :param body: bool [a, b, c], False in the air around the body.
    :param box: the same box in voxels of the volume.
    :param spacing: of the coarse voxels in mm.
    """

    image: np.ndarray
    body: np.ndarray
    box: Box
    spacing: tuple[float, float, float]


def working_grid(volume: Volume, spacing_mm: float, most_voxels: int) -> WorkingGrid:
    """Average a volume to voxels of at least ``spacing_mm``, larger where there would be more than ``most_voxels``.

    Axes whose voxels are coarser than that already stay as they are.
    """
    everything = _whole(volume.shape)
    image = averaged(volume.array, everything, _coarse_shape(volume, everything, spacing_mm, most_voxels))
    box = _enlarged(_bounds(body_mask(image)), image.shape, volume.shape)
    image = averaged(volume.array, box, _coarse_shape(volume, box, spacing_mm, most_voxels))
    lengths = [(part.stop - part.start) * mm for part, mm in zip(box, volume.spacing, strict=True)]
    spacing = tuple(length / size for length, size in zip(lengths, image.shape, strict=True))
    return WorkingGrid(image, body_mask(image), box, spacing)


def _coarse_shape(volume: Volume, box: Box, spacing_mm: float, most_voxels: int) -> tuple[int, ...]:
    sizes = np.array([part.stop - part.start for part in box])
    native = np.array(volume.spacing)
    target = spacing_mm
    while True:
        shape = np.maximum(np.rint(sizes * native / np.maximum(native, target)), 1).astype(int)
        if shape.prod() <= most_voxels:
            return tuple(int(size) for size in shape)
        target *= 1.05


def body_mask(image: np.ndarray) -> np.ndarray:
    """Return what is not the air around the body: bool [a, b, c].

    Air is every component below -800 HU that reaches the image's border and is too thin for lung tissue, closed by 3^3
    as in the reference (which takes the largest component of such voxels, in a chest at times the lungs). Small pieces
    that it surrounds count as air too.
    """
    components, count = label_components(image < AIR_HU)
    air = np.zeros(image.shape, bool)
    for number in _at_the_border(components, count):
        component = components == number
        if np.median(image[component]) < OUTSIDE_HU:
            air |= component
    from scipy.ndimage import binary_closing

    closed = binary_closing(np.pad(air, 1, mode="edge"), np.ones((3, 3, 3)))[1:-1, 1:-1, 1:-1]
    return _without_small_pieces(~closed | (image >= 0))


def _without_small_pieces(body: np.ndarray) -> np.ndarray:
    components, count = label_components(body, connectivity=6)
    if count < 2:
        return body
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return (sizes >= SMALL_SHARE * sizes.max())[components] & body


def _at_the_border(components: np.ndarray, count: int) -> list[int]:
    faces = [components.take((0, -1), axis=axis).ravel() for axis in range(3)]
    sizes = np.bincount(np.concatenate(faces), minlength=count + 1)
    return [number for number in range(1, count + 1) if sizes[number]]


def _bounds(mask: np.ndarray) -> Box:
    if not mask.any():
        return _whole(mask.shape)

    def side(axis: int) -> slice:
        present = np.flatnonzero(mask.any(axis=tuple(n for n in range(mask.ndim) if n != axis)))
        return slice(int(present[0]), int(present[-1]) + 1)

    return side(0), side(1), side(2)


def _whole(shape: Sequence[int]) -> Box:
    i, j, k = (slice(0, size) for size in shape)
    return i, j, k


def _enlarged(box: Box, coarse: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    """Return a box of the coarse grid, one voxel wider, in voxels of the fine one."""

    def side(part: slice, small: int, size: int) -> slice:
        edges = coarse_edges(size, small)
        return slice(int(edges[max(part.start - 1, 0)]), int(edges[min(part.stop + 1, small)]))

    i, j, k = (side(*sizes) for sizes in zip(box, coarse, shape, strict=True))
    return i, j, k
