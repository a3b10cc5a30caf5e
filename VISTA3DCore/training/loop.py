"""Supervised training of both branches at once, resumable at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.transforms import ClassesToIndicesd

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.click_head import ClickHead
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.augmentation import patch_transform, seed_transform
from VISTA3DCore.training.click_loss import ClickObjects, click_loss
from VISTA3DCore.training.datasets import IGNORE, LoadedCase
from VISTA3DCore.training.initialisation import localise_attention
from VISTA3DCore.training.losses import map_loss, prompt_loss
from VISTA3DCore.training.prompts import choose_labels


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe of one run.

    :param steps: length of the schedule; one patch a step.
    :param learning_rate: peak of the one-cycle schedule (warm-up, then cosine).
    :param class_vector_rate: factor on the rate of the class embeddings and their mapping. From random weights these
        few parameters must grow by an order of magnitude before any score can be sure.
    :param absent_prompts: classes that are not in the patch but asked for, so that absence is learned.
    :param click_interval: the click branch is trained in every n-th step.
    :param click_only: train the interactive branch alone; encoder and automatic branch stay as they are.
    :param click_objects: objects per click step.
    :param click_iterations: answers, each after clicks on the errors of the one before, in one click step.
    :param zero_shot: probability that an object is presented with the zero-shot token.
    :param average_decay: of the exponential moving average of the weights, which is the result.
    :param crop: side of the region that augmentation deforms; the window is its centre.
    """

    steps: int = 3000
    learning_rate: float = 2e-3
    class_vector_rate: float = 5.0
    weight_decay: float = 1e-4
    warm_up: int = 100
    absent_prompts: int = 8
    click_interval: int = 2
    click_only: bool = False
    click_objects: int = 2
    click_iterations: int = 5
    zero_shot: float = 0.25
    average_decay: float = 0.995
    crop: int = 80
    seed: int = 0
    save_every: int = 100


class Trainer:
    """Trains one network on cases; its whole state lives in one checkpoint file.

    Every step draws its patch and prompts from a generator seeded by the step's number, so a run that was stopped and
    resumed sees what an uninterrupted one sees.

    :param classes: class indices that the model learns.
    :param checkpoint: where the state is kept; training resumes from it if it exists.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        cases: Sequence[LoadedCase],
        classes: Sequence[int],
        checkpoint: Path,
    ) -> None:
        if not cases:
            raise InputError("There is no labelled case to train on.")
        self.model, self.training, self.checkpoint = model, training, checkpoint
        self.classes = np.asarray(classes)
        self._special = {entry.index for entry in catalogue(model.label_set) if entry.special_click_tokens}
        torch.manual_seed(training.seed)
        self.network = build_network(model).train()
        localise_attention(self.network.point_head)
        self._click_head = ClickHead(self.network.point_head)
        if training.click_only:
            for part in (
                self.network.image_encoder.encoder,
                self.network.image_encoder.up_layers_auto,
                self.network.class_head,
            ):
                part.requires_grad_(False)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self._parameter_groups(), weight_decay=training.weight_decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._learning_rate_factor)
        self.step = 0
        self._cases = [self._indexed(case) for case in cases]
        weights = np.array([case.case.weight for case in cases], float)
        self._probabilities = weights / weights.sum()
        self._transform = patch_transform(model, training.crop)
        if checkpoint.exists():
            self._load()

    def run(self, until: float = float("inf"), report: Callable[[int, dict[str, float]], None] | None = None) -> bool:
        """Train until the schedule's end or the clock time ``until`` (``time.monotonic``), whichever is first.

        :param report: called with the step and the mean losses at every saved checkpoint.
        :return: True if the schedule is complete.
        """
        history: list[dict[str, float]] = []
        while self.step < self.training.steps and time.monotonic() < until:
            history.append(self.train_step())
            if self.step % self.training.save_every == 0:
                self.save()
                if report:
                    report(self.step, _means(history))
                history = []
        self.save()
        return self.step >= self.training.steps

    def start_from(self, weights: dict[str, torch.Tensor]) -> None:
        """Take over the weights of a model wherever name and shape agree; the rest begins at random."""
        own = self.network.state_dict()
        fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
        self.network.load_state_dict(own | fitting)
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}

    def train_step(self) -> dict[str, float]:
        """Draw one patch, train on it, and return its losses."""
        rng = np.random.default_rng((self.training.seed, self.step))
        case, arrays = self._cases[rng.choice(len(self._cases), p=self._probabilities)]
        seed_transform(self._transform, int(rng.integers(2**31)))
        patch = self._transform(dict(arrays))[0]
        image, label = patch["image"].as_tensor()[None], patch["label"].as_tensor()[0].long()
        losses = self._losses(image, label, case, rng)
        self.optimizer.zero_grad(set_to_none=True)
        if losses:
            torch.stack(list(losses.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self.optimizer.step()
        self.schedule.step()
        self._update_average()
        self.step += 1
        return {name: value.item() for name, value in losses.items()}

    def _losses(
        self, image: torch.Tensor, label: torch.Tensor, case: LoadedCase, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        prompts = choose_labels(label.numpy(), case, self.classes, self.training.absent_prompts, rng)
        if not len(prompts):
            return {}
        targets, valid = torch.stack([label == value for value in prompts.tolist()]), label != IGNORE
        clicking = self.step % self.training.click_interval == 0
        automatic = not self.training.click_only
        with torch.autocast("cpu", torch.bfloat16):
            click_features, features = self.network.image_encoder(image, with_point=clicking, with_label=automatic)
            if automatic:
                features = self.network.class_head.image_post_mapping(features)[0].float()
        losses = self._automatic_losses(features, prompts, targets, label, case) if automatic else {}
        if clicking and (objects := self._click_objects(targets, prompts, valid, rng)):
            losses["click"] = click_loss(
                self._click_head, click_features, objects, valid, self.training.click_iterations, rng
            )
        return losses

    def _automatic_losses(
        self,
        features: torch.Tensor,
        prompts: np.ndarray,
        targets: torch.Tensor,
        label: torch.Tensor,
        case: LoadedCase,
    ) -> dict[str, torch.Tensor]:
        valid = label != IGNORE
        logits = torch.stack([self._union_logit(features, case.members(int(label))) for label in prompts])
        losses = {"prompt": prompt_loss(logits, targets, valid)}
        if case.case.complete and valid.any():
            losses["map"] = map_loss(logits, torch.as_tensor(prompts), label, valid)
        return losses

    def _union_logit(self, features: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
        """Return the score of a union of classes: somewhere the highest member's, smoothly."""
        head = self.network.class_head
        vectors = head.mlp(head.class_embeddings(torch.as_tensor(members).reshape(-1, 1)))[:, 0]
        scores = torch.einsum("kc,cxyz->kxyz", vectors, features)
        return scores[0] if len(members) == 1 else torch.logsumexp(scores, 0)

    def _click_objects(
        self, targets: torch.Tensor, prompts: np.ndarray, valid: torch.Tensor, rng: np.random.Generator
    ) -> ClickObjects | None:
        """Choose what is clicked in this patch; small remains at the border teach nothing."""
        large = [row for row in range(len(prompts)) if int((targets[row] & valid).sum()) >= 30]
        rows = rng.permutation(large)[: self.training.click_objects].tolist()
        special = np.array([int(prompts[row]) in self._special for row in rows])
        zero_shot = rng.random(len(rows)) < self.training.zero_shot
        return ClickObjects(targets[rows], special, zero_shot) if rows else None

    def _parameter_groups(self) -> list[dict]:
        rate, head = self.training.learning_rate, self.network.class_head
        vectors = [*head.mlp.parameters(), *head.class_embeddings.parameters()]
        known = {id(parameter) for parameter in vectors}
        others = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        return [{"params": others, "lr": rate}, {"params": vectors, "lr": rate * self.training.class_vector_rate}]

    def _learning_rate_factor(self, step: int) -> float:
        warm_up = min(1.0, (step + 1) / self.training.warm_up)
        return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.training.steps))))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.training.average_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    @staticmethod
    def _indexed(case: LoadedCase) -> tuple[LoadedCase, dict[str, torch.Tensor]]:
        """Attach the voxel lists that class-balanced cropping draws from."""
        data = {"image": torch.as_tensor(case.image), "label": torch.as_tensor(case.label)}
        return case, ClassesToIndicesd("label", num_classes=IGNORE, max_samples_per_class=20000)(data)

    def save(self) -> None:
        """Write the state by rename, so that a kill leaves the last good one."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.average, self.step = state["average"], state["step"]


def _means(history: list[dict[str, float]]) -> dict[str, float]:
    names = {name for losses in history for name in losses}
    return {name: float(np.mean([losses[name] for losses in history if name in losses])) for name in sorted(names)}
