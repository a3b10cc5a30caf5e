"""How much arithmetic and memory traffic the network's parts need, counted on the network itself.

Counting runs on torch's meta device: nothing is computed, so it takes a second for the full size. A FLOP is half a
multiply-accumulate. Bytes are the least that is possible: every convolution reads its input and weights once and writes
its output once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.click_head import ClickHead
from VISTA3DCore.network.config import ModelConfig


@dataclass(frozen=True)
class Work:
    """:param flops: floating-point operations; :param values: numbers read and written (times 4 or 2 for bytes)."""

    flops: int
    values: int

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.values + other.values)

    def __mul__(self, count: int) -> Work:
        return Work(self.flops * count, self.values * count)


@dataclass(frozen=True)
class NetworkWork:
    """The parts of one window.

    :param encoder: shared by both branches.
    :param automatic: decoder and class head, without the product with the classes.
    :param one_class: the product with one class.
    :param click_encoding: the click decoder and its downsampling, without the encoder.
    :param click_reference: the reference's click head with one click; it always encodes, too.
    :param click_cached: our click head with one click, on kept features.
    """

    encoder: Work
    automatic: Work
    one_class: Work
    click_encoding: Work
    click_reference: Work
    click_cached: Work

    @property
    def features(self) -> Work:
        """Our automatic pass of a window."""
        return self.encoder + self.automatic

    def reference_window(self, classes: int) -> Work:
        """The reference's automatic pass of a window: the classes' product is part of it."""
        return self.features + self.one_class * classes

    @property
    def first_click(self) -> Work:
        """Our first click in a window."""
        return self.encoder + self.click_encoding + self.click_cached

    @property
    def reference_click(self) -> Work:
        """One window of the reference's clicks."""
        return self.encoder + self.click_encoding + self.click_reference


def network_work(config: ModelConfig) -> NetworkWork:
    """Count the work of one window."""
    with torch.device("meta"):
        network = build_network(config)
        patch = torch.empty(1, 1, *config.window)
    coder, head = network.image_encoder, network.point_head
    encoder = _counted(network, lambda: coder.encoder(patch))
    decoded = _counted(network, lambda: coder(patch, with_point=False, with_label=True))
    features = torch.empty(1, config.width, *config.window, device="meta")
    mapped = _counted(network, lambda: network.class_head.image_post_mapping(features))
    voxels = patch.numel()
    return NetworkWork(
        encoder=encoder,
        automatic=_difference(decoded, encoder) + mapped,
        one_class=Work(2 * config.width * voxels, (config.width + 1) * voxels),
        **_click_work(network, head, config, encoder),
    )


def _click_work(network: nn.Module, head: nn.Module, config: ModelConfig, encoder: Work) -> dict[str, Work]:
    patch = torch.empty(1, 1, *config.window, device="meta")
    decoded = torch.empty(1, config.click_features, *config.window, device="meta")
    low = torch.empty(1, config.click_features, *(side // 2 for side in config.window), device="meta")
    click = torch.zeros(1, 1, 3, device="meta"), torch.zeros(1, 1, dtype=torch.long, device="meta")
    ours, known = ClickHead(head), torch.zeros(1, dtype=torch.bool, device="meta")
    branch = _counted(network, lambda: network.image_encoder(patch, with_point=True, with_label=False))
    down = _counted(network, lambda: head.feat_downsample(decoded))
    side = ours.image_side(low)
    cached = _counted(network, lambda: ours.scores(side, *click, known))
    upscaling = _counted(network, lambda: head.output_upscaling(low))
    tail = _counted(network, lambda: head.output_upscaling[0](low))
    # Ours folds the last convolution (C -> C) into one (C -> 1); the rest of the head is the same.
    folded = Work(2 * 27 * config.click_features * patch.numel(), config.click_features * patch.numel())
    projections = _counted(network, lambda: ours.image_side(low))
    unfolded = _difference(_difference(upscaling, tail), folded)
    return {
        "click_encoding": _difference(branch, encoder) + down,
        "click_reference": cached + projections + unfolded,
        "click_cached": cached,
    }


def _difference(whole: Work, part: Work) -> Work:
    return Work(whole.flops - part.flops, whole.values - part.values)


@torch.no_grad()
def _counted(network: nn.Module, action: Callable[[], object]) -> Work:
    """Run an action on the meta device and count what its convolutions and matrix products do."""
    values = 0

    def count(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        nonlocal values
        values += inputs[0].numel() + output.numel() + sum(one.numel() for one in module.parameters(recurse=False))

    kinds = (nn.Conv3d, nn.ConvTranspose3d)
    hooks = [one.register_forward_hook(count) for one in network.modules() if isinstance(one, kinds)]
    try:
        with FlopCounterMode(display=False) as counter:
            action()
    finally:
        for hook in hooks:
            hook.remove()
    return Work(counter.get_total_flops(), values)
