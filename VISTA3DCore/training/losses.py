"""Losses of both branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss
from torch.nn.functional import cross_entropy

OUTSIDE_LOGIT = -20.0


def prompt_loss(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Dice + binary cross-entropy, averaged over prompts, with the paper's settings (its training configuration).

    :param logits: [B, i, j, k], one prompt each.
    :param targets: [B, i, j, k] bool, or probabilities.
    :param valid: [i, j, k] or [B, i, j, k] bool; voxels outside do not count.
    """
    loss = DiceCELoss(sigmoid=True, squared_pred=True, smooth_nr=1e-5, smooth_dr=1e-5)
    known = torch.where(valid, logits, OUTSIDE_LOGIT)
    return loss(known[:, None], (targets * valid)[:, None].float())


def map_loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the displayed label map, which is the argmax of the scores and of 0 for background.

    :param logits: [B, i, j, k], one prompt each.
    :param rows: [i, j, k] what each voxel is: -1 unknown, 0 background, n the prompt n - 1.
    """
    scores = torch.cat([torch.zeros_like(logits[:1]), logits])
    return cross_entropy(scores[None], rows[None], ignore_index=-1)


def union_logits(vectors: torch.Tensor, features: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the score of each class or union of classes: somewhere the highest member's, smoothly; [B, i, j, k].

    :param vectors: [sum of sizes, C] class vectors, those of a union one after the other.
    :param features: [C, i, j, k].
    :param sizes: [B] how many classes each prompt stands for.
    """
    scores = torch.einsum("kc,cxyz->kxyz", vectors, features)
    return torch.stack([one[0] if len(one) == 1 else torch.logsumexp(one, 0) for one in scores.split(list(sizes))])
