"""A second runtime of the click interface, which answers by a rule, and scenes that give its answers a meaning.

An object is what is brighter than the tissue around it: scores rise with intensity, 0 midway. Around negative clicks
nothing belongs to the object, and without a positive click the rule knows of none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from reference_pipeline import TINY, random_image

from VISTA3DCore import Click, Segmenter, Session, Volume
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.network.click_head import ClickTokens
from VISTA3DCore.network.config import ModelConfig

AIR, TISSUE, OBJECT = -1000.0, 50.0, 300.0
# The middle of the range is the middle between tissue and object, and an intensity of 0.5.
RULE = replace(TINY, name="rule", spacing=(2.0, 2.0, 2.0), intensity_range=(-1000.0, 1350.0))
STEEPNESS = 60.0
NEAR_VOXELS = 4.0
BRIGHT, DARK = 0, 1


class RuleBackend:
    """Answers by the rule; remembers what it was asked.

    To the automatic branch, structures with an even index are bright, the others dark.

    :param device: a name only; it computes on the CPU.
    """

    runtime, precision = "rule", "float32"

    def __init__(self, config: ModelConfig = RULE, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.encodings = 0
        self.asked: list[ClickTokens] = []

    def on(self, device: torch.device | str) -> RuleBackend:
        return type(self)(self.config, str(device))

    def click_features(self, patch: torch.Tensor) -> torch.Tensor:
        self.encodings += 1
        return patch[0]

    def click_image(self, features: torch.Tensor) -> torch.Tensor:
        return features[0].float()

    def click_scores(self, features: torch.Tensor, tokens: ClickTokens) -> torch.Tensor:
        self.asked.append(tokens)
        if not any(tokens.positive):
            return torch.full_like(features, -1.0)
        scores = STEEPNESS * (features - 0.5)
        for place, positive in zip(tokens.positions, tokens.positive, strict=True):
            if not positive:
                near = self._distance(place) <= NEAR_VOXELS
                scores[near] = -1.0
        return scores

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        image = patch[0]
        return torch.cat([image, torch.ones_like(image), image.new_zeros(6, *image.shape[1:])])

    def class_matrix(self, indices: Sequence[int]) -> torch.Tensor:
        signs = torch.tensor([1.0 if index % 2 == BRIGHT else -1.0 for index in indices])
        return torch.stack([STEEPNESS * signs, -0.5 * STEEPNESS * signs, *torch.zeros(6, len(indices))], dim=1)

    def _distance(self, place: tuple[float, float, float]) -> torch.Tensor:
        axes = [(torch.arange(side) - at) ** 2 for side, at in zip(self.config.window, place, strict=True)]
        return (axes[0][:, None, None] + axes[1][:, None] + axes[2]).sqrt()


def scene(shape: tuple[int, int, int], affine: np.ndarray, *objects, soft: float = 2.0) -> Volume:
    """Return tissue with objects whose surface is soft: within ``soft`` mm, tissue becomes object.

    A speck of air in the first voxel makes it a CT.

    :param objects: functions of RAS points [..., 3]: the signed distance in mm from the surface, positive inside.
    """
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = apply_affine(affine, grid)
    inside = np.max([np.clip(one(points) / soft + 0.5, 0, 1) for one in objects], axis=0) if objects else 0.0
    image = np.full(shape, TISSUE) + (OBJECT - TISSUE) * inside
    image[0, 0, 0] = AIR
    return Volume(image.astype(np.float32), affine)


def ball(centre: Sequence[float], radius: float):
    return lambda points: radius - np.linalg.norm(points - np.asarray(centre), axis=-1)


def tube(centre: Sequence[float], radius: float, axis: int = 2):
    """An endless cylinder along an axis of the patient."""
    across = [other for other in range(3) if other != axis]
    return lambda points: radius - np.linalg.norm((points - np.asarray(centre))[..., across], axis=-1)


def straight(spacing: Sequence[float] = (2.0, 2.0, 2.0), origin: Sequence[float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    affine = np.diag([*spacing, 1.0]).astype(np.float64)
    affine[:3, 3] = origin
    return affine


def open_scene(volume: Volume, backend: RuleBackend | None = None, **options) -> Session:
    return Segmenter(backend or RuleBackend()).open(volume, **options)


def texture(shape: tuple[int, int, int], seed: int = 0, affine: np.ndarray | None = None) -> Volume:
    """Return a random CT that is foreground everywhere, on a RAS grid of 1.5 mm: the model grid is the same."""
    image = 1000 * random_image(shape, seed) + 1
    image[0, 0, 0] = AIR
    return Volume(image.astype(np.float32), straight((1.5, 1.5, 1.5)) if affine is None else affine)


def plus(*position: float) -> Click:
    return Click(position, positive=True)


def minus(*position: float) -> Click:
    return Click(position, positive=False)
