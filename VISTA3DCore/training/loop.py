"""The training loop: one network, one recipe, any number of processes, resumable at any step."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from VISTA3DCore.errors import Cancelled, TrainingError
from VISTA3DCore.models.checkpoints import save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.acceleration import accelerate
from VISTA3DCore.training.averaging import MovingAverage
from VISTA3DCore.training.branches import Branches
from VISTA3DCore.training.checkpointing import RunFolder
from VISTA3DCore.training.curves import Curves
from VISTA3DCore.training.distillation import Teacher
from VISTA3DCore.training.fitting import memory_told
from VISTA3DCore.training.initialisation import copy_class_decoder, expect_background, localise_attention
from VISTA3DCore.training.judging import Judge
from VISTA3DCore.training.loss_watch import LossWatch
from VISTA3DCore.training.objective import Losses, Objective
from VISTA3DCore.training.parts import freeze, parameter_groups
from VISTA3DCore.training.processes import Processes
from VISTA3DCore.training.prompts import PromptConfig
from VISTA3DCore.training.recipe import Recipe, to_yaml
from VISTA3DCore.training.rescue import state_saved_first
from VISTA3DCore.training.samples import Sample, Samples, batches

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Task:
    """Everything that a run needs.

    :param model: with the classes that the result knows.
    :param steps: length of the schedule.
    :param samples: at least ``steps * recipe.batch``.
    :param validation: samples of held-out cases, or None.
    :param held_out: how many cases these samples come from.
    :param files: what is read, by name ("label of 'liver_3'"); a run is not resumed with changed files.
    :param start: weights to begin with; None: random ones.
    :param kept_classes: classes of the starting model whose answers are kept, where the recipe distils.
    :param origin: what else decides about the weights (data, starting model), plain JSON.
    """

    recipe: Recipe
    model: ModelConfig
    steps: int
    samples: Samples
    prompts: PromptConfig
    validation: Samples | None = None
    start: Weights | None = None
    kept_classes: tuple[int, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    held_out: int = 0
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    :param step: the last one.
    :param reason: why it stopped.
    :param losses: their means over the last steps.
    :param best: the mean Dice of the best validation; None if nothing could be measured, or nothing above 0.
    :param model: the file with the result.
    :param last: the file with the last weights, where the result is the best validated model.
    :param notes: sentences about what went wrong on the way.
    """

    step: int
    reason: str
    losses: Losses
    best: float | None
    model: Path
    last: Path | None = None
    notes: tuple[str, ...] = ()


class Trainer:
    """Trains one network.

    All that is random is keyed by the step, so a resumed run sees what an uninterrupted one sees.

    :param folder: of the run; training goes on from the newest state in it.
    :param workers: loading processes.
    :raises InputError: if the folder holds another run, files have changed, or another process uses it.
    """

    def __init__(self, task: Task, folder: Path, device: str = "auto", workers: int = 0) -> None:
        self.task, self.recipe, self._workers = task, task.recipe, workers
        self.processes = Processes(device, self.recipe.precision)
        self._places = self.processes.places(self.recipe.batch)
        self.folder = RunFolder(folder, self.recipe.saving.keep)
        self.folder.begin(to_yaml(self.recipe), self._identity(), self.processes.main, task.files)
        self.network = self._begun()
        branches = Branches(self.network, self.processes.arithmetic)
        self.objective = Objective(branches, self.recipe.loss, task.prompts, self.recipe.seed, self._teacher())
        self._interval = self.recipe.validation.interval(task.steps)
        self._judge = Judge(self.objective, task.validation, self.processes, self.recipe.validation)
        self.parameters = [one for one in self.network.parameters() if one.requires_grad]
        self.optimizer = self._optimizer()
        self.average = MovingAverage(self.network, self.recipe.optimizer.average_decay)
        self._watch, self._warned = LossWatch(), False
        self.step, self.whole = 0, True  # not whole: in the middle of a change of the weights
        self._restore()

    def run(self, progress: Progress | None = None, until: float = math.inf) -> Outcome:
        """Train to the end of the schedule, until nothing gets better, or until the clock (``time.monotonic``) says so.

        :raises Cancelled: if ``progress`` was cancelled; the state is saved first.
        :raises TrainingError: if a loss or a gradient is no number; the state before is saved first.
        :raises DeviceError: if memory runs out, saying what would fit.
        :raises InputError: if a file cannot be read any more; the state is saved first.
        :raises OutputError: if a state cannot be saved.
        """
        progress, reason = Progress.of(progress), ""
        curves = Curves(self.folder.curves if self.processes.main else None, self.step)
        with self.folder.held(self.processes.main), closing(curves), state_saved_first(self):
            for batch in self._batches() if self.step < self.task.steps and not self._judge.patient_no_more else ():
                reason = self._advance(batch, curves, progress, until)
                if reason:
                    break
            self._finish()
        if reason == "cancelled":
            raise Cancelled(
                f"Stopped after step {self.step} of {self.task.steps}; the same command goes on from there."
            )
        done = "the schedule is complete" if self.step >= self.task.steps else "nothing got better any more"
        last = None if self._judge.best is None else self.folder.last
        notes = tuple(self._notes())
        return Outcome(self.step, reason or done, curves.recent, self._judge.best, self.folder.model, last, notes)

    def learn(self, batch: list[Sample], stop: bool = False) -> tuple[Losses, bool]:
        """Make one step on this process's part of a batch.

        :return: the mean losses over it, and whether any process wants to stop.
        """
        with memory_told(self, batch):
            history = [self.objective.learn(sample, 1.0 / len(batch)) for sample in batch]
        losses = mean_losses(history)
        bad = not all(math.isfinite(value) for value in losses.values())
        touched = [float(one.grad is not None) for one in self.parameters]
        *touched, any_bad, any_stop = self.processes.summed([*touched, float(bad), float(stop)])
        if any_bad:
            self._diverged(batch if bad else [], "loss")
        self._update(batch, [bool(one) for one in touched])
        return losses, bool(any_stop)

    def save(self) -> None:
        """Write the state, if this process is the one that writes and it is not there yet."""
        if not self.processes.main or (self.folder.states / f"step-{self.step:08d}.pt").exists():
            return
        self.folder.save(
            {
                "step": self.step,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state,
                "scaler": self.processes.scaler_state(),
                "judge": self._judge.state(),
                "losses": self._watch.state(),
            }
        )

    def rate_factor(self, step: int) -> float:
        """Return what the learning rates are multiplied with: a warm-up, then a cosine."""
        recipe = self.recipe.optimizer
        warm_up = min(1.0, (step + 1) / recipe.warm_up) if recipe.warm_up else 1.0
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.task.steps)))
        return warm_up * (recipe.final_rate + (1 - recipe.final_rate) * cosine)

    def _advance(self, batch: list[Sample], curves: Curves, progress: Progress, until: float) -> str:
        """Make one step and what follows it; return why the run must stop, or nothing."""
        stop = progress.cancelled or time.monotonic() >= until
        losses, stopping = self.learn(batch, stop)
        curves.add(self.step, losses, self.optimizer.param_groups)
        self._watch_losses(losses)
        self._validate(curves)
        due = self.step % self.recipe.saving.every == 0
        if due or stopping or self._judge.patient_no_more:
            self.save()
        _tell(progress, self.step, self.task.steps, curves.recent)
        if stopping:
            return "the time is up" if time.monotonic() >= until else "cancelled"
        return "nothing got better any more" if self._judge.patient_no_more else ""

    def _watch_losses(self, losses: Losses) -> None:
        """Say once, as soon as it is seen, that losses grow."""
        self._watch.add(losses)
        sentence = "" if self._warned or not self.processes.main else self._watch.sentence()
        if sentence:
            self._warned = True
            warnings.warn(f"Step {self.step}: {sentence}", UserWarning, stacklevel=2)

    def _validate(self, curves: Curves) -> None:
        last = self.step == self.task.steps
        if self.task.validation is None or (self.step % self._interval and not last):
            return
        with self.average.in_place(self.network):
            scores, better = self._judge.judge()
        curves.add_scores(self.step, scores)
        if better:
            self._write_model(self.folder.model)

    def _update(self, batch: list[Sample], touched: list[bool]) -> None:
        """Change the weights by the gradients of all processes."""
        self.processes.average_gradients(self.parameters, touched)
        if any(touched):
            norm = self.processes.clip(self.parameters, self.recipe.optimizer.clip)
            if not math.isfinite(norm) and self.processes.precision != "fp16":  # there, the scaler sees to it
                self._diverged(batch, "gradient")
            factor = self.rate_factor(self.step)
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            self.whole = False
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.network, self.step)
        self.whole = True

    def _diverged(self, batch: list[Sample], what: str) -> None:
        """Stop with the weights before this step.

        :raises TrainingError: always.
        """
        names = [f"patch {sample.number} of '{sample.patch.name}'" for sample in batch]
        found = ", ".join(self.processes.gathered(names)) or "unknown"
        self.optimizer.zero_grad(set_to_none=True)
        self.save()
        raise TrainingError(
            f"The {what} of step {self.step + 1} is not a number ({found}); the state before it is saved in "
            f"'{self.folder.states}'. Look at that case, or lower the learning rate."
        )

    def _batches(self) -> Iterator[list[Sample]]:
        return batches(self.task.samples, self.step, self.task.steps, self._places, self._workers)

    def _begun(self) -> torch.nn.Module:
        """Return the network as the run begins, on its device."""
        torch.manual_seed(self.recipe.seed)
        network = build_network(self.task.model).train()
        if self.task.start is not None:
            network.load_state_dict(dict(self.task.start))
            if self.recipe.copy_class_decoder:
                copy_class_decoder(network)
        else:
            localise_attention(network.point_head)
            if self.recipe.loss.dense:
                expect_background(network, torch.as_tensor(self.task.samples[0].patch.image)[None, None])
        freeze(network, self.recipe.frozen)
        return accelerate(network, self.processes.device)

    def _teacher(self) -> Teacher | None:
        if not self.recipe.loss.distillation or not self.task.kept_classes or self.task.start is None:
            return None
        network = build_network(self.task.model)
        network.load_state_dict(dict(self.task.start))
        network = accelerate(network.requires_grad_(False), self.processes.device)
        branches = Branches(network, self.processes.arithmetic)
        return Teacher(branches, self.task.kept_classes, self.recipe.loss, self.task.prompts)

    def _optimizer(self) -> torch.optim.Optimizer:
        recipe = self.recipe.optimizer
        groups = parameter_groups(self.network, recipe.learning_rate, recipe.rates)
        for group in groups:
            group["peak"] = group["lr"]
        return self.processes.prepared(torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True))

    def _identity(self) -> dict[str, Any]:
        """Return what decides about the weights; how often is saved or validated does not."""
        import yaml

        values = yaml.safe_load(to_yaml(self.recipe))
        kept = {key: value for key, value in values.items() if key not in ("about", "saving", "validation")}
        return {"recipe": kept, "steps": self.task.steps, "model": self.task.model.to_json(), **self.task.origin}

    def _restore(self) -> None:
        state = self.folder.load()
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.restore(state["average"])
        self.processes.restore_scaler(state["scaler"])
        self._judge.restore(state["judge"])
        if "losses" in state:
            self._watch.restore(state["losses"])
        self.step = state["step"]

    def _finish(self) -> None:
        """Leave the state and the result behind."""
        self.save()
        self._write_model(self.folder.model if self._judge.best is None else self.folder.last)

    def _notes(self) -> Iterator[str]:
        if sentence := self._watch.sentence():
            yield sentence
        if self.task.validation is not None and self._judge.best is None and self.step:
            found = "the Dice stayed 0" if self._judge.scored else "nothing could be measured"
            yield f"On the held-out patches {found}, so that the model is the last one, not the best one."

    def _write_model(self, path: Path) -> None:
        if self.processes.main:
            kind = torch.float16 if self.recipe.saving.half else torch.float32
            facts = {"recipe": self.recipe.name, "step": str(self.step)}
            weights = self.average.state or self.network.state_dict()
            save_checkpoint(path, self.task.model, weights, kind, facts)


def mean_losses(history: list[Losses]) -> Losses:
    """Return the mean of each loss over the samples that have it."""
    names = sorted({name for losses in history for name in losses})
    found = {name: [losses[name] for losses in history if name in losses] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def _tell(progress: Progress, step: int, steps: int, losses: Losses) -> None:
    """Report without stopping: the run looks at ``cancelled`` itself, when all processes can stop at the same step."""
    text = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    try:
        progress.update(step / steps, "Training", f"step {step} of {steps}, {text}")
    except Cancelled:
        return
