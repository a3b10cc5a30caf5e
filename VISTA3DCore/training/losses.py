"""Losses of both branches."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch.nn.functional import cross_entropy

OUTSIDE_LOGIT = -20.0


def prompt_loss(logits: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Dice + binary cross-entropy, averaged over prompts, with the paper's settings (its training configuration).

    :param logits: [B, i, j, k], one prompt each.
    :param targets: [B, i, j, k] bool.
    :param valid: [i, j, k] bool; voxels outside do not count.
    """
    loss = DiceCELoss(sigmoid=True, squared_pred=True, smooth_nr=1e-5, smooth_dr=1e-5)
    known = torch.where(valid, logits, OUTSIDE_LOGIT)
    return loss(known[:, None], (targets & valid)[:, None].float())


def map_loss(logits: torch.Tensor, prompts: torch.Tensor, label: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the displayed label map, which is the argmax of the scores and of 0 for background.

    :param logits: [B, i, j, k], one class each.
    :param prompts: [B] their labels; other labels count as background.
    :param label: [i, j, k] labels, at most 255.
    :param valid: [i, j, k] bool.
    """
    scores = torch.cat([torch.zeros_like(logits[:1]), logits])
    rows = torch.zeros(256, dtype=torch.long)
    rows[prompts] = torch.arange(1, len(prompts) + 1)
    return cross_entropy(scores[None], torch.where(valid, rows[label], -1)[None], ignore_index=-1)
