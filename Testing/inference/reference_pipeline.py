"""Small seeded networks, phantoms, and the reference pipeline as MONAI runs it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from monai.inferers import SlidingWindowInferer, SlidingWindowInfererAdapt
from scipy import ndimage

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.backends.torch_backend import TorchBackend
from VISTA3DCore.network.config import ModelConfig

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


@dataclass
class Reference:
    """The reference's automatic branch: MONAI's sliding window over the network's class logits."""

    network: torch.nn.Module
    config: ModelConfig
    windows: list = field(default_factory=list)

    def inferer(self, preset: str):
        window = list(self.config.window)
        if preset == "bundle":  # as NV-Segment-CT/scripts/inferer.py builds it
            return SlidingWindowInfererAdapt(
                roi_size=window, sw_batch_size=1, with_coord=True, padding_mode="replicate"
            )
        return SlidingWindowInferer(
            roi_size=window, sw_batch_size=1, with_coord=True, padding_mode="replicate", overlap=0.625, mode="gaussian"
        )

    @torch.inference_mode()
    def logits(self, image: np.ndarray, classes: list[int], preset: str) -> torch.Tensor:
        """Return [1, K, x, y, z]."""
        self.windows = []

        def predictor(patch, coords, **options):
            self.windows.append(tuple(axis.start for axis in coords[0][2:]))
            return self.network(patch, patch_coords=coords, **options)

        return self.inferer(preset)(
            torch.from_numpy(image)[None, None],
            predictor,
            transpose=True,
            class_vector=torch.tensor(classes)[:, None],
        )
