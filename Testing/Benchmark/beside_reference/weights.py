"""The weights of the benchmark, as a checkpoint that every side loads.

Random weights give labels that are noise: whatever depends on how labels lie (components, restoration of boundaries,
compression) then costs more than it does for anatomy. So there are *structured* weights as well: random ones, of which
the class vectors alone are fitted by least squares, such that the network labels a phantom coherently.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.models.checkpoints import save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig

RANDOM, STRUCTURED = "random", "structured"
_RIDGE = 1e-4
_MOST_VOXELS = 1 << 18


def seeded_network(config: ModelConfig, seed: int = 0) -> nn.Module:
    """Return a network with random weights that depend on nothing but the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(config)


def write_weights(path: Path, kind: str, config: ModelConfig, seed: int = 0) -> None:
    """Write ``random`` or ``structured`` weights as a checkpoint."""
    network = seeded_network(config, seed)
    if kind == STRUCTURED:
        structure(network, config, seed)
    save_checkpoint(path, config, network.state_dict())


def structure(network: nn.Module, config: ModelConfig, seed: int = 0) -> None:
    """Fit the class vectors in place: positive where the phantom has the class, negative where it has not."""
    features, labels = _seen(network, config, seed)
    classes = [one.index for one in catalogue(config.label_set).everything]
    targets = np.where(labels[:, None] == np.array(classes), 1.0, -1.0)
    vectors = np.stack([_fitted(features, target, _weights(target > 0)) for target in targets.T])
    write_class_vectors(network.class_head, classes, *_of_lower_rank(vectors, features, config.width // 2 - 1))


def _seen(network: nn.Module, config: ModelConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, C] and labels [n] of a sample of the voxels of one window of a phantom."""
    image, labels = paint_phantom(config.window, seed)
    low, high = config.intensity_range
    patch = torch.from_numpy(np.clip((image.array - low) / (high - low), 0, 1).astype(np.float32))
    features = TorchBackend(network, config).automatic_features(patch[None, None]).flatten(1).T.numpy()
    step = max(1, len(features) // _MOST_VOXELS)
    return features[::step].astype(np.float64), labels.ravel()[::step]


def _weights(inside: np.ndarray) -> np.ndarray:
    """Return weights between those that balance inside and outside and none at all.

    Balanced, every organ would also be seen in noise; unweighted, small ones nowhere.
    """
    share = inside.mean()
    return np.sqrt(np.where(inside, 0.5 / share, 0.5 / (1 - share))) if 0 < share < 1 else np.ones(len(inside))


def _fitted(seen: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the vector whose product with the features is closest to the target, by weighted least squares."""
    weighted = seen * weight[:, None]
    normal = seen.T @ weighted
    normal += _RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    return np.linalg.solve(normal, weighted.T @ target)


def _of_lower_rank(vectors: np.ndarray, features: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates [K, rank] and basis [C, rank] whose product is close to the vectors in the scores it gives."""
    scores = vectors @ (features.T @ features) @ vectors.T
    main = np.linalg.eigh(scores)[1][:, -rank:]
    return main, vectors.T @ main


@torch.no_grad()
def write_class_vectors(head: nn.Module, classes: list[int], vectors: np.ndarray, basis: np.ndarray) -> None:
    """Make a class head give chosen class vectors, exactly, although an MLP lies between embedding and vector.

    The MLP is Linear, InstanceNorm over the C channels, GELU, Linear. An embedding (a, -a) has mean 0, and one more
    number in a gives all of them variance 1, so the norm changes nothing; and GELU(x) - GELU(-x) = x.

    :param vectors: [K, C/2 - 1], coordinates in the basis; :param basis: [C, C/2 - 1].
    """
    half = basis.shape[0] // 2
    lengths = np.square(vectors).sum(axis=1)
    rest = np.sqrt(np.maximum(1.01 * lengths.max() - lengths, 0.0))
    coefficients = np.column_stack([vectors, rest])
    scale = np.sqrt(1.01 * lengths.max() / half)
    halves = torch.from_numpy(np.column_stack([coefficients, -coefficients]) / scale).float()
    out = np.column_stack([basis * scale, np.zeros(len(basis))])
    first, _, _, last = head.mlp
    first.weight.copy_(torch.eye(len(basis)))
    last.weight.copy_(torch.from_numpy(np.column_stack([out, -out])))
    first.bias.zero_()
    last.bias.zero_()
    head.class_embeddings.weight[torch.tensor(classes)] = halves
