"""Small seeded networks, phantoms, and the reference pipeline as MONAI runs it."""

from __future__ import annotations

import numpy as np
from beside_reference.reference import Reference
from beside_reference.weights import seeded_network
from scipy import ndimage

from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.network.config import ModelConfig

__all__ = [
    "SMALL",
    "TINY",
    "CountingBackend",
    "Reference",
    "random_image",
    "seeded_network",
]

SMALL = ModelConfig(width=8, window=(64, 64, 64), blocks_down=(1, 1, 1))
TINY = ModelConfig(width=8, window=(32, 32, 32), blocks_down=(1, 1, 1))


def random_image(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a smooth texture in [0, 1], float32."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    texture = ndimage.gaussian_filter(noise, 2) * 6 + 0.5 + 0.1 * noise
    return np.clip(texture, 0, 1).astype(np.float32)


class CountingBackend(TorchBackend):
    """Counts the network's passes."""

    passes = 0

    def automatic_features(self, patch):
        self.passes += 1
        return super().automatic_features(patch)
