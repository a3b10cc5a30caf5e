"""A CT of 512 x 512 x 300 voxels with two organs, and a stand-in for the network that sees them by their brightness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from VISTA3DCore import Volume
from VISTA3DCore.network.click_head import ClickTokens
from VISTA3DCore.network.config import ModelConfig

SHAPE, SPACING = (512, 512, 300), (0.78, 0.78, 1.0)
# Axes as in most files: towards the patient's left and back.
AFFINE = np.array([[-0.78, 0, 0, 511 * 0.78], [0, -0.78, 0, 511 * 0.78], [0, 0, 1.0, 0], [0, 0, 0, 1]])
AIR_HU, TISSUE_HU, ORGAN_HU = -1000, 20, 120
# Semi-axes in mm: the box of a large object is about 128^3 voxels.
LARGE, CORE = np.array([49.0, 49.0, 63.0]), np.array([16.0, 16.0, 20.0])
# The middles of two windows of the lattice, so that a large object fits into one.
LARGE_AT, CORE_AT = np.array([96.0, 192.0, 192.0]), np.array([303.0, 192.0, 192.0])
_ROUGHNESS_MM = 1.5

Box = tuple[slice, slice, slice]


def phantom() -> Volume:
    """Return the CT: soft tissue with a large organ and the core of a mistake."""
    array = np.full(SHAPE, TISSUE_HU, dtype=np.int16, order="F")
    array[:2] = AIR_HU
    for centre, radii in ((LARGE_AT, LARGE), (CORE_AT, CORE)):
        box, depth = ellipsoid(centre, radii)
        array[box] += np.rint((ORGAN_HU - TISSUE_HU) / (1 + np.exp(-2 * depth))).astype(np.int16)
    return Volume(array, AFFINE)


def mask_of(centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return an ellipsoid as a mask on the CT's grid."""
    mask = np.zeros(SHAPE, dtype=bool, order="F")
    box, depth = ellipsoid(centre, radii)
    mask[box] = depth > 0
    return mask


def ellipsoid(centre: np.ndarray, radii: np.ndarray) -> tuple[Box, np.ndarray]:
    """Return a box around an ellipsoid with a rough surface, and the depth in it, in mm, of each voxel."""
    ends = (np.stack([centre - radii - 6, centre + radii + 6]) - AFFINE[:3, 3]) / np.diag(AFFINE)[:3]
    box = tuple(slice(int(low), int(high)) for low, high in zip(ends.min(axis=0), ends.max(axis=0), strict=True))
    axes = [
        (np.arange(part.start, part.stop) * AFFINE[axis, axis] + AFFINE[axis, 3] - centre[axis]) / radii[axis]
        for axis, part in enumerate(box)
    ]
    radius = np.sqrt(sum(np.square(part) for part in np.meshgrid(*axes, indexing="ij", sparse=True)))
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(radius.shape), 3)
    return box, (1 - radius) * radii.mean() + noise * (_ROUGHNESS_MM / noise.std())


@dataclass
class StructuredBackend:
    """Says that the object is what is ``bright`` in a window, what is ``dark``, or ``all`` of it.

    ``seconds`` and ``processor`` are the time that this took.
    """

    config: ModelConfig = field(default_factory=ModelConfig)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    answer: str = "bright"
    seconds: float = 0.0
    processor: float = 0.0

    def click_features(self, patch: torch.Tensor) -> torch.Tensor:
        with self._timed():
            low, high = self.config.intensity_range
            brightness = patch[0, 0] * (high - low) + low - (TISSUE_HU + ORGAN_HU) / 2
            return brightness * (8 / (ORGAN_HU - TISSUE_HU))

    def click_image(self, features: torch.Tensor) -> torch.Tensor:
        with self._timed():
            return features.float()

    def click_scores(self, features: torch.Tensor, _tokens: ClickTokens) -> torch.Tensor:
        with self._timed():
            return {"bright": features.clone, "dark": features.neg, "all": lambda: torch.ones_like(features)}[
                self.answer
            ]()

    def on(self, _device: torch.device | str) -> StructuredBackend:
        return self

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds += time.perf_counter() - started
        self.processor += time.process_time() - processor
