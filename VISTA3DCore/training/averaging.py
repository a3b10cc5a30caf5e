"""The exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """Follows a network's weights.

    :param decay: 0: nothing is kept, and the weights themselves are the result.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state = {name: value.clone() for name, value in network.state_dict().items()} if decay else {}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the weights; faster in the first steps (the ramp of TensorFlow's average)."""
        decay = min(self._decay, step / (9 + step))
        current = network.state_dict()
        for name, value in self.state.items():
            value.lerp_(current[name], 1 - decay)

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on with a saved average."""
        for name, value in state.items():
            self.state[name].copy_(value)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """Let the network have the average's weights for a while."""
        if not self.state:
            yield
            return
        own = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.state)
        try:
            yield
        finally:
            network.load_state_dict(own)
