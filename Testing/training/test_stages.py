"""Each stage learns what it should, and nothing else moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets.segresnet_ds import SegResNetDS2
from monai.networks.nets.vista3d import VISTA3D, ClassMappingClassify, PointMappingSAM
from training_phantoms import KIDNEY, LIVER, MODEL, SPLEEN, phantom, recipe, task

from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.models.checkpoints import load_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.datasets import LoadedCase, PatchData
from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.parts import part_of
from VISTA3DCore.training.patches import PatchSource
from VISTA3DCore.training.prompts import sample_prompts
from VISTA3DCore.training.recipe import PARTS
from VISTA3DCore.training.samples import TRIES, Sample, Samples
from VISTA3DCore.training.synthetic import SyntheticAnatomy

INTERACTIVE = (
    "steps=200",
    "prompts.iterations=3",
    "prompts.kinds=[0.8, 0.05, 0.05, 0.05, 0.05]",
    "optimizer.learning_rate=0.003",
    "optimizer.final_rate=0.1",
    "data.weighting=case",
)


def _overfitted(trainer: Trainer) -> tuple[float, float]:
    """Train, and return the mean loss of the first and of the last steps."""
    history: list[float] = []
    learn = trainer.objective.learn
    trainer.objective.learn = lambda *given: history.append(sum((found := learn(*given)).values())) or found
    trainer.run()
    return float(np.mean(history[:10])), float(np.mean(history[-10:]))


def _dice(trainer: Trainer, cases: list[LoadedCase]) -> float:
    """Return the mean Dice of the structures in the patches that training varies, as they are."""
    values: list[float] = []
    prompts = replace(trainer.task.prompts, kinds=(1.0, 0.0, 0.0, 0.0, 0.0))  # whole structures alone
    for number, case in enumerate(cases):
        parts = None if case.supervoxel is None else case.supervoxel[0]
        patch = PatchData(case.image[0], case.label[0], case.meaning, supervoxel=parts)
        objects = sample_prompts(patch, case.meaning, prompts, np.random.default_rng(number))
        scores = trainer.objective.dice(Sample(patch, objects, number))
        values += [value for some in scores.values() for value in some]
    return float(np.mean(values))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "supervoxels"), [("interactive", True), ("interactive-finetuning", False)])
def test_interactive_stages_overfit_two_cases(stage, supervoxels, tmp_path):
    chosen = recipe(stage, *INTERACTIVE)
    cases = [phantom(0, supervoxels=supervoxels), phantom(1, supervoxels=supervoxels)]

    trainer = Trainer(task(chosen, cases), tmp_path, device="cpu")

    first, last = _overfitted(trainer)

    assert last < 0.5 * first
    assert _dice(trainer, cases) > 0.9


@pytest.mark.slow
def test_automatic_stages_overfit_two_cases_on_a_frozen_encoder(tmp_path):
    """The third stage goes on from the second one's model, the fourth from the third's, with synthetic patches."""
    cases, start = [phantom(0), phantom(1)], dict(build_network(MODEL).state_dict())
    third = Trainer(task(recipe("automatic", "steps=100"), cases, start=start), tmp_path / "3", device="cpu")

    first, last = _overfitted(third)
    assert last < 0.4 * first
    assert _dice(third, cases) > 0.9

    chosen = recipe("automatic-finetuning", "steps=40", "optimizer.learning_rate=0.001", "data.synthetic=0.5")
    run = task(chosen, cases, start=load_checkpoint(third.folder.model)[1])
    source = PatchSource(
        cases, MODEL, 40 * TRIES, chosen.data.patches(0), SyntheticAnatomy(cases, replace(MODEL, classes=None))
    )
    run = replace(run, samples=Samples(source, run.prompts, 0))
    fourth = Trainer(run, tmp_path / "4", device="cpu")
    fourth.run()
    names = {run.samples[number].patch.name.split()[0] for number in range(40)}
    assert names == {"phantom", "synthetic"}
    assert _dice(fourth, cases) > 0.9
    _assert_moved(start, fourth.network.state_dict(), PARTS[3:])


@pytest.mark.slow
def test_the_small_models_recipe_overfits_both_branches(tmp_path):
    changes = ("steps=100", "data.augmentation=paper", "data.crop=null", "data.weights={}", "data.other_weight=null")
    chosen = recipe(
        "mini", *changes, "batch=1", "prompts.iterations=2", "prompts.drop_clicks=0.0", "optimizer.average_decay=0.9"
    )
    trainer = Trainer(task(chosen, [phantom(0), phantom(1)]), tmp_path, device="cpu")

    first, last = _overfitted(trainer)

    assert last < 0.6 * first
    config, weights = load_checkpoint(trainer.folder.model)
    assert config.classes == (LIVER, SPLEEN, KIDNEY)
    assert torch.equal(weights["point_head.mask_tokens.weight"], _half(trainer, "point_head.mask_tokens.weight"))


def _half(trainer: Trainer, name: str) -> torch.Tensor:
    return trainer.average.state[name].half().float()


def _assert_moved(before: dict, after: dict, moving: tuple[str, ...]) -> None:
    """Check that exactly some parts changed, tensor by tensor where nothing may have."""
    moved = {part_of(name) for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == set(moving)


@pytest.mark.parametrize(
    ("stage", "moving"),
    [
        ("interactive", ("encoder", "click_decoder", "click_head")),
        ("interactive-finetuning", ("encoder", "click_decoder", "click_head")),
        ("automatic", ("class_decoder", "class_head", "class_vectors")),
        ("mini", PARTS),
    ],
)
def test_what_a_stage_freezes_does_not_move(stage, moving, tmp_path):
    start = {name: value.clone() for name, value in build_network(MODEL).state_dict().items()}
    chosen = recipe(stage, "steps=3", "prompts.iterations=2", "prompts.drop_clicks=0.0", "data.crop=16", "model={}")
    chosen = replace(chosen, prompts=replace(chosen.prompts, least_voxels=1), precision="fp32")
    if stage == "automatic":
        chosen = replace(chosen, prompts=replace(chosen.prompts, drop_clicks=1.0))
    trainer = Trainer(task(chosen, [phantom(0)], start=start), tmp_path, device="cpu")

    trainer.run()

    _assert_moved(start, trainer.network.state_dict(), moving)


def test_the_model_loads_in_the_reference_network_and_in_the_engine(tmp_path):
    model = replace(MODEL, click_width=None)
    chosen = recipe("interactive", "steps=1", "prompts.iterations=1")
    trainer = Trainer(task(chosen, [phantom(0)], model), tmp_path, device="cpu")
    path = trainer.run().model

    reference = VISTA3D(
        image_encoder=SegResNetDS2(
            in_channels=1, blocks_down=(1, 1, 1), norm="instance", out_channels=8, init_filters=8, dsdepth=1
        ),
        class_head=ClassMappingClassify(133, 8, use_mlp=True),
        point_head=PointMappingSAM(feature_size=8, n_classes=133, last_supported=132),
    )
    reference.load_state_dict(load_checkpoint(path)[1])
    assert Segmenter.from_pretrained(path, device="cpu").config.classes == (LIVER, SPLEEN, KIDNEY)


def test_validation_keeps_the_best_model_and_stops_early(tmp_path):
    changes = ("validation.every=1", "validation.patches=2", "validation.patience=2", "optimizer.learning_rate=1e-9")
    chosen = recipe("automatic", "steps=20", "frozen=[]", *changes)

    outcome = Trainer(task(chosen, [phantom(0)], held_out=[phantom(1)]), tmp_path, device="cpu").run()

    assert outcome.reason == "nothing got better any more"
    assert outcome.step < 20
    assert 0 <= outcome.best <= 1
    assert outcome.model.exists()
    assert list((tmp_path / "tensorboard").iterdir())
    again = Trainer(task(chosen, [phantom(0)], held_out=[phantom(1)]), tmp_path, device="cpu").run()
    assert (again.step, again.best) == (outcome.step, outcome.best)
