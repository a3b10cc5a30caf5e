"""Prompts for training: which classes to ask for in a patch, and simulated clicks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from VISTA3DCore.network.click_head import PADDING, SPECIAL
from VISTA3DCore.training.datasets import IGNORE, LoadedCase


def choose_labels(label: np.ndarray, case: LoadedCase, classes: np.ndarray, absent: int, rng: np.random.Generator):
    """Return the labels to ask for in a patch: all that are present, and a few that are not.

    A structure that the case's protocol does not cover is never asked for, so it is never penalised.

    :param label: [i, j, k] patch of a :class:`LoadedCase`.
    :param classes: classes that the model learns.
    :param absent: how many absent ones to add.
    """
    present = np.setdiff1d(np.unique(label), (0, IGNORE))
    askable = classes if case.case.complete else np.asarray(case.annotated)
    others = np.setdiff1d(askable, present)
    extra = rng.choice(others, min(absent, len(others)), replace=False)
    known = present[np.isin(present, askable)]
    return np.concatenate([known, extra]).astype(np.int64)


Clicks = tuple[np.ndarray, np.ndarray]
"""Voxel indices [n, 3] and whether each is positive [n]."""


def first_clicks(target: np.ndarray, rng: np.random.Generator) -> Clicks:
    """Return how a user might begin: one or a few clicks inside the eroded object, sometimes one beside it.

    The number of positive clicks is drawn as the reference draws it for at most 3 (``generate_prompt_pairs``).

    :param target: [i, j, k] bool, not empty.
    """
    positive = _random_voxels(_eroded(target), min(3, 1 + int(abs(rng.normal()))), rng)
    ring = ndimage.binary_dilation(target, iterations=5) & ~ndimage.binary_dilation(target)
    negative = _random_voxels(ring, int(rng.random() < 0.25), rng)
    return _joined(positive, negative)


def next_clicks(clicks: Clicks, target: np.ndarray, answer: np.ndarray, rng: np.random.Generator) -> Clicks:
    """Return the clicks and two more, where there are such errors: a positive one on a miss, a negative one on a spill.

    :param target: [i, j, k] bool.
    :param answer: [i, j, k] bool, what the network gave.
    """
    positive = _random_voxels(_eroded(target & ~answer), 1, rng)
    negative = _random_voxels(_eroded(answer & ~target), 1, rng)
    points, polarity = _joined(positive, negative)
    return np.concatenate([clicks[0], points]), np.concatenate([clicks[1], polarity])


def stack_clicks(clicks: Sequence[Clicks], special: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the clicks of several objects to one tensor: coordinates [B, N, 3] and labels [B, N], -1 = padding.

    :param special: [B] the object's class needs special tokens.
    """
    most = max(len(polarity) for _, polarity in clicks)
    coordinates = torch.zeros(len(clicks), most, 3)
    labels = torch.full((len(clicks), most), PADDING, dtype=torch.long)
    for row, (points, polarity) in enumerate(clicks):
        coordinates[row, : len(points)] = torch.as_tensor(points, dtype=torch.float32)
        labels[row, : len(points)] = torch.as_tensor(polarity.astype(np.int64)) + SPECIAL * bool(special[row])
    return coordinates, labels


def _eroded(region: np.ndarray) -> np.ndarray:
    inner = ndimage.binary_erosion(region)
    return inner if inner.any() else region


def _random_voxels(region: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    inside = np.argwhere(region)
    return inside[rng.integers(len(inside), size=count)] if len(inside) else inside


def _joined(positive: np.ndarray, negative: np.ndarray) -> Clicks:
    polarity = np.arange(len(positive) + len(negative)) < len(positive)
    return np.concatenate([positive, negative]), polarity
