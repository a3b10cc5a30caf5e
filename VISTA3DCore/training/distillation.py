"""Not forgetting: what the starting model answers for its classes is asked of the trained one, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from VISTA3DCore.training.branches import Branches
from VISTA3DCore.training.click_sampling import draw_counts, regular_clicks
from VISTA3DCore.training.datasets import PatchData
from VISTA3DCore.training.prompts import PromptConfig, PromptObject
from VISTA3DCore.training.recipe import LossRecipe

_FEWEST_VOXELS = 10
"""Structures of which the starting model sees fewer voxels count as absent."""

_AT_ONCE = 16
"""Classes whose scores are looked at together; bounds memory."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the starting model says about a patch.

    :param classes: [K] that it was asked for.
    :param answers: [K, x, y, z] its probabilities.
    :param valid: [K, x, y, z] bool: not what it claims where a new structure is annotated, about which it knew nothing.
    :param clicked: structures that it sees, with first clicks.
    """

    classes: tuple[int, ...]
    answers: torch.Tensor
    valid: torch.Tensor
    clicked: list[PromptObject]


class Teacher:
    """The starting model, which does not learn.

    The idea of learning without forgetting (Li and Hoiem 2017), for dense labels as in Cermelli et al. 2020: what the
    new annotations leave open is what the old model says.

    :param branches: of the starting model.
    :param classes: that it knows and that are to be kept.
    """

    def __init__(self, branches: Branches, classes: Sequence[int], loss: LossRecipe, prompts: PromptConfig) -> None:
        self._branches, self._loss, self._prompts = branches, loss, prompts
        self._classes = np.asarray(classes, np.int64)
        with torch.no_grad():
            self._vectors = branches.vectors(self._classes.tolist())

    @torch.no_grad()
    def lesson(self, image: torch.Tensor, patch: PatchData, clicking: bool, rng: np.random.Generator) -> Lesson:
        """Return what is to be kept in a patch.

        :param image: [1, 1, x, y, z].
        :param clicking: whether the interactive branch is trained with it.
        """
        _, features = self._branches.encoded(image, clicking=False, automatic=True)
        chosen, present = self._chosen(features, rng)
        scores = self._scores(features, chosen)
        new = np.isin(patch.label, patch.meaning.annotated + patch.meaning.objects)
        known = {code for code in patch.meaning.annotated if set(patch.meaning.members(code)) <= set(self._classes)}
        new &= ~np.isin(patch.label, list(known))
        valid = torch.as_tensor(~new, device=image.device) | (scores < 0)
        clicked = self._clicked(scores, chosen, present, ~new, rng) if clicking else []
        return Lesson(tuple(self._classes[chosen].tolist()), scores.sigmoid(), valid, clicked)

    def _scores(self, features: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return torch.einsum("kc,cxyz->kxyz", self._vectors[rows], features)

    def _chosen(self, features: torch.Tensor, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Return rows of classes, those first that are seen, and how many these are; a quarter or more is not seen."""
        pieces = np.array_split(np.arange(len(self._classes)), max(1, len(self._classes) // _AT_ONCE))
        counts = np.concatenate([(self._scores(features, rows) > 0).sum((1, 2, 3)).cpu().numpy() for rows in pieces])
        seen, unseen = np.flatnonzero(counts >= _FEWEST_VOXELS), np.flatnonzero(counts < _FEWEST_VOXELS)
        most = self._loss.distilled_classes
        seen = rng.permutation(seen)[: max(1, most * 3 // 4)]
        return np.concatenate([seen, rng.permutation(unseen)[: most - len(seen)]]), len(seen)

    def _clicked(
        self, scores: torch.Tensor, chosen: np.ndarray, present: int, valid: np.ndarray, rng: np.random.Generator
    ) -> list[PromptObject]:
        objects = []
        margin = self._prompts.margin_voxels(valid.shape)
        for place in rng.permutation(present)[: self._loss.distilled_objects].tolist():
            target = (scores[place] > 0).cpu().numpy() & valid
            if target.sum() >= max(_FEWEST_VOXELS, self._loss.click_voxels):
                index = int(self._classes[chosen[place]])
                counts = draw_counts(self._prompts.max_points, rng)
                clicks = regular_clicks(target, valid & ~target, counts, margin, rng)
                objects.append(PromptObject(target, valid, (index,), index, clicks=clicks, pseudo=True))
        return objects
