"""A run whose losses explode does not end without a word."""

from __future__ import annotations

import numpy as np
import pytest
from training_phantoms import phantom, recipe, task

from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.loss_watch import LossWatch


def _watched(values: list[float]) -> LossWatch:
    watch = LossWatch()
    for value in values:
        watch.add({"prompt": value})
    return watch


def test_a_loss_far_above_its_beginning_is_found():
    noise = np.random.default_rng(0).uniform(0.2, 2.0, 400)

    assert _watched([1.5] * 5 + [5e6] * 5).exploded() == {"prompt": (1.5, 5e6)}
    assert _watched([*noise[:100], *(noise[:50] * 10)]).exploded()
    assert not _watched(noise.tolist()).exploded()
    assert not _watched(np.linspace(2.0, 0.1, 50).tolist()).exploded()
    assert not _watched([0.3, 2.5]).exploded()
    assert not _watched([1.5] * 30 + [900.0]).exploded()


def test_what_was_seen_before_an_interruption_counts():
    resumed = LossWatch()
    resumed.restore(_watched([1.5] * 30).state())
    for _ in range(20):
        resumed.add({"prompt": 40.0})

    assert resumed.exploded() == {"prompt": (1.5, 40.0)}
    assert "'prompt' from 1.5 to 40" in resumed.sentence()


@pytest.mark.slow
def test_a_learning_rate_of_1_is_reported_while_it_runs_and_at_the_end(tmp_path):
    chosen = recipe("automatic", "steps=24", "frozen=[]", "optimizer.learning_rate=1.0", "optimizer.clip=null")

    with pytest.warns(UserWarning, match=r"Step \d+: The loss rose: 'prompt' from"):
        outcome = Trainer(task(chosen, [phantom(0)]), tmp_path, device="cpu").run()

    assert outcome.step == 24
    assert "lower optimizer.learning_rate" in outcome.notes[0]
