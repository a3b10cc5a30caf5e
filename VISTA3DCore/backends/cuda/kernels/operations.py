"""The operations that have kernels, in plain PyTorch: they run everywhere and define what the kernels compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
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


@dataclass(frozen=True, eq=False)
class Moments:
    """What is known of the voxels of each channel, part by part of an image.

    :param means: [B, parts, C] float32.
    :param squares: [B, parts, C] float32, sums of squared deviations from the part's mean.
    :param voxels: of a part; the last ones may have fewer.
    """

    means: torch.Tensor
    squares: torch.Tensor
    voxels: int


@dataclass(frozen=True, eq=False)
class Entry:
    """What is done to an image before it is convolved.

    :param moments: the image's, where they are known.
    :param overwrite: the image is not needed any more, and its memory may be used.
    """

    normalisation: Normalisation
    activation: Activation
    moments: Moments | None = None
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class Convolution:
    """A 3-D convolution, transposed where ``output_padding`` is given."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...] | None = None

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if self.output_padding is not None:
            return functional.conv_transpose3d(
                image, self.weight, self.bias, self.stride, self.padding, self.output_padding
            )
        if self._is_product and image.is_contiguous(memory_format=torch.channels_last_3d):
            # A matrix product adds the bias in passing; a convolution, in another pass.
            rows = image.permute(0, 2, 3, 4, 1)
            product = torch.addmm(self.bias, rows.flatten(0, 3), self.weight.flatten(1).T)
            return product.view(*rows.shape[:4], -1).permute(0, 4, 1, 2, 3)
        return functional.conv3d(image, self.weight, self.bias, self.stride, self.padding)

    @property
    def _is_product(self) -> bool:
        return self.bias is not None and self.weight.shape[2:] == (1, 1, 1) and set(self.stride) == {1}


def measure(image: torch.Tensor, before: torch.Tensor | None = None) -> Moments | None:
    """Add ``before``, a residual, to an image [B, C, x, y, z] in place, and return the sum's moments.

    Here they are not taken; :func:`normalise` finds them anyway.
    """
    if before is not None:
        image += before
    return None


def normalise(
    image: torch.Tensor,
    normalisation: Normalisation,
    activation: Activation = IDENTITY,
    *,
    moments: Moments | None = None,  # noqa: ARG001 - plain torch has no use for it, nor for the last one
    after: torch.Tensor | None = None,
    overwrite: bool = False,  # noqa: ARG001
) -> torch.Tensor:
    """Return activation(norm(image) + after).

    :param image: [B, C, x, y, z].
    :param moments: the image's, where they are known.
    :param after: [B, C, x, y, z], a residual to add between normalisation and activation, or None.
    :param overwrite: the image is not needed any more, and a kernel may use its memory for the result.
    """
    if len(image) == 1:
        result = _normalised(image, normalisation)
    else:
        result = torch.cat([_normalised(one, normalisation) for one in image.split(1)])
    if after is not None:
        result += after
    return _activated(result, activation)


def collapse(
    image: torch.Tensor,
    weight: torch.Tensor,
    normalisation: Normalisation,
    activation: Activation,
    moments: Moments | None = None,
) -> torch.Tensor:
    """Return the convolution of activation(norm(image)) to one channel, [x, y, z] float32.

    :param image: [1, C, x, y, z], which may be overwritten.
    :param weight: [1, C, 3, 3, 3], of the image's type.
    :param moments: the image's, where they are known.
    """
    active = normalise(image, normalisation, activation, moments=moments, overwrite=True)
    return functional.conv3d(active, weight, padding=1)[0, 0].float()


def normalise_rows(rows: torch.Tensor, more: torch.Tensor, added: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """Return the layer normalisation of rows + more + added, [n, C] each, the last one [C]; all float32."""
    return norm(rows + more + added)


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

    :param features: [..., C] float32, with one to three axes of voxels.
    :param matrix: [K, C] float32, class vectors; the first of them compete, the others are masks of their own.
    :param values: [k] int32, the labels of the classes that compete, k <= K.
    :return: [...] int16, the label of the class with the largest score (the first of equal ones), 0 where none is
        positive; and [K - k, ...] bool, where the other scores are positive.
    """
    shape, features = features.shape[:-1], features.reshape(-1, features.shape[-1])
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
    return labels.view(shape), masks.view(-1, *shape)


def _winners(scores: torch.Tensor) -> torch.Tensor:
    """Return for each row the first column with the largest score; numpy's is the fastest on the CPU by far."""
    if scores.device.type == "cpu":
        return torch.from_numpy(np.argmax(scores.numpy(), axis=1))
    return scores.argmax(dim=1)


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + _VOXELS) for start in range(0, count, _VOXELS))
