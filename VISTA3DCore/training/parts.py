"""The parts of the network that can be frozen or learn at a rate of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

_PREFIXES = {
    "encoder": ("image_encoder.encoder.",),
    "click_decoder": ("image_encoder.up_layers.",),
    "click_head": ("point_head.",),
    "class_decoder": ("image_encoder.up_layers_auto.",),
    "class_head": ("class_head.image_post_mapping.",),
    "class_vectors": ("class_head.",),  # what is left of it: the embeddings and the mapping to vectors
}


def part_of(name: str) -> str:
    """Return the part (one of ``recipe.PARTS``) that a parameter belongs to."""
    return next(part for part, prefixes in _PREFIXES.items() if name.startswith(prefixes))


def freeze(network: nn.Module, frozen: Collection[str]) -> None:
    """Let the parameters of some parts never change."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) not in frozen)


def parameter_groups(network: nn.Module, rate: float, factors: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what an optimizer takes: one group for each part that learns, with its learning rate."""
    groups = []
    for part in _PREFIXES:
        own = [one for name, one in network.named_parameters() if one.requires_grad and part_of(name) == part]
        if own:
            groups.append({"params": own, "lr": rate * factors.get(part, 1.0), "part": part})
    return groups
