"""The loop learns, obeys its masks, and resumes to the very step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from VISTA3DCore.errors import InputError
from VISTA3DCore.training.datasets import load_case
from VISTA3DCore.training.loop import Trainer, TrainingConfig
from VISTA3DCore.training.losses import map_loss, prompt_loss

RECIPE = TrainingConfig(
    steps=12, warm_up=2, crop=16, learning_rate=5e-3, absent_prompts=1, click_interval=2, save_every=4
)


@pytest.fixture
def make_trainer(tiny_model, labelled_case, tmp_path):
    case = load_case(labelled_case, tiny_model, RECIPE.crop)

    def make(name: str) -> Trainer:
        return Trainer(tiny_model, RECIPE, [case], (1, 28, 29), tmp_path / name / "state.pt")

    return make


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(make_trainer):
    whole = make_trainer("whole")
    assert whole.run()
    stopped = make_trainer("stopped")
    for _ in range(5):
        stopped.train_step()
    stopped.save()

    resumed = make_trainer("stopped")
    assert resumed.step == 5
    assert resumed.run()

    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_losses_fall(make_trainer):
    trainer = make_trainer("run")
    history = [trainer.train_step() for _ in range(RECIPE.steps)]

    first, last = (np.mean([losses["map"] for losses in part]) for part in (history[:4], history[-4:]))
    assert last < 0.8 * first
    assert all("click" in losses for losses in history[::2])


def test_a_run_that_is_out_of_time_stops_with_its_state_saved(make_trainer):
    trainer = make_trainer("run")

    assert not trainer.run(until=0.0)
    assert trainer.checkpoint.exists()
    assert not list(trainer.checkpoint.parent.glob("*.part"))


def test_without_cases_there_is_one_sentence(tiny_model, tmp_path):
    with pytest.raises(InputError, match="no labelled case"):
        Trainer(tiny_model, RECIPE, [], (1,), tmp_path / "state.pt")


def test_unknown_voxels_have_no_influence():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 6, 6, 6), torch.rand(2, 6, 6, 6) > 0.5
    label = targets[0].long() * 5
    valid = torch.zeros(6, 6, 6, dtype=torch.bool)
    valid[:3] = True
    prompts = torch.tensor([5, 9])

    disturbed, other_label = logits.clone(), label.clone()
    disturbed[:, 3:], other_label[3:] = 50.0, 9

    assert prompt_loss(logits, targets, valid) == prompt_loss(disturbed, targets | ~valid, valid)
    assert map_loss(logits, prompts, label, valid) == map_loss(disturbed, prompts, other_label, valid)


def test_the_map_loss_rewards_the_displayed_label():
    label = torch.tensor([[[0, 5, 9]]])
    prompts, valid = torch.tensor([5, 9]), torch.ones(1, 1, 3, dtype=torch.bool)
    right = torch.tensor([[[[-9.0, 9.0, 0.0]]], [[[-9.0, 0.0, 9.0]]]])

    assert map_loss(right, prompts, label, valid) < 0.01
    assert map_loss(-right, prompts, label, valid) > 5
