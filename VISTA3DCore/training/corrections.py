"""Simulated clicks as in use: each round changes the mask that is shown, which often begins as the automatic result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.inference.clicks.refinement import refine
from VISTA3DCore.training.click_sampling import Clicks, error_clicks
from VISTA3DCore.training.prompts import PromptConfig, PromptObject


def begun_from(
    objects: Sequence[PromptObject], answers: np.ndarray, config: PromptConfig, rng: np.random.Generator
) -> list[PromptObject]:
    """Return the objects with first clicks on the errors of a mask; objects without such errors stay as they are.

    :param answers: bool [B, i, j, k], the mask that is shown of each object before the first click.
    """
    return [_begun_from(one, answer, config, rng) for one, answer in zip(objects, answers, strict=True)]


def folded(shown: np.ndarray, answer: np.ndarray, clicks: Clicks) -> np.ndarray:
    """Return the mask after new clicks: in the components that they touch, it becomes the network's answer.

    :param shown: bool [i, j, k], the mask before them.
    :param answer: bool [i, j, k], what the network answered to all clicks up to now.
    :param clicks: the new ones; a click touches what lies in its voxel.
    """
    points = [Click(tuple(map(float, point)), bool(positive)) for point, positive in zip(*clicks, strict=True)]
    return refine(shown, answer, points, np.eye(4), tolerance=0.0).mask


def since(clicks: Clicks, count: int) -> Clicks:
    """Return the clicks after the first ``count``."""
    return clicks[0][count:], clicks[1][count:]


def _begun_from(one: PromptObject, answer: np.ndarray, config: PromptConfig, rng: np.random.Generator) -> PromptObject:
    margin = config.margin_voxels(answer.shape)
    clicks = error_clicks(one.target, answer, rng, valid=one.valid, margin=margin, small_errors=config.small_errors)
    return replace(one, clicks=clicks, shown=answer) if len(clicks[1]) else one
