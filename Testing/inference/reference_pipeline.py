"""Small seeded networks, phantoms, and the reference pipeline as MONAI runs it."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.evaluation.benchmark.reference import Reference
from VISTA3DCore.network.architecture import build_network
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


def seeded_network(config: ModelConfig, seed: int = 0):
    """Return a network with random weights that do not depend on anything but the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(config)


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
