"""What is minimised: the gradients of one sample, by both branches, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from VISTA3DCore.training.branches import Branches
from VISTA3DCore.training.corrections import begun_from, folded, since
from VISTA3DCore.training.datasets import IGNORE
from VISTA3DCore.training.dense import dense_loss, dense_targets
from VISTA3DCore.training.distillation import Lesson, Teacher
from VISTA3DCore.training.losses import map_loss, prompt_loss
from VISTA3DCore.training.prompts import PromptConfig, PromptObject, next_prompts
from VISTA3DCore.training.recipe import LossRecipe
from VISTA3DCore.training.samples import Sample

Losses = dict[str, float]
Scores = dict[str, list[float]]


class Objective:
    """Adds the gradients of samples to a network's parameters.

    :param teacher: the model that old answers are kept from (fine-tuning), or None.
    """

    def __init__(
        self, branches: Branches, loss: LossRecipe, prompts: PromptConfig, seed: int, teacher: Teacher | None = None
    ) -> None:
        self._branches, self._loss, self._prompts, self._seed = branches, loss, prompts, seed
        self._teacher = teacher

    def learn(self, sample: Sample, share: float) -> Losses:
        """Add the gradients of a sample's losses, times ``share``, and return the losses by name.

        The patch is encoded once for all iterations of clicks; the reference encodes it for each and makes a step each
        time. Every iteration goes back to the click features by itself, so that memory holds one of them.
        """
        rng = np.random.default_rng((self._seed, sample.number, 3))
        image, asked, clicked = self._image(sample), *self._chosen(sample, rng)
        lesson = self._teacher.lesson(image, sample.patch, bool(clicked), rng) if self._teacher else None
        clicked = clicked + (lesson.clicked if lesson else [])
        dense, corrected = self._loss.dense > 0, self._to_correct(clicked, rng)
        automatic = bool(asked or lesson or dense or corrected)
        click_features, features = self._branches.encoded(image, bool(clicked), automatic)
        clicked = self._begun(features, clicked, corrected, rng)
        losses = self._automatic(features, [] if dense else asked, sample, lesson)
        if dense:
            losses["dense"] = self._dense(features, sample, rng)
        values = {name: loss.item() for name, loss in losses.items()}
        roots = [(self._scaled(name, loss, share), None) for name, loss in losses.items()]
        if clicked:
            values["click"], gradient = self._click(click_features, clicked, share, rng)
            roots.append((click_features, gradient))
        if learning := [(root, gradient) for root, gradient in roots if root.requires_grad]:
            torch.autograd.backward(*zip(*learning, strict=True))
        return values

    @torch.no_grad()
    def dice(self, sample: Sample) -> Scores:
        """Return the Dice of each object that is there: by class, and after all clicks."""
        rng = np.random.default_rng((self._seed, sample.number, 4))
        asked, clicked = self._chosen(sample, rng)
        present, corrected = [one for one in asked if one.target.any()], self._to_correct(clicked, rng)
        automatic = bool(present or corrected)
        click_features, features = self._branches.encoded(self._image(sample), bool(clicked), automatic)
        clicked = self._begun(features, clicked, corrected, rng)
        scores: Scores = {}
        if present:
            scores["automatic"] = _dice(self._answers(features, present), present)
        if clicked:
            *_, (answers, _) = self._rounds(click_features, clicked, rng)
            scores["click"] = _dice(answers, clicked)
        return scores

    def _answers(self, features: torch.Tensor, objects: Sequence[PromptObject]) -> np.ndarray:
        """Return where each object is found, bool [B, x, y, z]: by its own score, or, where all classes are told apart,
        as :meth:`_competing`.
        """
        if self._loss.dense:
            return self._competing(features, objects)
        return (self._branches.class_logits(features, [one.classes for one in objects]) > 0).cpu().numpy()

    def _competing(self, features: torch.Tensor, objects: Sequence[PromptObject]) -> np.ndarray:
        """Return where one of an object's classes has the highest score of all, bool [B, x, y, z]."""
        everywhere = torch.arange(features[0].numel(), device=features.device)
        best, row = self._branches.logits_at(features, everywhere, self._prompts.classes).max(1)
        classes = np.array(self._prompts.classes)[row.cpu().numpy()]
        found = np.where((best > 0).cpu().numpy(), classes, 0).reshape(features.shape[1:])
        return np.stack([np.isin(found, one.classes) for one in objects])

    def _image(self, sample: Sample) -> torch.Tensor:
        return torch.as_tensor(sample.patch.image, device=self._branches.arithmetic.device)[None, None]

    def _chosen(self, sample: Sample, rng: np.random.Generator) -> tuple[list[PromptObject], list[PromptObject]]:
        """Return what is asked for by class, and what is clicked."""
        clicked = [one for one in sample.objects if one.clicks is not None and len(one.clicks[1])]
        clicked = [one for one in clicked if np.count_nonzero(one.target) >= self._loss.click_voxels]
        most = self._loss.click_objects
        if most is not None and len(clicked) > most:
            clicked = [clicked[row] for row in sorted(rng.choice(len(clicked), most, replace=False).tolist())]
        return [one for one in sample.objects if one.ask], clicked

    def _to_correct(self, clicked: Sequence[PromptObject], rng: np.random.Generator) -> list[int]:
        """Return which clicked objects begin from the automatic result."""
        share = self._prompts.corrections
        return [row for row, one in enumerate(clicked) if share and one.classes and rng.random() < share]

    @torch.no_grad()
    def _begun(
        self, features: torch.Tensor | None, clicked: list[PromptObject], rows: list[int], rng: np.random.Generator
    ) -> list[PromptObject]:
        """Let some clicked objects begin from the automatic result."""
        if not rows:
            return clicked
        some = [clicked[row] for row in rows]
        begun = dict(zip(rows, begun_from(some, self._competing(features, some), self._prompts, rng), strict=True))
        return [begun.get(row, one) for row, one in enumerate(clicked)]

    def _automatic(
        self, features: torch.Tensor | None, asked: Sequence[PromptObject], sample: Sample, lesson: Lesson | None
    ) -> dict[str, torch.Tensor]:
        losses = {}
        if asked:
            logits = self._branches.class_logits(features, [one.classes for one in asked])
            targets, valid = (_stacked(asked, what, logits.device) for what in ("target", "valid"))
            losses["prompt"] = prompt_loss(logits, targets, valid)
            if self._loss.map and sample.patch.meaning.complete:
                rows = torch.as_tensor(displayed(sample.patch.label, asked), device=logits.device)
                losses |= {"map": map_loss(logits, rows)} if (rows >= 0).any() else {}
        if lesson is not None and lesson.classes:
            logits = self._branches.class_logits(features, [(index,) for index in lesson.classes])
            losses["old"] = prompt_loss(logits, lesson.answers, lesson.valid)
        return losses

    def _dense(self, features: torch.Tensor, sample: Sample, rng: np.random.Generator) -> torch.Tensor:
        """Return the loss over all classes of the model at some voxels."""
        recipe, classes = self._loss, self._prompts.classes
        targets = dense_targets(sample.patch, classes, recipe.dense, recipe.pseudo_weight, rng).to(features.device)
        return dense_loss(self._branches.logits_at(features, targets.voxels, classes), targets, recipe.dense_binary)

    def _scaled(self, name: str, loss: torch.Tensor, share: float) -> torch.Tensor:
        factor = {"map": self._loss.map, "old": self._loss.distillation}.get(name, 1.0)
        return self._branches.arithmetic.scale(loss * (factor * share))

    def _click(
        self, features: torch.Tensor, objects: list[PromptObject], share: float, rng: np.random.Generator
    ) -> tuple[float, torch.Tensor]:
        """Return the mean loss over iterations and objects, and its gradient by the click features.

        Clicks come where the last answer was wrong, as users set them.
        """
        leaf = features.detach().requires_grad_()
        losses = [loss for _, loss in self._rounds(leaf, objects, rng, share / self._prompts.iterations)]
        return sum(losses) / len(losses), leaf.grad

    def _rounds(
        self, features: torch.Tensor, objects: list[PromptObject], rng: np.random.Generator, share: float | None = None
    ) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the masks that are shown, bool [B, x, y, z], and the loss of each iteration of clicks."""
        shown = [np.zeros(one.target.shape, bool) if one.shown is None else one.shown for one in objects]
        counts = [0] * len(objects)
        for iteration in range(self._prompts.iterations):
            answers, loss = self._answered(features, objects, share)
            news = [since(one.clicks, count) for one, count in zip(objects, counts, strict=True)]
            shown = [folded(*one) for one in zip(shown, answers, news, strict=True)]
            yield np.stack(shown), loss
            if iteration < self._prompts.iterations - 1:
                counts = [len(one.clicks[1]) for one in objects]
                objects = next_prompts(objects, np.stack(shown), self._prompts, rng)

    def _answered(
        self, features: torch.Tensor, objects: Sequence[PromptObject], share: float | None = None
    ) -> tuple[np.ndarray, float]:
        """Return the answers, bool [B, x, y, z], and the mean loss; with a share, add its gradients."""
        answers, total = [], 0.0
        for start in range(0, len(objects), self._loss.together):
            some = objects[start : start + self._loss.together]
            logits = self._branches.click_logits(features, some)
            targets, valid = (_stacked(some, what, logits.device) for what in ("target", "valid"))
            loss = prompt_loss(logits, targets, valid) * (len(some) / len(objects))
            if share is not None:
                self._branches.arithmetic.scale(loss * share).backward()
            total += loss.item()
            answers.append((logits > 0).cpu().numpy())
        return np.concatenate(answers), total


def displayed(label: np.ndarray, asked: Sequence[PromptObject]) -> np.ndarray:
    """Return what each voxel of the displayed map must be: 0 background, n the object n - 1, -1 unknown.

    Where objects overlap, the smaller one is displayed; structures that are not asked for are unknown.

    :param label: [i, j, k] codes, completely annotated.
    """
    rows = np.where(label == 0, 0, -1)
    for number in sorted(range(len(asked)), key=lambda n: -np.count_nonzero(asked[n].target)):
        rows[asked[number].target] = number + 1
    rows[label == IGNORE] = -1
    return rows


def _stacked(objects: Sequence[PromptObject], what: str, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(np.stack([getattr(one, what) for one in objects]), device=device)


def _dice(answers: np.ndarray, objects: Sequence[PromptObject]) -> list[float]:
    found = []
    for answer, one in zip(answers, objects, strict=True):
        inside, target = answer & one.valid, one.target & one.valid
        sizes = np.count_nonzero(inside) + np.count_nonzero(target)
        found.append(2.0 * np.count_nonzero(inside & target) / max(1, sizes))
    return found
