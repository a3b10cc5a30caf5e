"""A mask or label map from another file on the grid of an image: the same voxels, part of them, or resampled."""

from __future__ import annotations

import itertools
import warnings

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import Box, apply_affine, box_between, spacing_of
from VISTA3DCore.imaging.volume import Volume

# A grid whose corners lie this close to voxels of the image (in voxels) is part of the image's grid: headers round.
_GRID_TOLERANCE = 0.05
# Half a voxel, and a little more than rounding errors, so that points half-way between voxels all go the same way.
_HALF = 0.5 + 1e-6


def place(labels: np.ndarray, affine: np.ndarray, volume: Volume, name: str, resample: bool = False) -> np.ndarray:
    """Bring a mask or a label map to the grid of an image.

    A grid that consists of voxels of the image's grid (cropped, padded, or stored along other directions) only moves
    its voxels; nothing is resampled then.

    :param labels: bool or integer [i, j, k] on its own grid; 0 is background.
    :param affine: of that grid, 4x4, voxel index -> RAS mm.
    :param name: of the file, for messages.
    :param resample: resample another geometry by nearest neighbour.
    :return: the same type [i, j, k] on the grid of the image. Voxels outside it are left out, with a UserWarning.
    :raises InputError: if the geometry is another one and ``resample`` is False.
    """
    to_image = np.linalg.inv(volume.affine) @ affine
    steps = _whole_steps(to_image, labels.shape)
    if steps is not None:
        placed = _moved(labels, steps, volume.shape)
        if np.count_nonzero(placed) < np.count_nonzero(labels):
            sentence = f"'{name}' reaches beyond the image; what lies outside was left out."
            warnings.warn(sentence, UserWarning, stacklevel=2)
    elif resample:
        placed = _resampled(labels, to_image, volume.shape)
    else:
        raise InputError(
            f"'{name}' has another geometry than the image ({_difference(to_image, affine, volume)}); "
            "add --resample-base to resample it by nearest neighbor."
        )
    return placed


def _whole_steps(to_image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the 4x4 map between voxel indices in whole numbers, or None if voxels do not fall onto voxels."""
    steps = np.rint(to_image)
    permutes = np.array_equal(np.sort(np.abs(steps[:3, :3]), axis=0), [[0, 0, 0], [0, 0, 0], [1, 1, 1]])
    if not permutes or not np.all(np.abs(steps[:3, :3]).sum(axis=1) == 1):
        return None
    corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))))
    deviation = np.abs(apply_affine(to_image, corners) - apply_affine(steps, corners)).max()
    return steps.astype(int) if deviation <= _GRID_TOLERANCE else None


def _moved(labels: np.ndarray, steps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Put labels into a volume by a signed permutation and an offset of its indices."""
    order = np.argmax(np.abs(steps[:3, :3]), axis=1)
    signs = steps[range(3), order]
    source = labels.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
    start = np.where(signs > 0, steps[:3, 3], steps[:3, 3] - source.shape + 1)
    low, high = np.maximum(start, 0), np.minimum(start + source.shape, shape)
    result = np.zeros(shape, dtype=labels.dtype)
    if np.all(low < high):
        result[box_between(low, high)] = source[box_between(low - start, high - start)]
    return result


def _resampled(labels: np.ndarray, to_image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Look up, for each voxel of the image near the labels, the closest stored voxel."""
    result = np.zeros(shape, dtype=labels.dtype)
    if not labels.any():
        return result
    to_stored = np.linalg.inv(to_image)
    box = _box_in_image(labels, to_image, shape)
    i, j = np.arange(box[0].start, box[0].stop)[:, None], np.arange(box[1].start, box[1].stop)[None, :]
    last = np.reshape(labels.shape, (3, 1, 1)) - 1
    for k in range(box[2].start, box[2].stop):
        places = np.array([np.floor(a * i + b * j + (c * k + d + _HALF)) for a, b, c, d in to_stored[:3]]).astype(int)
        inside = np.all((places >= 0) & (places <= last), axis=0)
        plane = np.zeros(inside.shape, dtype=labels.dtype)
        plane[inside] = labels[tuple(places[:, inside])]
        result[box[0], box[1], k] = plane
    return result


def _box_in_image(labels: np.ndarray, to_image: np.ndarray, shape: tuple[int, ...]) -> Box:
    """Return the box of the image that holds all labelled voxels, with their whole extent."""
    bounds = []
    for axis in range(3):
        present = np.flatnonzero(labels.any(axis=tuple(other for other in range(3) if other != axis)))
        bounds.append((present[0] - 0.5, present[-1] + 0.5))
    corners = apply_affine(to_image, np.array(list(itertools.product(*bounds))))
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, 0, shape).astype(int)
    return box_between(low, high)


def _difference(to_image: np.ndarray, affine: np.ndarray, volume: Volume) -> str:
    """Say in a few words how a grid differs from the image's."""
    own, others = spacing_of(affine), spacing_of(volume.affine)
    if not np.allclose(np.sort(own), np.sort(others), rtol=1e-3):
        sizes = [" x ".join(f"{length:.4g}" for length in spacing) for spacing in (own, others)]
        return f"its spacing is {sizes[0]} mm, the image's {sizes[1]} mm"
    if not np.allclose(np.abs(to_image[:3, :3]).max(axis=0), 1.0, atol=1e-3):
        return "its axes point in other directions"
    return "its voxels lie between those of the image"
