"""Small networks for the tests of runtimes, and how far two answers are apart."""

from __future__ import annotations

import torch

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig

SMALL = ModelConfig(name="small", width=8, blocks_down=(1, 1, 1), window=(32, 32, 32), n_classes=132)


def network_of(config: ModelConfig = SMALL, seed: int = 0) -> torch.nn.Module:
    """Return a network with random weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(config)


def patch_of(config: ModelConfig = SMALL, seed: int = 0) -> torch.Tensor:
    """Return a window of random intensities in [0, 1], [1, 1, w, w, w]."""
    return torch.rand(1, 1, *config.window, generator=torch.Generator().manual_seed(seed))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max())


def same_labels(found: torch.Tensor, expected: torch.Tensor, classes: torch.Tensor) -> float:
    """Return the share of voxels with the same label, from features [C, w, w, w] and class vectors [K, C]."""
    scores = [torch.tensordot(classes, features, dims=1) for features in (found, expected)]
    labels = [torch.where(one.amax(0) > 0, one.argmax(0), -1) for one in scores]
    return float((labels[0] == labels[1]).float().mean())
