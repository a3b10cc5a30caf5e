"""Simulated clicks for training: pure functions of bool arrays and a generator. Coordinates are voxels of the patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from VISTA3DCore.evaluation.simulation import eroded
from VISTA3DCore.imaging.components import Box

Clicks = tuple[np.ndarray, np.ndarray]
"""Voxel indices [n, 3] and whether each is positive [n]."""

NO_CLICKS: Clicks = (np.zeros((0, 3), np.int64), np.zeros(0, bool))


def draw_counts(most: int, rng: np.random.Generator) -> tuple[int, int]:
    """Return how many positive (at least one) and negative clicks to begin with, as ``generate_prompt_pairs`` does."""
    positive, negative = np.abs(rng.normal(0.0, most // 2, 2)).astype(int)
    return min(most, int(positive) + 1), min(most, int(negative))


def clickable(region: np.ndarray, margin: int = 0, within: Box | None = None) -> np.ndarray:
    """Return where in a region a click may be: 3 x 3 x 3 voxels from its outside and off the border of the patch.

    :param region: bool [i, j, k].
    :param margin: voxels of the patch's border in which nothing is clicked.
    :param within: a box to which clicks are confined besides.
    """
    inner = eroded(region)
    boxes = [tuple(slice(margin, size - margin) for size in region.shape), *([within] if within else [])]
    for box in boxes:
        outside = np.ones(region.shape, bool)
        outside[box] = False
        inner[outside] = False
    return inner


def random_voxels(region: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return up to ``count`` different voxels of a region, int64 [n, 3]."""
    flat = np.flatnonzero(region)
    chosen = rng.choice(flat, min(count, len(flat)), replace=False)
    return np.stack(np.unravel_index(chosen, region.shape), axis=1)


def joined(positive: np.ndarray, negative: np.ndarray) -> Clicks:
    """Return clicks from positive and negative voxels [n, 3]."""
    polarity = np.arange(len(positive) + len(negative)) < len(positive)
    return np.concatenate([positive, negative]), polarity


def added(clicks: Clicks, more: Clicks) -> Clicks:
    """Return the clicks of both."""
    return np.concatenate([clicks[0], more[0]]), np.concatenate([clicks[1], more[1]])


def regular_clicks(
    target: np.ndarray, outside: np.ndarray, counts: tuple[int, int], margin: int, rng: np.random.Generator
) -> Clicks:
    """Return the first clicks on an object; where it is too thin or at the border, they are anywhere in it.

    :param target: bool [i, j, k].
    :param outside: bool [i, j, k], what certainly does not belong to it.
    :param counts: positive and negative clicks.
    """
    inner = clickable(target, margin)
    positive = random_voxels(inner if inner.any() else target, counts[0], rng)
    negative = random_voxels(clickable(outside, margin), counts[1], rng) if counts[1] else NO_CLICKS[0]
    return joined(positive, negative)


def error_clicks(
    target: np.ndarray,
    answer: np.ndarray,
    rng: np.random.Generator,
    *,
    valid: np.ndarray | None = None,
    margin: int = 0,
    small_errors: bool = True,
) -> Clicks:
    """Return a positive click on a miss and a negative one on a spill, where there are such errors.

    ``get_next_points`` of the reference, whose margin however holds in two of three directions.

    :param target: bool [i, j, k].
    :param answer: bool [i, j, k], what the network gave.
    :param valid: bool [i, j, k]; elsewhere nothing is an error.
    :param small_errors: also click errors that erosion and margin leave nothing of.
    """
    points = []
    for error in (target & ~answer, answer & ~target):
        known = error if valid is None else error & valid
        inner = clickable(known, margin)
        points.append(random_voxels(known if small_errors and not inner.any() else inner, 1, rng))
    return joined(*points)


def first_clicks(target: np.ndarray, rng: np.random.Generator) -> Clicks:
    """Return how a user might begin: one or a few clicks inside the eroded object, sometimes one beside it.

    :param target: [i, j, k] bool, not empty.
    """
    inner = eroded(target)
    positive = random_voxels(inner if inner.any() else target, draw_counts(3, rng)[0], rng)
    ring = ndimage.binary_dilation(target, iterations=5) & ~ndimage.binary_dilation(target)
    return joined(positive, random_voxels(ring, int(rng.random() < 0.25), rng))


def next_clicks(clicks: Clicks, target: np.ndarray, answer: np.ndarray, rng: np.random.Generator) -> Clicks:
    """Return the clicks and those of :func:`error_clicks`."""
    return added(clicks, error_clicks(target, answer, rng))


def counted(clicks: Sequence[Clicks]) -> int:
    """Return the largest number of clicks that one object has."""
    return max((len(polarity) for _, polarity in clicks), default=0)
