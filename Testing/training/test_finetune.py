"""A model learns a new structure from two cases and keeps what it knew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from training_phantoms import KIDNEY, LIVER, MODEL, SPLEEN, phantom, recipe, task

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import read_data_list
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.training.branches import Arithmetic, Branches
from VISTA3DCore.training.datasets import LoadedCase, PatchData
from VISTA3DCore.training.distillation import Teacher
from VISTA3DCore.training.loop import Trainer
from VISTA3DCore.training.plan import Choices, planned, read_start
from VISTA3DCore.training.prompts import PromptConfig
from VISTA3DCore.training.recipe import LossRecipe

OLD = (LIVER, SPLEEN)


@pytest.fixture(scope="module")
def starting_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows liver and spleen, learned from cases in which the kidney counted as unknown."""
    folder = tmp_path_factory.mktemp("start")
    changes = ("steps=110", "batch=1", "model={}", "precision=fp32", "data.crop=16", "data.weights={}")
    chosen = recipe("mini", *changes, "prompts.iterations=2", "prompts.drop_clicks=0.3")
    cases = [phantom(number, OLD, complete=False) for number in (0, 1)]
    model = replace(MODEL, classes=OLD)
    return Trainer(task(chosen, cases, model), folder, device="cpu").run().model


def _dice(network: torch.nn.Module, case: LoadedCase, index: int) -> float:
    branches = Branches(network, Arithmetic())
    with torch.no_grad():
        _, features = branches.encoded(torch.as_tensor(case.image)[None], clicking=False, automatic=True)
        answer = (branches.class_logits(features, [(index,)])[0] > 0).numpy()
    target = case.label[0] == index
    return float(2 * (answer & target).sum() / (answer.sum() + target.sum()))


def _mean(network: torch.nn.Module, classes: tuple[int, ...]) -> float:
    """Return the mean Dice on cases that nothing was learned from."""
    return float(np.mean([_dice(network, phantom(number), index) for number in (7, 8, 9) for index in classes]))


def _finetuned(start: Path, folder: Path, *changes: str) -> Trainer:
    """Teach the kidney with two cases in which nothing else is labelled."""
    config, weights = load_checkpoint(start)
    chosen = recipe("finetune", "steps=80", "prompts.iterations=2", "optimizer.learning_rate=0.002", *changes)
    cases = [phantom(number, (KIDNEY,), complete=False) for number in (3, 4)]
    model = replace(config, classes=tuple(sorted({*OLD, KIDNEY})))
    prompts = replace(chosen.prompts, classes=model.classes)
    run = task(chosen, cases, model, prompts, start=weights, kept_classes=OLD)
    trainer = Trainer(run, folder, device="cpu")
    trainer.run()
    return trainer


@pytest.mark.slow
def test_a_new_structure_is_learned_from_two_cases_and_the_old_ones_are_kept(starting_model, tmp_path):
    network = build_network(load_checkpoint(starting_model)[0])
    network.load_state_dict(load_checkpoint(starting_model)[1])
    old, new = _mean(network, OLD), _mean(network, (KIDNEY,))
    assert old > 0.8
    assert new < 0.5

    trainer = _finetuned(starting_model, tmp_path)

    print(
        f"old {old:.3f} -> {_mean(trainer.network, OLD):.3f}, new {new:.3f} -> {_mean(trainer.network, (KIDNEY,)):.3f}"
    )
    assert _mean(trainer.network, (KIDNEY,)) > 0.85
    assert _mean(trainer.network, OLD) > old - 0.02
    assert load_checkpoint(trainer.folder.model)[0].classes == tuple(sorted({*OLD, KIDNEY}))


def _teacher(loss: LossRecipe) -> Teacher:
    torch.manual_seed(0)
    branches = Branches(build_network(MODEL), Arithmetic())
    return Teacher(branches, (LIVER, SPLEEN), loss, PromptConfig(margin=0.0))


def test_the_starting_model_claims_nothing_where_a_new_structure_is_annotated():
    case = phantom(0, (KIDNEY,), complete=False)
    patch = PatchData(case.image[0], case.label[0], case.meaning)
    image = torch.as_tensor(case.image)[None]

    lesson = _teacher(LossRecipe()).lesson(image, patch, True, np.random.default_rng(0))

    claimed = lesson.answers.numpy() >= 0.5
    assert claimed[:, case.label[0] == KIDNEY].any()
    assert np.array_equal(~lesson.valid.numpy(), claimed & (case.label[0] == KIDNEY))
    assert set(lesson.classes) <= {LIVER, SPLEEN}
    assert lesson.answers.shape == (len(lesson.classes), *patch.image.shape)
    for one in lesson.clicked:
        assert not (one.target & (case.label[0] == KIDNEY)).any()
        assert one.target[tuple(one.clicks[0][one.clicks[1]].T)].all()


def test_old_structures_that_are_rehearsed_are_not_left_out():
    case = phantom(0, OLD, complete=False)
    patch = PatchData(case.image[0], case.label[0], case.meaning)

    lesson = _teacher(LossRecipe()).lesson(torch.as_tensor(case.image)[None], patch, False, np.random.default_rng(0))

    assert lesson.valid.all()
    assert lesson.clicked == []


def _written(folder: Path, name: str, classes: tuple[int, ...], numbers: tuple[int, ...], labels: str = "") -> Path:
    """Write phantoms as files and a data list of them."""
    entries = []
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    for number in numbers:
        case = phantom(number, classes)
        hu = case.image[0] * 2017.5 - 963.8
        nibabel.save(nibabel.Nifti1Image(hu.astype(np.float32), affine), folder / f"{name}{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(case.label[0], affine), folder / f"{name}{number}_label.nii.gz")
        entries.append(f'{{"image": "{name}{number}.nii.gz", "label": "{name}{number}_label.nii.gz"}}')
    labels = labels or ", ".join(f'"{one}": {one}' for one in classes)
    text = f'{{"name": "{name}", "labels": {{{labels}}}, "training": [{", ".join(entries)}]}}'
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder / f"{name}.json"


@pytest.fixture
def small_start(tmp_path):
    path = tmp_path / "start.safetensors"
    save_checkpoint(path, replace(MODEL, classes=OLD), build_network(MODEL).state_dict())
    return read_start(str(path))


def test_the_plan_keeps_old_classes_adds_new_ones_and_rehearses(tmp_path, small_start):
    new = read_data_list(_written(tmp_path, "kidneys", (KIDNEY,), (3, 4)))
    old = read_data_list(_written(tmp_path, "livers", (LIVER,), (0,)))

    run = planned(
        recipe("finetune", "steps=3", "data.rehearsal=0.25"), [new], small_start, [old], Choices(None, tmp_path)
    )

    assert run.model.classes == tuple(sorted({*OLD, KIDNEY}))
    assert run.kept_classes == OLD
    weights = [case["weight"] for case in run.origin["cases"]]
    assert weights == [0.375, 0.375, 0.25]
    assert Trainer(run, tmp_path / "run", device="cpu").run().step == 3


def test_the_click_branch_alone_learns_objects_without_a_name(tmp_path, small_start):
    data = read_data_list(_written(tmp_path, "things", (KIDNEY,), (3,), f'"{KIDNEY}": "my thing"'))
    changes = ("steps=2", "frozen=[class_decoder, class_head, class_vectors]", "prompts.drop_label=1.0")

    run = planned(recipe("finetune", *changes), [data], small_start, choices=Choices(None, tmp_path))
    outcome = Trainer(run, tmp_path / "run", device="cpu").run()

    assert run.model.classes == OLD
    assert set(outcome.losses) == {"click", "old"}


def test_names_without_a_class_teach_the_automatic_branch_nothing(tmp_path, small_start):
    data = read_data_list(_written(tmp_path, "things", (KIDNEY,), (3,), f'"{KIDNEY}": "my thing"'))

    with pytest.raises(InputError, match="nothing that the recipe 'finetune' could learn from; it needs structures of"):
        planned(recipe("finetune", "prompts.drop_clicks=1.0"), [data], small_start, choices=Choices(None, tmp_path))
