"""The dense loss: at chosen voxels, all classes of the model and background are told apart.

Asking for a few dozen classes, as the paper does, punishes inventions only where an absent class happens to be asked
for. Here every annotated class is a negative at every voxel that does not belong to it. That is what
:meth:`Session.segment` decides by: the highest score wins, and background scores 0.

A voxel often has several possible classes: where a protocol did not annotate everything, "unlabeled" means background
or any class that it did not annotate; a union means one of its members. The loss is the negative logarithm of their
joint probability (the marginal loss of Shi et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import softplus

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, PatchData
from VISTA3DCore.training.targets import MERGED

_CODES = IGNORE + 1
_BALANCED = 0.5
"""Share of the voxels that are drawn evenly from all codes, so that small structures are seen in every patch."""

_SMOOTH = 0.5
"""Added to numerator and denominator of the Dice, in voxels."""


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """What is known at the chosen voxels of a patch.

    :param voxels: int64 [N], flat indices.
    :param weights: float32 [N], mean about 1: undo the uneven choice of voxels and scale predictions down.
    :param allowed: bool [N, 1 + K], which of background and the K classes a voxel may be.
    """

    voxels: torch.Tensor
    weights: torch.Tensor
    allowed: torch.Tensor

    def to(self, device: torch.device) -> DenseTargets:
        """Return the same on another device."""
        return DenseTargets(self.voxels.to(device), self.weights.to(device), self.allowed.to(device))


def dense_targets(
    patch: PatchData, classes: Sequence[int], share: float, pseudo_weight: float, rng: np.random.Generator
) -> DenseTargets:
    """Choose voxels of a patch and return what each may be.

    :param classes: catalogue indices of the model's classes, [K].
    :param share: part of the voxels that is chosen.
    :param pseudo_weight: weight of voxels that only a prediction labels.
    """
    keys = _keys(patch)
    voxels, ratio = _chosen(keys, max(1, round(share * keys.size)), rng)
    chosen = keys[voxels]
    weights = ratio * np.where(chosen >= _CODES, pseudo_weight, 1.0)
    table = allowed_classes(patch.meaning, classes)
    return DenseTargets(
        torch.from_numpy(voxels), torch.from_numpy(weights.astype(np.float32)), torch.from_numpy(table[chosen])
    )


def allowed_classes(meaning: LabelMeaning, classes: Sequence[int]) -> np.ndarray:
    """Return what a voxel of each code may be, bool [2 * 256, 1 + K]; from 256 on the code is predicted.

    :param classes: catalogue indices of the model's classes, [K]; column 0 is background.
    """
    annotated = {member for code in meaning.annotated for member in meaning.members(code)}
    if meaning.complete:
        annotated |= {one.index for one in catalogue().everything}
    spoken = {one.index for one in catalogue().everything} if meaning.predicted is None else set(meaning.predicted)
    open_ = np.array([True, *(index not in annotated for index in classes)])
    not_predicted = np.array([True, *(index not in annotated | spoken for index in classes)])
    table = np.ones((2 * _CODES, len(open_)), bool)
    table[0], table[_CODES], table[_CODES + IGNORE] = open_, not_predicted, open_
    column = {index: number for number, index in enumerate(classes, 1)}
    for code in range(1, FIRST_UNION + len(meaning.unions)):
        found = _columns(meaning.members(code), annotated, column)
        if found:
            table[[code, _CODES + code]] = False
            table[np.ix_([code, _CODES + code], found)] = True
    return table


def dense_loss(logits: torch.Tensor, targets: DenseTargets, binary: float) -> torch.Tensor:
    """Return cross-entropy over background and all classes, plus Dice of those that are there.

    :param logits: float [N, K], scores of the classes at the chosen voxels; background scores 0.
    :param binary: weight of the cross-entropy of each class by itself, so that a class that is asked for alone is
        found where its score is above 0 and nowhere else.
    """
    scores = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
    logs = torch.log_softmax(scores, 1)
    allowed, weights = targets.allowed, targets.weights
    certain = allowed.sum(1) == 1
    row = allowed.to(torch.uint8).argmax(1)
    entropy = -logs.gather(1, row[:, None])[:, 0]
    if not certain.all():
        some = ~certain
        joint = logs[some].masked_fill(~allowed[some], float("-inf")).logsumexp(1)
        entropy = entropy.masked_scatter(some, -joint.clamp(max=0.0))
    loss = (entropy * weights).mean()
    if binary:
        negative = (softplus(logits) * ~allowed[:, 1:]).sum(1)
        positive = softplus(-scores.gather(1, row[:, None])[:, 0]) * (certain & (row > 0))
        loss = loss + binary * ((negative + positive) * weights).mean()
    present = torch.unique(row[certain & (row > 0)])
    if len(present):
        loss = loss + _dice_loss(logs[:, present].exp(), allowed[:, present], certain, row, present, weights)
    return loss


def _dice_loss(
    found: torch.Tensor,
    allowed: torch.Tensor,
    certain: torch.Tensor,
    row: torch.Tensor,
    present: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Return 1 - Dice, averaged over the present classes; voxels that may or may not belong to a class are left out.

    :param found: [N, P] probabilities; :param allowed: [N, P]; :param present: [P] columns.
    """
    target = (row[:, None] == present) & certain[:, None]
    valid = (target | ~allowed) * weights[:, None]
    both = (found * target * valid).sum(0)
    sizes = (found * valid).sum(0) + (target * valid).sum(0)
    return (1 - (2 * both + _SMOOTH) / (sizes + _SMOOTH)).mean()


def _keys(patch: PatchData) -> np.ndarray:
    """Return the row of :func:`allowed_classes` for each voxel, int64 [i * j * k]."""
    label = patch.label.reshape(-1).astype(np.int64)
    if patch.pseudo_label is None or patch.meaning.complete:
        return label
    return np.where(label == 0, patch.pseudo_label.reshape(-1).astype(np.int64) + _CODES, label)


def _chosen(keys: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return chosen voxels [N] and the ratio of even to actual chances [N]; unknown voxels are left out."""
    known = np.flatnonzero(keys != IGNORE)
    if not len(known):
        return np.zeros(1, np.int64), np.zeros(1)
    order = known[np.argsort(keys[known].astype(np.uint16), kind="stable")]
    codes, starts, sizes = np.unique(keys[order], return_index=True, return_counts=True)
    even = rng.integers(len(order), size=count - round(_BALANCED * count))
    kind = rng.integers(len(codes), size=round(_BALANCED * count))
    balanced = starts[kind] + (rng.random(len(kind)) * sizes[kind]).astype(np.int64)
    voxels = order[np.concatenate([even, balanced])]
    size = sizes[np.searchsorted(codes, keys[voxels])]
    chance = (1 - _BALANCED) / len(order) + _BALANCED / (len(codes) * size)
    return voxels, 1 / (len(order) * chance)


def _columns(members: Sequence[int], annotated: set[int], column: dict[int, int]) -> list[int]:
    """Return the columns that a code stands for: its classes, parts of them that were not annotated, or their whole."""
    parts = {part for member in members for part in MERGED.get(member, ()) if part not in annotated}
    found = [column[index] for index in {*members, *parts} if index in column]
    if found or not members:
        return sorted(found)
    wholes = {whole for whole, parts in MERGED.items() if set(members) <= set(parts)}
    return sorted(column[index] for index in wholes if index in column)
