"""Three planes of a CT with a segmentation and clicks, as a radiologist sees them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.imaging.clicks import Click, positions_of
from VISTA3DCore.imaging.geometry import apply_affine, to_ras

if TYPE_CHECKING:
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume

WINDOW_HU = (-160.0, 240.0)  # soft tissue: width 400, level 40


#: Names of the planes, the axis that each one cuts, and the letters at its left, right, top and bottom edge.
_VIEWS = (
    ("Axial", 2, ("R", "L", "A", "P")),
    ("Coronal", 1, ("R", "L", "S", "I")),
    ("Sagittal", 0, ("A", "P", "S", "I")),
)


@dataclass(frozen=True)
class Mark:
    """A click as it is seen in a plane: mm from the left edge, from the top edge, and from the plane."""

    x: float
    y: float
    positive: bool
    distance: float


@dataclass(frozen=True)
class Plane:
    """One plane as it is seen: rows from top to bottom, columns from left to right.

    :param name: e.g. ``Axial``, with its position.
    :param image: HU [row, column].
    :param masks: catalogue index -> bool [row, column], structures that are visible here, to be drawn in this order.
    :param pixel: (width, height) of a pixel in mm.
    :param letters: directions at the left, right, top and bottom edge.
    :param marks: clicks, projected along the plane's normal.
    """

    name: str
    image: np.ndarray
    masks: dict[int, np.ndarray]
    pixel: tuple[float, float]
    letters: tuple[str, str, str, str]
    marks: tuple[Mark, ...] = ()

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in mm."""
        return self.image.shape[1] * self.pixel[0], self.image.shape[0] * self.pixel[1]


def planes_of(
    volume: Volume,
    segmentation: Segmentation,
    clicks: Sequence[Click] = (),
    place: Sequence[float] | None = None,
) -> list[Plane]:
    """Return the axial, coronal and sagittal plane through a place (RAS mm), or else through the last click, or else
    through the center of gravity of everything segmented."""
    image, affine = to_ras(volume.array, volume.affine)
    labels, _ = to_ras(segmentation.labels, volume.affine)
    to_voxel = np.linalg.inv(affine)
    places = apply_affine(to_voxel, positions_of(clicks))
    if place is None and not clicks:
        center = _center_of_gravity(labels, (to_ras(mask, volume.affine)[0] for mask in segmentation.masks.values()))
    else:
        center = _voxel(places[-1] if place is None else apply_affine(to_voxel, np.asarray(place)), image.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    position = affine[:3, :3] @ center + affine[:3, 3]
    planes = []
    cuts = {axis: tuple(center[n] if n == axis else slice(None) for n in range(3)) for axis in range(3)}
    masks = _cut_masks(segmentation, volume.affine, cuts)
    for name, axis, letters in _VIEWS:
        cut = cuts[axis]
        across, down = (n for n in range(3) if n != axis)
        planes.append(
            Plane(
                name=f"{name}  {'RAS'[axis]} {position[axis]:.0f} mm",
                image=_as_seen(image[cut]),
                masks=_masks_in(_as_seen(labels[cut]), masks[axis]),
                pixel=(float(spacing[across]), float(spacing[down])),
                letters=letters,
                marks=_marks(places, center, image.shape, spacing, (across, down, axis), clicks),
            )
        )
    return planes


def _cut_masks(
    segmentation: Segmentation, affine: np.ndarray, cuts: Mapping[int, tuple]
) -> dict[int, dict[int, np.ndarray]]:
    """Return the masks in each plane, as seen; one mask after the other is looked at, because each is a volume."""
    found: dict[int, dict[int, np.ndarray]] = {axis: {} for axis in cuts}
    for index, mask in segmentation.masks.items():
        turned = to_ras(mask, affine)[0]
        for axis, cut in cuts.items():
            found[axis][index] = _as_seen(turned[cut].copy())
    return found


def _as_seen(plane: np.ndarray) -> np.ndarray:
    """Turn [R or A, A or S] into rows from top and columns from left: R, or A in sagittal planes, is on the left."""
    return plane[::-1, ::-1].T


def _voxel(place: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the voxel of the volume that is closest to a place given in voxels."""
    i, j, k = np.clip(np.floor(place + 0.5), 0, np.array(shape) - 1).astype(int).tolist()
    return i, j, k


def _marks(
    places: np.ndarray,
    center: tuple[int, int, int],
    shape: tuple[int, ...],
    spacing: np.ndarray,
    axes: tuple[int, int, int],
    clicks: Sequence[Click],
) -> tuple[Mark, ...]:
    """Return clicks as seen in a plane.

    :param places: [n, 3] of the clicks, in voxels.
    :param axes: the axis across, the axis down (indices fall along both, see :func:`_as_seen`), the plane's normal.
    """
    across, down, normal = axes
    lengths = (np.array(shape) - 0.5 - places) * spacing
    away = np.abs(places - center)[:, normal] * spacing[normal]
    return tuple(
        Mark(float(length[across]), float(length[down]), click.positive, float(distance))
        for length, distance, click in zip(lengths, away, clicks, strict=True)
    )


def _masks_in(labels: np.ndarray, overlapping: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    masks = {int(index): labels == index for index in np.unique(labels) if index}
    return masks | {index: mask.astype(bool) for index, mask in overlapping.items() if mask.any()}


def _center_of_gravity(labels: np.ndarray, masks: Iterable[np.ndarray]) -> tuple[int, int, int]:
    """Return the voxel in the middle of labels and masks together; the middle of the volume if they are empty."""
    counts = [np.zeros(size, dtype=np.int64) for size in labels.shape]
    for mask in itertools.chain([labels > 0], masks):
        for axis in range(3):
            counts[axis] += mask.sum(axis=tuple(n for n in range(3) if n != axis), dtype=np.int64)
    if not counts[0].any():
        i, j, k = (size // 2 for size in labels.shape)
    else:
        i, j, k = (round(float(count @ np.arange(len(count)) / count.sum())) for count in counts)
    return i, j, k
