"""Small phantoms, a tiny network, and runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import Case
from VISTA3DCore.training.datasets import LoadedCase
from VISTA3DCore.training.loop import Task
from VISTA3DCore.training.patches import PatchSource
from VISTA3DCore.training.prompts import PromptConfig
from VISTA3DCore.training.recipe import Recipe, read_recipe
from VISTA3DCore.training.samples import TRIES, Samples

SIDE = 16
LIVER, KIDNEY, SPLEEN = 1, 5, 3
MODEL = ModelConfig(
    name="tiny",
    width=8,
    click_width=48,
    blocks_down=(1, 1, 1),
    window=(SIDE,) * 3,
    spacing=(3.0, 3.0, 3.0),
    n_classes=133,
)
QUICK = (
    "optimizer.learning_rate=0.004",
    "optimizer.warm_up=5",
    "optimizer.clip=5.0",
    "optimizer.rates.class_vectors=5.0",
    "data.augmentation=paper",
    "saving.every=1000",
    "prompts.margin=0.0",
    "prompts.small_errors=true",
)


def phantom(
    number: int,
    classes: Sequence[int] = (LIVER, KIDNEY, SPLEEN),
    complete: bool = True,
    supervoxels: bool = False,
    side: int = SIDE,
) -> LoadedCase:
    """Return a CT of three boxes of different densities; label maps show the classes that are annotated alone."""
    rng = np.random.default_rng(number)
    truth = np.zeros((side,) * 3, np.uint8)
    shift = int(rng.integers(0, 3))
    truth[1:8, 1 + shift : 7 + shift, 1:13] = LIVER
    truth[9 + shift // 2 : 15, 1 + shift : 7 + shift, 3:14] = KIDNEY
    truth[2:14, 10:15, 1 + shift : 11 + shift] = SPLEEN
    image = np.full(truth.shape, 0.35, np.float32)
    for index, value in ((LIVER, 0.85), (KIDNEY, 0.6), (SPLEEN, 0.1)):
        image[truth == index] = value
    image += rng.normal(0, 0.02, truth.shape).astype(np.float32)
    label = np.where(np.isin(truth, classes), truth, 0).astype(np.uint8)
    case = Case(f"phantom {number}", Path("image"), Path("label"), {one: (one,) for one in classes}, complete)
    parts = _halves(truth)[None] if supervoxels else None
    return LoadedCase(case, image[None], label[None], (), tuple(sorted(classes)), supervoxel=parts)


def _halves(truth: np.ndarray) -> np.ndarray:
    """Return supervoxels: the lower and the upper half of each structure, and of what is between them."""
    upper = np.arange(truth.shape[2]) >= truth.shape[2] // 2
    return (1 + 2 * truth.astype(np.int32) + upper).astype(np.int32)


def recipe(stage: str, *changes: str) -> Recipe:
    """Return a stage's recipe with what phantoms need."""
    return read_recipe(stage, changes=[*QUICK, *changes])


def task(
    chosen: Recipe,
    cases: Sequence[LoadedCase],
    model: ModelConfig = MODEL,
    prompts: PromptConfig | None = None,
    held_out: Sequence[LoadedCase] = (),
    **more: object,
) -> Task:
    """Return a run on loaded cases."""
    model = replace(model, classes=model.classes or (LIVER, SPLEEN, KIDNEY))
    prompts = prompts or replace(chosen.prompts, classes=model.classes)
    steps = chosen.total_steps(len(cases))

    def samples(some: Sequence[LoadedCase], count: int, seed: int) -> Samples:
        source = PatchSource(some, model, count * TRIES, replace(chosen.data, synthetic=0.0).patches(seed))
        return Samples(source, prompts, seed)

    validation = samples(held_out, chosen.validation.patches, 99) if held_out else None
    return Task(chosen, model, steps, samples(cases, steps * chosen.batch, chosen.seed), prompts, validation, **more)
