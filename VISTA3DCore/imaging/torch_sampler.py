"""Where voxels of one grid lie on another, with the roundings of torch's ``affine_grid`` and ``grid_sample``."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class TorchSampler:
    """Coordinates on a source grid with the roundings of torch's ``affine_grid`` and ``grid_sample``.

    :param theta: 4x4, normalised target -> normalised source coordinates.
    :param grid: normalised coordinates of the target's voxels along its axes.
    :param source_shape: shape of the source grid.
    """

    theta: np.ndarray
    grid: tuple[np.ndarray, np.ndarray, np.ndarray]
    source_shape: tuple[int, int, int]

    def line(self, axis: int) -> np.ndarray:
        """Source coordinates along one axis, leaving out what the two other axes contribute through rounding."""
        return self._voxels(self.grid[axis] * self.theta[axis, axis] + self.theta[axis, 3], axis)

    def plane(self, axis: int, k: int) -> np.ndarray:
        """Source coordinates [i, j] along one axis for the target's slice ``k``, complete."""
        row = self.theta[axis]
        in_plane = self.grid[0][:, None] * row[0] + self.grid[1] * row[1]
        return self._voxels(in_plane + self.grid[2][k] * row[2] + row[3], axis)

    def decides_halves(self) -> bool:
        """Whether a nearest neighbour depends on what :meth:`line` leaves out: voxels half-way between two others."""
        for axis, size in enumerate(self.source_shape):
            rest = (np.sum(np.abs(self.theta[axis, :3])) - abs(self.theta[axis, axis])) * size / 2.0
            distance = np.abs(self.line(axis) % 1.0 - 0.5)
            if rest > 0.0 and np.any(distance <= 1.01 * rest + 1e-9):
                return True
        return False

    def _voxels(self, normalised: np.ndarray, axis: int) -> np.ndarray:
        size = self.source_shape[axis]
        return np.clip(((normalised + 1.0) * size - 1.0) / 2.0, 0.0, size - 1.0)


def normalisation(shape: tuple[int, ...]) -> np.ndarray:
    """Map indices to [-1, 1] from outer edge to outer edge: monai.networks.utils.normalize_transform."""
    sides = np.array(shape, dtype=np.float64)
    result = np.diag(np.append(2.0 / sides, 1.0))
    result[:3, 3] = 1.0 / sides - 1.0
    return result


def base_grid(size: int) -> np.ndarray:
    """Return the centres of ``size`` cells of [-1, 1] as ``affine_grid`` makes them: fused multiply-add in linspace."""
    if size == 1:
        return np.zeros(1)
    step = Fraction(2.0 / (size - 1))
    rising = [float(-1 + step * index) for index in range(size // 2)]
    falling = [float(1 - step * index) for index in range(size - size // 2)]
    return np.array(rising + falling[::-1]) * (size - 1) / size
