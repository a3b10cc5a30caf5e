"""Small phantoms, a tiny network, and runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.datasets import Case, LoadedCase
from VISTA3DCore.training.loop import Task
from VISTA3DCore.training.patches import PatchSource
from VISTA3DCore.training.prompts import PromptConfig
from VISTA3DCore.training.recipe import Recipe, read_recipe
from VISTA3DCore.training.samples import TRIES, Samples

SIDE = 24
LIVER, KIDNEY, SPLEEN = 1, 5, 3
MODEL = ModelConfig(
    name="tiny",
    width=8,
    click_width=24,
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
    truth[2 + shift : 11 + shift, 3:13, 4:20] = LIVER
    truth[14 + shift // 2 : 21, 3 + shift : 10 + shift, 5:15] = KIDNEY
    truth[6:18, 15:22, 3 + shift : 14 + shift] = SPLEEN
    image = np.full(truth.shape, 0.35, np.float32)
    for index, value in ((LIVER, 0.85), (KIDNEY, 0.6), (SPLEEN, 0.1)):
        image[truth == index] = value
    image += rng.normal(0, 0.02, truth.shape).astype(np.float32)
    label = np.where(np.isin(truth, classes), truth, 0).astype(np.uint8)
    case = Case(f"phantom {number}", Path("image"), Path("label"), {one: (one,) for one in classes}, complete)
    parts = _blocks(truth.shape)[None] if supervoxels else None
    return LoadedCase(case, image[None], label[None], (), tuple(sorted(classes)), supervoxel=parts)


def _blocks(shape: tuple[int, ...]) -> np.ndarray:
    i, j, k = (np.arange(side) // 8 for side in shape)
    return (1 + i[:, None, None] + 8 * j[None, :, None] + 64 * k[None, None, :]).astype(np.int32)


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
