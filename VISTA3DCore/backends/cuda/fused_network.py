"""The convolutional part of the network, rebuilt as a list of fused steps on the network's own weights.

MONAI's modules normalise, activate and add one after the other, each reading and writing the whole image. Here they
are part of the convolutions before and behind them wherever there is a kernel for it, see
:meth:`~VISTA3DCore.backends.cuda.kernels.choice.Kernels.convolve`. Images stay channels-last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from VISTA3DCore.backends.cuda.kernels.choice import Kernels
from VISTA3DCore.backends.cuda.kernels.operations import (
    GELU,
    IDENTITY,
    RELU,
    Activation,
    Convolution,
    Entry,
    Moments,
    Normalisation,
)

_HARMLESS = (nn.Identity, nn.Dropout, nn.Dropout3d)


class UnknownLayerError(Exception):
    """The network has a layer that cannot be rebuilt; it must run as it is."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A convolution followed by a normalisation and an activation."""

    kernels: Kernels
    convolution: Convolution
    normalisation: Normalisation
    activation: Activation = IDENTITY

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return activation(norm(conv(image)))."""
        image, moments = self.kernels.convolve(image, self.convolution)
        return self.kernels.normalise(image, self.normalisation, self.activation, moments=moments, overwrite=True)


@dataclass(frozen=True, eq=False)
class PreActivationBlock:
    """MONAI's ``SegResBlock``: normalise, activate, convolve, twice; then add the input."""

    kernels: Kernels
    normalisations: tuple[Normalisation, Normalisation]
    convolutions: tuple[Convolution, Convolution]

    def __call__(self, image: torch.Tensor, moments: Moments | None) -> tuple[torch.Tensor, Moments | None]:
        """Take and return an image and its moments, where they are known."""
        first, second = self.normalisations
        inner, inside = self.kernels.convolve(image, self.convolutions[0], Entry(first, RELU, moments))
        entry = Entry(second, RELU, inside, overwrite=True)
        return self.kernels.convolve(inner, self.convolutions[1], entry, after=image)


@dataclass(frozen=True, eq=False)
class PostActivationBlock:
    """MONAI's ``UnetResBlock`` with as many channels out as in: convolve and normalise, twice, activated in between.

    Its input is added before the last activation.
    """

    kernels: Kernels
    convolutions: tuple[Convolution, Convolution]
    normalisations: tuple[Normalisation, Normalisation]
    activation: Activation

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        first, second = self.normalisations
        inner, inside = self.kernels.convolve(image, self.convolutions[0])
        entry = Entry(first, self.activation, inside, overwrite=True)
        result, moments = self.kernels.convolve(inner, self.convolutions[1], entry)
        del inner  # its memory is free for what normalising may take
        return self.kernels.normalise(result, second, self.activation, moments=moments, after=image, overwrite=True)


@dataclass(frozen=True, eq=False)
class Level:
    """Residual blocks of one resolution, and the convolution that leads to it (up) or on from it (down)."""

    kernels: Kernels
    blocks: tuple[PreActivationBlock, ...]
    resample: Convolution | None

    def __call__(
        self, image: torch.Tensor, moments: Moments | None = None, skip: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run the blocks on image + skip, or on an image whose moments may be known."""
        if skip is not None:
            moments = self.kernels.measure(image, skip)
        for block in self.blocks:
            image, moments = block(image, moments)
        return image


@dataclass(frozen=True, eq=False)
class Encoder:
    """From a patch [B, 1, x, y, z] to the images of all levels, the finest first."""

    kernels: Kernels
    initial: Convolution
    levels: tuple[Level, ...]

    def __call__(self, patch: torch.Tensor) -> list[torch.Tensor]:
        image, moments = self.kernels.convolve(patch, self.initial)
        outputs = []
        for level in self.levels:
            outputs.append(level(image, moments))
            if level.resample is not None:
                image, moments = self.kernels.convolve(outputs[-1], level.resample)
        return outputs


@dataclass(frozen=True, eq=False)
class Decoder:
    """From the encoder's images to one image [B, C, x, y, z], and through what follows it."""

    levels: tuple[Level, ...]
    head: Convolution
    tail: tuple[PostActivationBlock | Unit, ...]

    def __call__(self, encoded: list[torch.Tensor]) -> torch.Tensor:
        """Decode; the list is emptied on the way, so that the images' memory is free for what follows."""
        image = encoded.pop()
        for level in self.levels:
            image = level(level.resample(image), skip=encoded.pop())
        image = self.head(image)
        for step in self.tail:
            image = step(image)
        return image


class Rebuilder:
    """Turns modules of the network into steps.

    :param device: where the converted weights lie; the network's own stay as they are.
    :param dtype: of the convolutions. Normalisations have float32 parameters.
    :param memory_format: of images and convolution weights.
    """

    def __init__(
        self, kernels: Kernels, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format
    ) -> None:
        self.kernels, self._device, self._dtype, self._format = kernels, device, dtype, memory_format

    def encoder(self, encoder: nn.Module) -> Encoder:
        """Rebuild MONAI's ``SegResEncoder``.

        :raises UnknownLayerError: as all of these, if the network is built of other layers than expected.
        """
        levels = tuple(self._level(level["blocks"], level["downsample"]) for level in encoder.layers)
        return Encoder(self.kernels, self.convolution(encoder.conv_init), levels)

    def decoder(self, up_layers: Iterable[nn.ModuleDict], tail: nn.Sequential) -> Decoder:
        """Rebuild one of the decoders of ``SegResNetDS2`` with what follows it: a class head or ``feat_downsample``."""
        layers = list(up_layers)
        levels = tuple(self._level(level["blocks"], level["upsample"]) for level in layers)
        return Decoder(levels, self.convolution(layers[-1]["head"]), self._tail(tail))

    def convolution(self, module: nn.Module) -> Convolution:
        """Rebuild a convolution, or a module that holds nothing else."""
        leaves = [one for one in module.modules() if not list(one.children()) and not isinstance(one, _HARMLESS)]
        if len(leaves) != 1 or not isinstance(leaves[0], nn.Conv3d | nn.ConvTranspose3d):
            raise UnknownLayerError(f"{type(module).__name__} is not one convolution")
        layer = leaves[0]
        if layer.groups != 1 or set(layer.dilation) != {1} or layer.padding_mode != "zeros":
            raise UnknownLayerError(f"an unusual convolution: {layer}")
        bias = None if layer.bias is None else self._converted(layer.bias)
        output_padding = layer.output_padding if isinstance(layer, nn.ConvTranspose3d) else None
        weight = self._converted(layer.weight).contiguous(memory_format=self._format)
        return Convolution(weight, bias, layer.stride, layer.padding, output_padding)

    def normalisation(self, layer: nn.Module) -> Normalisation:
        """Rebuild an instance normalisation."""
        if not isinstance(layer, nn.InstanceNorm3d) or layer.track_running_stats:
            raise UnknownLayerError(f"{type(layer).__name__} is not an instance normalization")
        if not layer.affine:
            return Normalisation(epsilon=layer.eps)
        weight, bias = (one.detach().to(self._device, torch.float32) for one in (layer.weight, layer.bias))
        return Normalisation(weight, bias, layer.eps)

    def unit(self, convolution: nn.Module, normalisation: nn.Module, activation: Activation) -> Unit:
        """Rebuild a convolution, a normalisation and an activation as one."""
        return Unit(self.kernels, self.convolution(convolution), self.normalisation(normalisation), activation)

    def _level(self, blocks: nn.Sequential, resample: nn.Module) -> Level:
        ends = isinstance(resample, nn.Identity)
        leading = None if ends else self.convolution(resample)
        return Level(self.kernels, tuple(self._block(block) for block in blocks), leading)

    def _block(self, block: nn.Module) -> PreActivationBlock:
        if {_activation(block.act1), _activation(block.act2)} != {RELU}:
            raise UnknownLayerError("a residual block with other activations than ReLU")
        normalisations = self.normalisation(block.norm1), self.normalisation(block.norm2)
        return PreActivationBlock(self.kernels, normalisations, self._convolutions(block))

    def _tail(self, tail: nn.Sequential) -> tuple[PostActivationBlock | Unit, ...]:
        layers = list(tail)
        if all(hasattr(layer, "layer") for layer in layers):
            return tuple(self._post_activation_block(layer.layer) for layer in layers)
        first, second, activation, third, fourth = layers
        return self.unit(first, second, _activation(activation)), self.unit(third, fourth, IDENTITY)

    def _post_activation_block(self, block: nn.Module) -> PostActivationBlock:
        if block.downsample:
            raise UnknownLayerError("a residual block that changes the number of channels")
        normalisations = self.normalisation(block.norm1), self.normalisation(block.norm2)
        return PostActivationBlock(self.kernels, self._convolutions(block), normalisations, _activation(block.lrelu))

    def _convolutions(self, block: nn.Module) -> tuple[Convolution, Convolution]:
        return self.convolution(block.conv1), self.convolution(block.conv2)

    def _converted(self, parameter: torch.Tensor) -> torch.Tensor:
        return parameter.detach().to(self._device, self._dtype)


def _activation(layer: nn.Module) -> Activation:
    if isinstance(layer, nn.ReLU):
        return RELU
    if isinstance(layer, nn.LeakyReLU):
        return Activation(slope=layer.negative_slope)
    if isinstance(layer, nn.GELU) and layer.approximate == "none":
        return GELU
    raise UnknownLayerError(f"{type(layer).__name__} is not an activation that is known here")
