"""Which weights of a run become its model, and when validations stop it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_phantoms import MODEL, phantom, recipe, task

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.datasets import LoadedCase
from VISTA3DCore.training.loop import Outcome, Trainer
from VISTA3DCore.training.recipe import ValidationRecipe

pytestmark = pytest.mark.slow


def _run(folder: Path, held_out: LoadedCase, *changes: str, start: dict[str, torch.Tensor] | None = None) -> Outcome:
    short = ("steps=4", "validation.every=1", "validation.patches=2", "validation.patience=1")
    chosen = recipe("automatic", *short, *changes)
    run = task(chosen, [phantom(0)], held_out=[held_out], start=start)
    return Trainer(run, folder, device="cpu").run()


def _step(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def _blind() -> dict[str, torch.Tensor]:
    """Return weights that find nothing: all class vectors are 0."""
    weights = build_network(MODEL).state_dict()
    return weights | {name: torch.zeros_like(weights[name]) for name in weights if name.startswith("class_head.mlp.3")}


def test_an_empty_held_out_label_measures_nothing_and_ends_nothing(tmp_path):
    empty = phantom(1)
    outcome = _run(tmp_path, replace(empty, label=np.zeros_like(empty.label)))

    assert (outcome.step, outcome.reason, outcome.best, outcome.last) == (4, "the schedule is complete", None, None)
    assert _step(outcome.model) == 4
    assert "nothing could be measured" in outcome.notes[0]


def test_while_dice_stays_0_the_last_weights_are_the_result(tmp_path):
    frozen = "frozen=[encoder, click_decoder, click_head, class_vectors]"
    outcome = _run(tmp_path, phantom(1), frozen, start=_blind())

    assert (outcome.step, outcome.reason, outcome.best, outcome.last) == (4, "the schedule is complete", None, None)
    assert _step(outcome.model) == 4
    assert "the Dice stayed 0" in outcome.notes[0]


def test_the_last_weights_are_kept_beside_better_ones(tmp_path):
    outcome = _run(tmp_path, phantom(1), "frozen=[]", "optimizer.learning_rate=1e-9")

    assert outcome.reason == "nothing got better any more"
    assert outcome.best > 0
    assert outcome.notes == ()
    assert _step(outcome.model) < _step(outcome.last) == outcome.step
    again = _run(tmp_path, phantom(1), "frozen=[]", "optimizer.learning_rate=1e-9")
    assert (again.best, _step(again.model)) == (outcome.best, _step(outcome.model))


def test_a_short_run_is_validated_several_times_too():
    assert [ValidationRecipe().interval(steps) for steps in (1, 7, 400, 1000, 100_000)] == [1, 1, 50, 125, 1000]
    assert ValidationRecipe(every=1000).interval(1000) == 1000
