"""Simulated clicks change the mask that is shown, as clicks do in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_phantoms import KIDNEY, LIVER, MODEL, phantom

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.branches import Arithmetic, Branches
from VISTA3DCore.training.corrections import begun_from, folded
from VISTA3DCore.training.datasets import LabelMeaning, PatchData
from VISTA3DCore.training.objective import Objective
from VISTA3DCore.training.prompts import PromptConfig, PromptObject, sample_prompts
from VISTA3DCore.training.recipe import LossRecipe
from VISTA3DCore.training.samples import Sample

SHAPE = (6, 5, 4)
MEANING = LabelMeaning(annotated=(LIVER, KIDNEY), complete=True)
PROMPTS = PromptConfig(iterations=3, corrections=1.0, small_errors=True, margin=0.0, classes=(LIVER, KIDNEY))


def masks() -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, 2**30).map(lambda seed: np.random.default_rng(seed).random(SHAPE) < 0.4)


@given(masks(), masks(), st.integers(0, 119), st.booleans())
def test_a_positive_click_only_adds_and_a_negative_one_only_removes(shown, answer, place, positive):
    voxel = np.unravel_index(place, SHAPE)
    after = folded(shown, answer, (np.array([voxel]), np.array([positive])))

    assert not np.any(shown & ~after) if positive else not np.any(after & ~shown)
    assert np.array_equal(after != shown, (after != shown) & (answer != shown))  # what changes becomes the answer
    if answer[voxel] == shown[voxel] or answer[voxel] != positive:
        assert np.array_equal(after, shown)
    else:
        assert after[voxel] == positive


def test_first_clicks_lie_on_the_errors_of_the_automatic_result():
    target, answer = np.zeros((2, 12, 12, 12), bool)
    target[2:9, 2:9, 2:9] = True
    answer[5:11, 2:9, 2:9] = True
    one = PromptObject(target, np.ones_like(target), (LIVER,), LIVER, clicks=(np.zeros((1, 3), int), np.ones(1, bool)))

    wrong, right = begun_from([one, one], np.stack([answer, target]), PROMPTS, np.random.default_rng(0))

    assert right is one
    assert np.array_equal(wrong.shown, answer)
    assert sorted(wrong.clicks[1]) == [False, True]
    for voxel, positive in zip(*wrong.clicks, strict=True):
        assert target[tuple(voxel)] == positive != answer[tuple(voxel)]


@pytest.fixture
def objective() -> Objective:
    torch.manual_seed(0)
    network = build_network(MODEL).train()
    return Objective(Branches(network, Arithmetic()), LossRecipe(), PROMPTS, 0)


def test_corrections_teach_the_click_branch_alone(objective):
    case = phantom(0)
    patch = PatchData(case.image[0], np.isin(case.label[0], (LIVER, KIDNEY)) * case.label[0], MEANING, name="patch")
    objects = sample_prompts(patch, MEANING, PROMPTS, np.random.default_rng(0))
    network = objective._branches.network
    network.class_head.requires_grad_(False)

    losses = objective.learn(Sample(patch, objects, 0), 1.0)

    assert losses.keys() == {"click"}
    assert network.point_head.mask_tokens.weight.grad.abs().sum() > 0
    assert objective.dice(Sample(patch, objects, 0)).keys() == {"click"}
    plain = Objective(objective._branches, LossRecipe(), replace(PROMPTS, corrections=0.0), 0)
    assert plain.learn(Sample(patch, objects, 0), 1.0)["click"] != losses["click"]
