"""What is minimised: only what is known counts, and pieces add up to the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_phantoms import KIDNEY, LIVER, MODEL, SPLEEN, phantom, recipe, task

from VISTA3DCore.errors import NotEnoughMemoryError
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.branches import Arithmetic, Branches
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, PatchData
from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.losses import map_loss, prompt_loss, union_logits
from VISTA3DCore.training.objective import Objective, displayed
from VISTA3DCore.training.prompts import PromptConfig, sample_prompts
from VISTA3DCore.training.recipe import LossRecipe
from VISTA3DCore.training.samples import Sample


def _gradient(label: np.ndarray, meaning: LabelMeaning, prompts: PromptConfig) -> dict[str, torch.Tensor]:
    """Return the gradients of one patch."""
    torch.manual_seed(0)
    network = build_network(MODEL).train()
    patch = PatchData(phantom(0).image[0], label, meaning, name="patch")
    objects = sample_prompts(patch, meaning, prompts, np.random.default_rng(0))
    objective = Objective(Branches(network, Arithmetic()), LossRecipe(map=1.0), prompts, 0)
    objective.learn(Sample(patch, objects, 0), 1.0)
    return {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(
    "prompts",
    [
        PromptConfig(max_foreground=None, max_background=8, drop_label=0.0, drop_clicks=1.0, classes=(LIVER, KIDNEY)),
        PromptConfig(max_points=1, iterations=2, classes=(LIVER, KIDNEY)),
    ],
    ids=["automatic", "click"],
)
def test_a_structure_that_a_dataset_does_not_label_is_never_penalised(prompts):
    """Where only the liver is annotated, the rest of the patch is no background for the kidney."""
    label = np.where(phantom(0).label[0] == LIVER, LIVER, 0).astype(np.uint8)
    partly = LabelMeaning(annotated=(LIVER,), complete=False)
    gradient = _gradient(label, partly, prompts)

    embeddings = gradient.get("class_head.class_embeddings.weight")
    objects = sample_prompts(PatchData(phantom(0).image[0], label, partly), partly, prompts, np.random.default_rng(0))
    assert {one.classes for one in objects} == {(LIVER,)}
    if embeddings is not None:
        assert embeddings[LIVER].abs().max() > 0
        assert embeddings[[KIDNEY, SPLEEN]].abs().max() == 0


def test_unknown_voxels_teach_nothing():
    prompts = PromptConfig(max_foreground=None, max_background=0, drop_label=0.0, drop_clicks=1.0, classes=(LIVER,))
    meaning = LabelMeaning(annotated=(LIVER,), complete=True)
    known = np.where(phantom(0).label[0] == LIVER, LIVER, 0).astype(np.uint8)
    known[:, :, 14:] = IGNORE
    torch.manual_seed(0)
    logits = torch.randn(1, *known.shape)
    one = sample_prompts(PatchData(phantom(0).image[0], known, meaning), meaning, prompts, np.random.default_rng(0))[0]
    targets, valid = torch.as_tensor(one.target)[None], torch.as_tensor(one.valid)[None]
    disturbed = logits.clone()
    disturbed[..., 14:] = 50.0

    rows = torch.as_tensor(displayed(known, [one]))
    assert prompt_loss(logits, targets, valid) == prompt_loss(disturbed, targets, valid)
    assert map_loss(logits, rows) == map_loss(disturbed, rows)


def test_the_map_loss_rewards_the_displayed_label():
    rows = torch.tensor([[[0, 1, 2]]])
    right = torch.tensor([[[[-9.0, 9.0, 0.0]]], [[[-9.0, 0.0, 9.0]]]])

    assert map_loss(right, rows) < 0.01
    assert map_loss(-right, rows) > 5


def test_of_overlapping_objects_the_smaller_is_displayed_and_what_is_not_asked_for_is_unknown():
    label = np.array([[[0, 1, 26, 9, IGNORE]]], np.uint8)
    meaning = LabelMeaning(annotated=(1, 26, 9), complete=True)
    config = PromptConfig(max_foreground=None, drop_label=0.0, drop_clicks=1.0, classes=(1, 26))
    objects = sample_prompts(PatchData(label, label, meaning), meaning, config, np.random.default_rng(0))
    rows = {one.classes: number + 1 for number, one in enumerate(objects)}

    assert displayed(label, objects).ravel().tolist() == [0, rows[(1,)], rows[(26,)], -1, -1]


def test_a_union_scores_as_its_highest_member():
    vectors, features = torch.randn(3, 4) * 20, torch.randn(4, 2, 2, 2)
    scores = torch.einsum("kc,cxyz->kxyz", vectors, features)

    both = union_logits(vectors, features, [2, 1])

    assert torch.equal(both[1], scores[2])
    assert torch.allclose(both[0], torch.logsumexp(scores[:2], 0))


def test_gradients_by_pieces_equal_those_of_the_whole():
    """Going back once for each iteration and some objects at a time changes nothing but the memory."""
    prompts = PromptConfig(max_points=1, iterations=3, classes=(LIVER, KIDNEY, SPLEEN), small_errors=True, margin=0.0)
    case = phantom(0)
    patch = PatchData(case.image[0], case.label[0], case.meaning)
    objects = sample_prompts(patch, case.meaning, prompts, np.random.default_rng(0))
    found = []
    for together in (1, 3):
        torch.manual_seed(2)  # all objects get equally many clicks: the network sees padding
        network = build_network(MODEL).train()
        objective = Objective(Branches(network, Arithmetic()), LossRecipe(together=together), prompts, 0)
        objective.learn(Sample(patch, objects, 0), 1.0)
        found.append({name: one.grad for name, one in network.named_parameters() if one.grad is not None})

    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], rtol=1e-4, atol=1e-6), name


def test_exhausted_memory_says_what_would_fit(tmp_path, monkeypatch):
    chosen = recipe("automatic", "steps=1", "frozen=[]")
    trainer = Trainer(task(chosen, [phantom(0)]), tmp_path, device="cpu")
    learn = Objective.learn

    def small(self: Objective, sample: Sample, share: float) -> dict[str, float]:
        if sample.patch.image.shape[0] > 12:
            raise torch.OutOfMemoryError("no memory")
        return learn(self, sample, share)

    monkeypatch.setattr(Objective, "learn", small)
    with pytest.raises(NotEnoughMemoryError, match=r"window of 16 x 16 x 16 with \d prompts; .* model.window=\[12, 12"):
        trainer.run()


def test_unions_are_learned_through_their_members(tmp_path):
    case = phantom(0)
    case.label[case.label == KIDNEY] = FIRST_UNION
    case = replace(case, unions=((KIDNEY, 14),), annotated=(LIVER, FIRST_UNION))
    model = replace(MODEL, classes=(LIVER, KIDNEY, 14))
    chosen = recipe("automatic", "steps=3", "frozen=[]", "prompts.max_background=0")
    trainer = Trainer(task(chosen, [case], model), tmp_path, device="cpu")
    before = trainer.network.class_head.class_embeddings.weight.detach().clone()

    trainer.run()

    moved = (trainer.network.class_head.class_embeddings.weight != before).any(1)
    changed = (trainer.network.class_head.class_embeddings.weight - before).abs().amax(1)
    assert moved[[KIDNEY, 14]].all()
    assert changed[14] > 10 * changed[SPLEEN]
