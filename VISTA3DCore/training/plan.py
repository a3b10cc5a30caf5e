"""From a recipe, data lists and a starting model to a task: what is learned, from what, for how long."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError, ModelError
from VISTA3DCore.evaluation.data_list import DataList
from VISTA3DCore.models.checkpoints import State, load_checkpoint
from VISTA3DCore.models.digests import digest_file
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.caching import CaseStore
from VISTA3DCore.training.cases import Case, split_cases
from VISTA3DCore.training.datasets import shown_classes, trained_classes
from VISTA3DCore.training.loop import Task
from VISTA3DCore.training.packaged import packaged_case
from VISTA3DCore.training.patches import PatchSource, crop_side
from VISTA3DCore.training.prompts import PromptConfig
from VISTA3DCore.training.recipe import Recipe
from VISTA3DCore.training.samples import TRIES, Samples
from VISTA3DCore.training.synthetic import SyntheticAnatomy

_ARCHITECTURE = ("width", "click_width", "blocks_down", "n_classes")
"""What two models must share for the weights of one to fit the other."""


_FILES = ("image", "label", "pseudo_label", "supervoxel")
_MOST_LISTED = 6


@dataclass(frozen=True, eq=False)
class Start:
    """A starting model.

    :param digest: SHA-256 of its file.
    """

    config: ModelConfig
    weights: State
    digest: str


@dataclass(frozen=True)
class Choices:
    """What the user chose besides recipe and data.

    :param fold: held out for validation; None: nothing is.
    :param cache: folder of prepared cases; None: the user's.
    """

    fold: int | None = None
    cache: Path | None = None


def read_start(name_or_path: str) -> Start:
    """Load a model to begin with: its name, or a file.

    :raises ModelError: if it is missing or no VISTA3D model.
    """
    path = ModelStore().resolve(name_or_path)
    config, weights = load_checkpoint(path)
    return Start(config, weights, digest_file(path).sha256)


def planned(
    recipe: Recipe,
    lists: Sequence[DataList],
    start: Start | None = None,
    old: Sequence[DataList] = (),
    choices: Choices | None = None,
    progress: Progress | None = None,
) -> Task:
    """Return the task.

    :param old: data of the classes that the starting model knows, for rehearsal (fine-tuning).
    :raises InputError: if the lists hold nothing to learn from.
    :raises ModelError: if the starting model has another architecture than the recipe.
    """
    choices, config = choices or Choices(), model_of(recipe, start)
    new, held_out = chosen_cases(recipe, lists, choices.fold, progress)
    cases = rehearsing(new, [case for case in split_cases(old)[0] if case.label], recipe) if old else new
    files = _present([*cases, *held_out])
    smallest = 1 if recipe.data.synthetic == 1 else recipe.data.crop or crop_side(config, recipe.data.augmentation)
    store = CaseStore(cases, config, smallest, choices.cache)
    classes, kept = classes_of(recipe, config, start, store, new)
    model = replace(config, classes=classes, click_branch=_clicks(recipe, start))
    named = _named(new) if start is not None else set()
    prompts = replace(recipe.prompts, classes=tuple(sorted({*_leaves(model), *named})))
    steps = recipe.total_steps(len(cases))
    source = PatchSource(
        store, model, steps * recipe.batch * TRIES, recipe.data.patches(recipe.seed), _synthetic(recipe, store)
    )
    return Task(
        recipe=recipe,
        model=model,
        steps=steps,
        samples=Samples(source, None if _dense_alone(recipe) else prompts, recipe.seed),
        prompts=prompts,
        validation=_validation(recipe, model, held_out, prompts, choices.cache),
        start=None if start is None else start.weights,
        kept_classes=kept,
        held_out=len(held_out),
        files=files,
        origin={"cases": [_described(case) for case in cases], "start": start.digest if start else None},
    )


def model_of(recipe: Recipe, start: Start | None) -> ModelConfig:
    """Return the configuration of the model that is trained; a starting model must have its architecture.

    :raises ModelError: if it has not.
    :raises InputError: if the window is too small to learn from.
    """
    wanted = recipe.model_config(None if start is None else start.config)
    smallest = 2 ** (len(wanted.blocks_down) - 1)
    if all(side == smallest for side in wanted.window):
        raise InputError(
            f"A window of {' x '.join(map(str, wanted.window))} is too small to train a network of "
            f"{len(wanted.blocks_down)} levels: one voxel is left on the coarsest. "
            f"Set model.window=[{', '.join([str(2 * smallest)] * 3)}] or larger."
        )
    if start is None:
        return wanted
    for name in _ARCHITECTURE:
        own, found = getattr(wanted, name), getattr(start.config, name)
        if own != found:
            raise ModelError(
                f"The starting model '{start.config.name}' has another architecture than the recipe '{recipe.name}': "
                f"{name} is {found} instead of {own}."
            )
    return wanted


def expected_model(recipe: Recipe, start: Start | None) -> ModelConfig:
    """Return what the labels of the data may mean: as :func:`model_of`; a starting model learns new classes.

    :raises ModelError: as :func:`model_of`.
    """
    model = model_of(recipe, start)
    return model if start is None else replace(model, classes=None)


def chosen_cases(
    recipe: Recipe, lists: Sequence[DataList], fold: int | None, progress: Progress | None = None
) -> tuple[list[Case], list[Case]]:
    """Return the cases to learn from and those to validate with, as the recipe wants them.

    :raises InputError: if none teaches anything.
    """
    learned, held_out = split_cases(lists, fold) if lists else ([], [])
    if recipe.data.packages:
        learned.append(packaged_case(user_data_dir() / "samples", progress))
    stripped = (_stripped(case, recipe) for case in learned)
    cases = [_weighted(case, recipe) for case in stripped if _teaches(case, recipe)]
    if not cases:
        raise InputError(
            f"The data lists hold nothing that the recipe '{recipe.name}' could learn from; it needs "
            f"{'structures of the catalogue' if recipe.prompts.drop_clicks == 1 else 'labels or supervoxels'}."
        )
    return cases, held_out


def rehearsing(new: Sequence[Case], old: Sequence[Case], recipe: Recipe) -> list[Case]:
    """Return new and old cases, weighted so that the recipe's share of patches is old."""
    share = recipe.data.rehearsal
    sums = [sum(case.weight for case in cases) for cases in (new, old)]
    return [
        *(replace(case, weight=case.weight * (1 - share) / sums[0]) for case in new),
        *(replace(case, weight=case.weight * share / sums[1]) for case in old),
    ]


def classes_of(
    recipe: Recipe, config: ModelConfig, start: Start | None, store: CaseStore, new: Sequence[Case]
) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Return the classes that the result knows (None: all of its label set), and those whose answers are kept.

    Lists often name more structures than their cases show; what no case shows cannot be learned.

    :raises InputError: if the data show too little, or mean classes that the model cannot have.
    """
    named, known = _named(new), catalogue(config.label_set)
    if impossible := sorted(index for index in named if index >= config.n_classes or index not in known):
        raise InputError(f"The model has no class {impossible[0]}, which a label of the data means.")
    if start is not None:
        known = _leaves(start.config)
        told = recipe.prompts.drop_label < 1 and "class_vectors" not in recipe.frozen
        added = (named - set(known)) & shown_classes(store) if told and named - set(known) else set()
        together = tuple(sorted({*known, *added}))
        everything = start.config.classes is None and not added
        return (None if everything else together), tuple(one for one in known if one not in named)
    if recipe.minimum_voxels is None:
        return config.classes, ()
    classes = trained_classes(store, recipe.minimum_voxels)
    if not classes:
        raise InputError("No completely annotated case shows a structure that the model could learn from nothing.")
    return classes, ()


def _named(cases: Iterable[Case]) -> set[int]:
    """Return the classes that labels mean."""
    return {index for case in cases for ids in case.classes.values() for index in ids}


def _leaves(config: ModelConfig) -> tuple[int, ...]:
    """Return the classes that a model knows; where it does not say, those of its label set that are no groups."""
    if config.classes is not None:
        return config.classes
    known = catalogue(config.label_set)
    return tuple(one.index for one in known if one.supported and not one.is_group)


def _clicks(recipe: Recipe, start: Start | None) -> bool:
    trained = recipe.prompts.drop_clicks < 1 or recipe.prompts.drop_label == 1
    return trained or (start is not None and start.config.click_branch)


def _stripped(case: Case, recipe: Recipe) -> Case:
    """Return a case without what the recipe does not use."""
    data = recipe.data
    return replace(
        case,
        supervoxel=case.supervoxel if data.supervoxels else None,
        pseudo_label=case.pseudo_label if data.pseudo_labels else None,
    )


def _teaches(case: Case, recipe: Recipe) -> bool:
    if case.label is None and not recipe.data.unlabelled:
        return False
    told = case.pseudo_label is not None or any(case.classes.values())
    clicking = recipe.prompts.drop_clicks < 1 or recipe.prompts.drop_label == 1
    return told or (clicking and (bool(case.classes) or case.supervoxel is not None))


def _weighted(case: Case, recipe: Recipe) -> Case:
    other = recipe.data.other_weight
    return replace(case, weight=recipe.data.weights.get(case.name, case.weight if other is None else other))


def _synthetic(recipe: Recipe, store: CaseStore) -> SyntheticAnatomy | None:
    if not recipe.data.synthetic:
        return None
    told = [n for n, case in enumerate(store.cases) if case.complete or (recipe.data.synthetic_partial and _maps(case))]
    chosen = np.random.default_rng(recipe.seed).permutation(told)[: recipe.data.synthetic_sources]
    return SyntheticAnatomy([store[number] for number in sorted(chosen.tolist())], store.model)


def _dense_alone(recipe: Recipe) -> bool:
    """Return whether nothing is asked for or clicked, as all classes are learned at once."""
    return recipe.loss.dense > 0 and recipe.prompts.drop_clicks == 1 and recipe.prompts.drop_label == 0


def _maps(case: Case) -> bool:
    return case.label is not None or case.pseudo_label is not None


def _validation(
    recipe: Recipe, model: ModelConfig, held_out: Sequence[Case], prompts: PromptConfig, cache: Path | None
) -> Samples | None:
    """Return samples of held-out cases: as in training, but never varied by more than the paper's recipe."""
    if not held_out:
        return None
    data = replace(recipe.data, synthetic=0.0, augmentation="paper", crop=None)
    store = CaseStore(held_out, model, max(model.window), cache)
    seed = recipe.seed + 1_000_003  # patches that training does not draw
    source = PatchSource(store, model, recipe.validation.patches * TRIES, data.patches(seed))
    return Samples(source, prompts, seed)


def _present(cases: Sequence[Case]) -> dict[str, Path]:
    """Return the files of cases by what they are, such as "label of 'liver_3' (livers)".

    :raises InputError: if some are missing, naming them.
    """
    files = {}
    for case in cases:
        where = f" ({case.dataset})" if case.dataset else ""
        for kind in _FILES:
            if getattr(case, kind) is not None:
                files[f"{kind.replace('_', '-')} of '{case.name}'{where}"] = getattr(case, kind)
    missing = [f"{name}: '{path}'" for name, path in files.items() if not path.exists()]
    if missing:
        more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
        raise InputError(f"Files of the data lists are missing: {', '.join(missing[:_MOST_LISTED])}{more}.")
    return files


def _described(case: Case) -> dict[str, Any]:
    """Return what of a case decides about the weights; where its files lie does not."""
    values = asdict(case)
    if case.predicted is None:  # as in the runs of versions that did not know it
        del values["predicted"]
    files = {name: Path(values[name]).name if values[name] else None for name in _FILES}
    return values | files | {"classes": {str(key): list(ids) for key, ids in case.classes.items()}}


def described(task: Task) -> str:
    """Return a line about a task for people."""
    count = len(task.origin["cases"])
    known = "all classes of its label set" if task.model.classes is None else f"{len(task.model.classes)} classes"
    judged = f", validation with {task.held_out} case{'s' * (task.held_out != 1)}" if task.held_out else ""
    return f"{count} case{'s' * (count != 1)}, {known}, {task.steps} steps{judged}"
