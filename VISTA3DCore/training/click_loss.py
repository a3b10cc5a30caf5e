"""The loss of the interactive branch: iterative clicks on a few objects of a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from VISTA3DCore.network.click_head import ClickHead
from VISTA3DCore.training.click_sampling import first_clicks, next_clicks
from VISTA3DCore.training.losses import prompt_loss
from VISTA3DCore.training.prompts import stack_clicks


@dataclass(frozen=True)
class ClickObjects:
    """What is to be clicked in one patch.

    :param targets: [B, x, y, z] bool.
    :param special: [B] the object's class needs special tokens.
    :param zero_shot: [B] the object is presented as unknown.
    """

    targets: torch.Tensor
    special: np.ndarray
    zero_shot: np.ndarray


def click_loss(
    head: ClickHead,
    decoded: torch.Tensor,
    objects: ClickObjects,
    valid: torch.Tensor,
    iterations: int,
    rng: np.random.Generator,
) -> torch.Tensor:
    """Return the mean loss over click iterations, as users click: where the last answer was wrong.

    After each answer every object gets a click on a miss and one on a spill (``get_next_points`` of the reference).
    The reference encodes the patch anew and steps after each iteration; here one encoding serves all of them and one
    step follows, which costs a fraction.

    :param decoded: [1, C, x, y, z] of the click decoder.
    :param valid: [x, y, z] bool; voxels outside do not count.
    """
    inside = (objects.targets & valid).numpy()
    clicks = [first_clicks(target, rng) for target in inside]
    zero_shot = torch.as_tensor(objects.zero_shot)
    with torch.autocast("cpu", torch.bfloat16):
        side = head.image_side(head.features(decoded))
    losses = []
    for iteration in range(iterations):
        coordinates, labels = stack_clicks(clicks, objects.special)
        with torch.autocast("cpu", torch.bfloat16):
            scores = head.scores(side, coordinates, labels, zero_shot).float()
        losses.append(prompt_loss(scores, objects.targets, valid))
        if iteration < iterations - 1:
            answers = ((scores > 0) & valid).numpy()
            clicks = [
                next_clicks(old, target, answer, rng)
                for old, target, answer in zip(clicks, inside, answers, strict=True)
            ]
    return torch.stack(losses).mean()
