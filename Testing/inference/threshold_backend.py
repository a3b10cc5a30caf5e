"""A network whose right answer is known: bright voxels are one structure, dark ones another."""

from __future__ import annotations

import torch

from VISTA3DCore.network.config import ModelConfig

LIVER, SPLEEN = 1, 3


class ThresholdBackend:
    """Liver where the image is above 0.8, spleen where it is between 0.6 and 0.7, in HU about 650 and 250 to 450.

    Features are the intensity, its square, and one, so that any window gives the same ones.
    """

    device = torch.device("cpu")
    runtime, precision = "torch", "float32"

    def __init__(self, **changes: object) -> None:
        settings = {"name": "threshold", "width": 8, "window": (32, 32, 32), "blocks_down": (1, 1, 1)}
        self.config = ModelConfig(**{**settings, "spacing": (3.0, 3.0, 3.0), "classes": (LIVER, SPLEEN), **changes})
        self.passes = 0

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        image = patch[0, 0]
        features = torch.zeros(8, *image.shape)
        features[0], features[1], features[2] = 1.0, image, image * image
        return features

    def class_matrix(self, indices: list[int]) -> torch.Tensor:
        rows = {LIVER: (-0.8, 1.0, 0.0), SPLEEN: (-0.42, 1.3, -1.0)}
        return torch.tensor([[*rows[index], 0.0, 0.0, 0.0, 0.0, 0.0] for index in indices])
