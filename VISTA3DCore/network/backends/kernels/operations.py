"""The operations that have kernels, in plain PyTorch: they run everywhere and define what the kernels compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

# Voxels whose scores are held at once: 117 scores of a million voxels are half a gigabyte.
_VOXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Instance normalisation over the voxels of each channel.

    :param weight: [C] float32, or None where it is not affine; :param bias: likewise.
    """

    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    epsilon: float = 1e-5


@dataclass(frozen=True)
class Activation:
    """GELU, or x where positive and ``slope`` * x where negative."""

    gelu: bool = False
    slope: float = 1.0


IDENTITY, RELU, GELU = Activation(), Activation(slope=0.0), Activation(gelu=True)


def normalise(
    image: torch.Tensor,
    normalisation: Normalisation,
    activation: Activation = IDENTITY,
    *,
    before: torch.Tensor | None = None,
    after: torch.Tensor | None = None,
    overwrite: bool = False,  # noqa: ARG001 - plain torch has no use for it
) -> torch.Tensor:
    """Return activation(norm(image + before) + after).

    :param image: [B, C, x, y, z]; ``before`` is added to it in place, so that it holds the sum afterwards.
    :param before: [B, C, x, y, z], a residual that was left to be added, or None.
    :param after: [B, C, x, y, z], a residual to add between normalisation and activation, or None.
    :param overwrite: the image is not needed any more, and a kernel may use its memory for the result.
    """
    if before is not None:
        image += before
    if len(image) == 1:
        result = _normalised(image, normalisation)
    else:
        result = torch.cat([_normalised(one, normalisation) for one in image.split(1)])
    if after is not None:
        result += after
    return _activated(result, activation)


def _normalised(image: torch.Tensor, normalisation: Normalisation) -> torch.Tensor:
    """Normalise one image.

    For a batch of one, batch and instance normalisation are the same; but ``instance_norm`` copies a channels-last
    image to the other layout, and ``batch_norm`` does not.
    """
    weight, bias = normalisation.weight, normalisation.bias
    return functional.batch_norm(image, None, None, weight, bias, training=True, eps=normalisation.epsilon)


def _activated(image: torch.Tensor, activation: Activation) -> torch.Tensor:
    if activation.gelu:
        return functional.gelu(image)
    if activation.slope == 1.0:
        return image
    return functional.leaky_relu_(image, activation.slope) if activation.slope else image.relu_()


def classify(features: torch.Tensor, matrix: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labels and masks of voxels.

    :param features: [n, C] float32.
    :param matrix: [K, C] float32, class vectors; the first of them compete, the others are masks of their own.
    :param values: [k] int32, the labels of the classes that compete, k <= K.
    :return: [n] int16, the label of the class with the largest score (the first of equal ones), 0 where none is
        positive; and [K - k, n] bool, where the other scores are positive.
    """
    count, voxels = len(values), len(features)
    labels = torch.zeros(voxels, dtype=torch.int16, device=features.device)
    masks = torch.empty((len(matrix) - count, voxels), dtype=torch.bool, device=features.device)
    for part in _parts(voxels):
        scores = features[part] @ matrix.T
        masks[:, part] = scores[:, count:].T > 0
        if count:
            winner = _winners(scores[:, :count])
            positive = scores.gather(1, winner[:, None])[:, 0] > 0
            labels[part] = (values[winner] * positive).to(torch.int16)
    return labels, masks


def _winners(scores: torch.Tensor) -> torch.Tensor:
    """Return for each row the first column with the largest score; numpy's is the fastest on the CPU by far."""
    if scores.device.type == "cpu":
        return torch.from_numpy(np.argmax(scores.numpy(), axis=1))
    return scores.argmax(dim=1)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _VOXELS) for start in range(0, count, _VOXELS))
