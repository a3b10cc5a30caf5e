"""Anatomies that do not exist: an affine map and a smooth random field, evaluated in one patch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch.nn.functional import grid_sample

_SPLINE_GAIN = 3.0
"""Cubic B-splines average control points: this brings the variance of three axes back to about 1."""


@dataclass(frozen=True)
class DeformationConfig:
    """How far a synthetic anatomy departs from the one that it is made of. No flips: laterality is anatomy.

    :param rotation_deg: standard deviation about each axis.
    :param scale: range of the common scale; each axis varies by ``anisotropy`` besides.
    :param anisotropy: range about 1.
    :param knot_mm: distance of the control points of the smooth field.
    :param displacement_mm: largest standard deviation of a control point; a seventh of ``knot_mm`` hardly ever folds.
    """

    rotation_deg: float = 7.0
    scale: tuple[float, float] = (0.82, 1.2)
    anisotropy: float = 0.08
    knot_mm: float = 60.0
    displacement_mm: float = 8.5


def sample_points(
    centre: Sequence[float],
    shape: Sequence[int],
    spacing: Sequence[float],
    config: DeformationConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return where the voxels of a deformed patch come from, float32 [3, i, j, k], voxel indices of the source.

    :param centre: voxel of the source that comes to the middle of the patch.
    :param shape: of the patch.
    :param spacing: mm, of both grids.
    """
    spacing = np.asarray(spacing, float)
    matrix = _matrix(config, rng)
    axes = [(np.arange(size) - (size - 1) / 2) * step for size, step in zip(shape, spacing, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    points = np.tensordot(matrix.astype(np.float32), grid, axes=1)
    points += _smooth_field(shape, spacing, config, rng)
    points /= spacing.astype(np.float32).reshape(3, 1, 1, 1)
    return points + np.asarray(centre, np.float32).reshape(3, 1, 1, 1)


def _matrix(config: DeformationConfig, rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation and scaling [3, 3] of mm."""
    rotation = Rotation.from_euler("xyz", rng.normal(0, config.rotation_deg, 3), degrees=True).as_matrix()
    scale = rng.uniform(*config.scale) * rng.uniform(1 - config.anisotropy, 1 + config.anisotropy, 3)
    return rotation @ np.diag(1 / scale)


def _smooth_field(
    shape: Sequence[int], spacing: np.ndarray, config: DeformationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Return displacements in mm, float32 [3, i, j, k]: cubic interpolation between random control points."""
    sides = [int(np.ceil(size * step / config.knot_mm)) + 3 for size, step in zip(shape, spacing, strict=True)]
    knots = rng.normal(0, rng.uniform(0.3, 1.0) * config.displacement_mm, (3, *sides))
    field = np.empty((3, *shape), np.float32)
    offset = rng.random(3)
    lines = [offset[axis] + 1 + np.arange(shape[axis]) * spacing[axis] / config.knot_mm for axis in range(3)]
    for part in range(3):
        field[part] = _interpolated(knots[part], lines)
    return field


def smooth_noise(shape: Sequence[int], knot_voxels: float, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise of mean 0 and variance about 1, float32 [i, j, k].

    :param knot_voxels: distance of the control points: how fast it varies.
    """
    sides = [int(np.ceil(size / knot_voxels)) + 3 for size in shape]
    offset = rng.random(3)
    lines = [offset[axis] + 1 + np.arange(shape[axis]) / knot_voxels for axis in range(3)]
    return _interpolated(rng.standard_normal(sides, np.float32), lines) * np.float32(_SPLINE_GAIN)


def _interpolated(knots: np.ndarray, lines: list[np.ndarray]) -> np.ndarray:
    """Evaluate a tensor product of cubic B-splines on a grid, float32: one small matrix for each axis."""
    first, second, third = (_basis(line, size) for line, size in zip(lines, knots.shape, strict=True))
    rows = second @ (knots.astype(np.float32) @ third.T)
    return (first @ rows.reshape(len(rows), -1)).reshape(len(first), *rows.shape[1:])


def _basis(line: np.ndarray, count: int) -> np.ndarray:
    """Return the weights of cubic B-splines at positions [n], in units of the distance of knots; float32 [n, count]."""
    distance = np.abs(line[:, None] - np.arange(count)).astype(np.float32)
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clip(0) ** 3 / 6
    return np.where(distance < 1, near, far)


def nearest_voxels(points: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat index of the voxel next to each point, and whether the point lies in the volume.

    Beyond the border it is the border's voxel.

    :param points: [3, i, j, k], voxel indices.
    """
    places = np.rint(points).astype(np.int32)
    inside = np.ones(points.shape[1:], bool)
    for axis, size in enumerate(shape):
        inside &= (places[axis] >= 0) & (places[axis] < size)
        np.clip(places[axis], 0, size - 1, out=places[axis])
    return (places[0] * shape[1] + places[1]) * shape[2] + places[2], inside


def interpolated(array: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the values of an array at points, linearly; beyond the border it is repeated.

    :param array: float32 [i, j, k] or [C, i, j, k].
    :param points: [3, i, j, k], voxel indices.
    :return: float32 [i, j, k] or [C, i, j, k], with the sides of ``points``.
    """
    sizes = np.array(array.shape[-3:], np.float32).reshape(3, 1, 1, 1)
    grid = 2 * points.astype(np.float32) / np.maximum(sizes - 1, 1) - 1
    grid = torch.from_numpy(np.ascontiguousarray(np.moveaxis(grid[::-1], 0, -1)))  # torch wants k, j, i
    stacked = torch.from_numpy(np.ascontiguousarray(array, np.float32)).reshape(1, -1, *array.shape[-3:])
    found = grid_sample(stacked, grid[None], mode="bilinear", padding_mode="border", align_corners=True)
    return found.reshape(*array.shape[:-3], *points.shape[1:]).numpy()
