"""The two branches of the network as training runs them: with gradients, on one patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from VISTA3DCore.network.click_head import ClickHead
from VISTA3DCore.training.losses import union_logits
from VISTA3DCore.training.prompts import PromptObject, stack_clicks


def _as_it_is(loss: torch.Tensor) -> torch.Tensor:
    return loss


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are computed.

    :param autocast: makes the context in which the network runs.
    :param scale: multiplies a loss before its gradient is taken (fp16).
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    autocast: Callable[[], AbstractContextManager] = nullcontext
    scale: Callable[[torch.Tensor], torch.Tensor] = _as_it_is


class Branches:
    """Runs a network's encoder, its automatic and its interactive branch."""

    def __init__(self, network: nn.Module, arithmetic: Arithmetic) -> None:
        self.network, self.arithmetic = network, arithmetic
        self._head = ClickHead(network.point_head)

    def encoded(
        self, image: torch.Tensor, clicking: bool, automatic: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the click features [1, C, x/2, y/2, z/2] and the class features [C, x, y, z], in the run's precision;
        None if not wanted.

        :param image: [1, 1, x, y, z].
        """
        if not clicking and not automatic:
            return None, None
        if image.device.type == "cpu":
            image = image.contiguous(memory_format=torch.channels_last_3d)
        with self.arithmetic.autocast():
            decoded, features = self.network.image_encoder(image, with_point=clicking, with_label=automatic)
            click_features = self._head.features(decoded) if clicking else None
            if automatic:
                features = self.network.class_head.image_post_mapping(features)[0]
        return click_features, features if automatic else None

    def vectors(self, classes: Sequence[int]) -> torch.Tensor:
        """Return the vectors of classes, [K, C]."""
        head = self.network.class_head
        rows = torch.as_tensor(classes, device=self.arithmetic.device).reshape(-1, 1)
        return head.mlp(head.class_embeddings(rows))[:, 0]

    def class_logits(self, features: torch.Tensor, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the scores of classes or unions of classes, [B, x, y, z]."""
        vectors = self.vectors([index for one in prompts for index in one])
        return union_logits(vectors, features.float(), [len(one) for one in prompts])

    def logits_at(self, features: torch.Tensor, voxels: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
        """Return the scores of all classes at some voxels, float32 [N, K].

        :param features: the class features.
        :param voxels: [N], flat indices.
        """
        rows = features.movedim(0, -1).reshape(-1, features.shape[0])[voxels]
        return rows.float() @ self.vectors(classes).float().T

    def click_logits(self, features: torch.Tensor, objects: Sequence[PromptObject]) -> torch.Tensor:
        """Return the scores of clicked objects, [B, x, y, z].

        :param features: the click features.
        """
        coordinates, labels = stack_clicks([one.clicks for one in objects], [one.special for one in objects])
        zero_shot = torch.tensor([one.zero_shot for one in objects])
        clicks = (tensor.to(self.arithmetic.device) for tensor in (coordinates, labels, zero_shot))
        with self.arithmetic.autocast():
            return self._head.scores(self._head.image_side(features), *clicks).float()
