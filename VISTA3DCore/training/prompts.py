"""Prompts for training: which classes to ask for in a patch, and simulated clicks."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

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


def sample_clicks(
    target: np.ndarray, rng: np.random.Generator, most: int = 3, special: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return clicks as a user might set them on one object.

    Positive clicks lie inside the eroded object, negative ones near its outside.

    :param target: [i, j, k] bool, not empty.
    :param most: at most this many of each polarity; at least one is positive.
    :param special: use the click labels of special classes.
    :return: voxel indices [n, 3] and click labels [n] (0 negative, 1 positive; 2, 3 for special classes).
    """
    inner = ndimage.binary_erosion(target)
    inside = np.argwhere(inner if inner.any() else target)
    ring = np.argwhere(ndimage.binary_dilation(target, iterations=5) & ~ndimage.binary_dilation(target))
    positive = inside[rng.integers(len(inside), size=rng.integers(1, most + 1))]
    negative = ring[rng.integers(len(ring), size=rng.integers(0, most))] if len(ring) else ring[:0]
    labels = np.r_[np.ones(len(positive), np.int64), np.zeros(len(negative), np.int64)]
    return np.concatenate([positive, negative]), labels + 2 * special


def stack_clicks(clicks: list[tuple[np.ndarray, np.ndarray]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the clicks of several objects to one tensor: coordinates [B, N, 3] and labels [B, N], -1 = padding."""
    most = max(len(labels) for _, labels in clicks)
    coordinates = torch.zeros(len(clicks), most, 3)
    labels = torch.full((len(clicks), most), -1, dtype=torch.long)
    for row, (points, polarity) in enumerate(clicks):
        coordinates[row, : len(points)] = torch.as_tensor(points, dtype=torch.float32)
        labels[row, : len(points)] = torch.as_tensor(polarity)
    return coordinates, labels
