"""Affines, orientations and boxes in one convention: array[i, j, k] and a 4x4 affine, voxel index -> RAS millimetres.

Needs numpy alone, because it also runs inside Slicer before anything was installed.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from VISTA3DCore.errors import InputError

# Direction cosines that differ from orthonormal ones by less than this are rounding in headers (ITK accepts 1e-4). They
# are kept as they are: MONAI's Spacing reacts to deviations of 1e-8 (compute_shape_offset), so cleaning breaks parity.
ROUNDING_TOLERANCE = 5e-5
# About 3 degrees of shear: more than any rounding of a header explains, so the grid is really oblique-angled.
SHEAR_LIMIT = 0.05

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """Return the voxel spacing, three lengths in mm, of a 4x4 affine."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    return np.sqrt(np.sum(matrix * matrix, axis=0))


def shear_of(affine: np.ndarray) -> float:
    """Return the largest |cosine| between two different axes of the grid; 0 for an orthogonal grid."""
    directions = np.asarray(affine, dtype=np.float64)[:3, :3] / spacing_of(affine)
    return float(np.max(np.abs(directions.T @ directions - np.eye(3))))


def orthonormalised(affine: np.ndarray, tolerance: float = ROUNDING_TOLERANCE) -> np.ndarray:
    """Return the affine with exactly perpendicular axes, the closest to the given ones; spacing and origin are kept.

    :param affine: 4x4, voxel index -> millimetres.
    :param tolerance: deviations up to this size (see :func:`shear_of`) are left alone.
    :raises InputError: if the axes are far from perpendicular. Warns (UserWarning) where it changes something.
    """
    affine = np.array(affine, dtype=np.float64)
    shear = shear_of(affine)
    if shear <= tolerance:
        return affine
    if shear > SHEAR_LIMIT:
        raise InputError(
            f"The image's axes are not perpendicular ({np.degrees(np.arcsin(min(shear, 1.0))):.1f} degrees off); "
            "resample it to a regular grid first."
        )
    spacing = spacing_of(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / spacing)
    affine[:3, :3] = (left @ right) * spacing
    warnings.warn(
        f"The image's axes were not exactly perpendicular ({shear:.1g}); the closest perpendicular ones are used.",
        UserWarning,
        stacklevel=2,
    )
    return affine


def lps_to_ras(affine: np.ndarray) -> np.ndarray:
    """Convert a 4x4 affine to LPS millimetres (DICOM, ITK) into one to RAS millimetres, and back."""
    return _LPS_RAS @ np.asarray(affine, dtype=np.float64)


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points [..., 3] by a 4x4 affine."""
    affine = np.asarray(affine, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def shape_of(sizes: Iterable[float]) -> Shape:
    """Return three sizes as a shape."""
    i, j, k = (int(size) for size in sizes)
    return i, j, k


def box_between(start: Iterable[float], stop: Iterable[float]) -> Box:
    """Return the box from the voxel ``start`` [3] to, and without, the voxel ``stop`` [3]."""
    i, j, k = (slice(int(first), int(last)) for first, last in zip(start, stop, strict=True))
    return i, j, k


def ras_orientation(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Return how an array becomes the closest to RAS: ``np.flip(array, flipped axes).transpose(permutation)``.

    Same decisions as ``nibabel.io_orientation``, hence as MONAI's ``Orientation("RAS")``: the polar decomposition gives
    the rotation, and input axes choose their output axis from the most to the least decided one.

    :return: permutation (for each output axis the input axis) and, for each *input* axis, whether it is flipped.
    """
    left, _, right = np.linalg.svd(np.asarray(affine, dtype=np.float64)[:3, :3] / spacing_of(affine))
    rotation = left @ right
    permutation, flips = [0, 0, 0], [False, False, False]
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        closest = int(np.argmax(np.abs(rotation[:, axis])))
        permutation[closest] = int(axis)
        flips[axis] = bool(rotation[closest, axis] < 0)
        rotation[closest, :] = 0.0
    (i, j, k), (flip_i, flip_j, flip_k) = permutation, flips
    return (i, j, k), (flip_i, flip_j, flip_k)


def axis_codes(affine: np.ndarray) -> str:
    """Return the orientation as three letters, e.g. ``"LPS"``: towards where each array axis runs."""
    permutation, flips = ras_orientation(affine)
    letters = [""] * 3
    for world, axis in enumerate(permutation):
        letters[axis] = _AXIS_LETTERS[world][0 if flips[axis] else 1]
    return "".join(letters)


def to_ras(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reorient to the closest RAS grid by flips and a permutation only.

    :return: a view of the array and its affine.
    """
    permutation, flips = ras_orientation(affine)
    return _reorient(array, permutation, flips), reoriented_affine(affine, array.shape, permutation, flips)


def from_ras(array: np.ndarray, original_affine: np.ndarray) -> np.ndarray:
    """Undo :func:`to_ras`: return a view of a RAS array in the axis order and direction of ``original_affine``."""
    permutation, flips = ras_orientation(original_affine)
    back = array.transpose(np.argsort(permutation))
    return back[tuple(slice(None, None, -1 if flip else None) for flip in flips)]


def reoriented_affine(
    affine: np.ndarray, shape: tuple[int, ...], permutation: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> np.ndarray:
    """Return the affine of an array of ``shape`` after flipping its axes by ``flips``, then transposing it."""
    result = np.array(affine, dtype=np.float64)
    for axis, flip in enumerate(flips):
        if flip:
            result[:3, 3] += result[:3, axis] * (shape[axis] - 1)
            result[:3, axis] *= -1.0
    result[:3, :3] = result[:3, list(permutation)]
    return result


def _reorient(array: np.ndarray, permutation: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    flipped = array[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    return flipped.transpose(permutation)


def coverage(affine: np.ndarray, shape: tuple[int, ...]) -> str:
    """Return where the voxels' centres of a volume lie, for people: ``R -90 to 85, A -110 to 65, S 0 to 200 mm``.

    :param affine: 4x4, voxel index -> RAS millimetres.
    """
    corners = apply_affine(affine, np.array(list(itertools.product(*((0, size - 1) for size in shape)))))
    spans = zip("RAS", corners.min(axis=0), corners.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f} to {high:.0f}" for axis, low, high in spans) + " mm"


@dataclass(frozen=True)
class Region:
    """A box in RAS millimetres, parallel to the patient's axes.

    :raises InputError: if a corner is not finite or the minimum exceeds the maximum.
    """

    minimum: tuple[float, float, float]
    maximum: tuple[float, float, float]

    def __post_init__(self) -> None:
        low, high = np.asarray(self.minimum, dtype=float), np.asarray(self.maximum, dtype=float)
        if low.shape != (3,) or high.shape != (3,) or not np.all(np.isfinite([low, high])):
            raise InputError("A region needs six finite numbers: minimum R A S and maximum R A S in millimeters.")
        if np.any(low > high):
            raise InputError("The region's minimum exceeds its maximum; give minimum R A S, then maximum R A S.")

    def voxel_box(self, affine: np.ndarray, shape: tuple[int, ...]) -> Box:
        """Return the smallest box of voxels that holds the part of the region inside the volume.

        :param affine: 4x4, voxel index -> RAS millimetres.
        :param shape: the volume's shape.
        :raises InputError: if the region lies outside the volume.
        """
        corners = np.array(list(itertools.product(*zip(self.minimum, self.maximum, strict=True))))
        indices = apply_affine(np.linalg.inv(affine), corners)
        start = np.maximum(np.floor(indices.min(axis=0) + 0.5), 0).astype(int)
        stop = np.minimum(np.floor(indices.max(axis=0) + 0.5) + 1, shape).astype(int)
        if np.any(stop <= start):
            raise InputError(
                f"The region lies outside the volume, which covers {coverage(affine, shape)}; it is given in RAS "
                "millimeters."
            )
        return box_between(start, stop)


def to_region(roi: Region | Sequence[float] | None) -> Region | None:
    """Accept a region or six numbers: minimum R A S, maximum R A S in mm.

    :raises InputError: if it is neither.
    """
    if roi is None or isinstance(roi, Region):
        return roi
    numbers = np.asarray(list(roi), dtype=float)
    if numbers.shape != (6,):
        raise InputError("A region needs six numbers: minimum R A S, then maximum R A S in millimeters.")
    return Region(tuple(numbers[:3].tolist()), tuple(numbers[3:].tolist()))
