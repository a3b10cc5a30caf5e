"""Recipes: everything in which one run of training differs from another, as a few lines of YAML.

The stages of the paper and the recipes of the small model are files in ``stages/``; a user's file changes single
values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from VISTA3DCore.errors import InputError, ModelError
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.augmentation import PAPER
from VISTA3DCore.training.patches import PatchConfig
from VISTA3DCore.training.prompts import PromptConfig
from VISTA3DCore.training.sampling import BY_CASE

STAGES = Path(__file__).parent / "stages"

PARTS = ("encoder", "click_decoder", "click_head", "class_decoder", "class_head", "class_vectors")
"""Parts of the network that can be frozen or get a learning rate of their own."""

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class DataRecipe:
    """What patches are cut from.

    :param augmentation: a recipe of :func:`augmentation.patch_transform`.
    :param crop: side of the region that is deformed before its centre, one window, is kept; None: as
        :class:`patches.PatchConfig` has it.
    :param weighting: how cases are drawn, see :func:`sampling.sampling_weights`.
    :param weights: weights of single cases by name, instead of those in their lists.
    :param other_weight: weight of all other cases where ``weights`` is given; None: as in their lists.
    :param packages: learn also from the labelled chest CT that a public Python package carries.
    :param supervoxels: cut unknown objects out of supervoxels where the lists have them.
    :param pseudo_labels: learn from pseudo-labels where the lists have them.
    :param unlabelled: learn also from CTs that have no annotations.
    :param synthetic: share of patches that are synthetic, made from the completely annotated cases, drawn by weight.
    :param synthetic_sources: cases that synthetic patches are made from at most; they stay in memory.
    :param synthetic_partial: make synthetic patches of all cases with labels or predictions, not only of complete ones.
    :param rehearsal: share of patches from data of the old classes, where such data are given (fine-tuning).
    :param in_memory: cases that each loading process keeps in memory.
    """

    augmentation: str = PAPER
    crop: int | None = None
    weighting: str = BY_CASE
    weights: Mapping[str, float] = field(default_factory=dict)
    other_weight: float | None = None
    packages: bool = False
    supervoxels: bool = True
    pseudo_labels: bool = True
    unlabelled: bool = True
    synthetic: float = 0.0
    synthetic_sources: int = 16
    synthetic_partial: bool = False
    rehearsal: float = 0.5
    in_memory: int = 8

    def patches(self, seed: int) -> PatchConfig:
        """Return how patches are drawn."""
        return PatchConfig(seed, self.augmentation, self.crop, self.weighting, self.synthetic, self.in_memory)


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised besides Dice + cross-entropy per prompt, which always is.

    :param dense: share of the voxels of a patch at which all classes and background are told apart, instead of asking
        for some classes; 0: classes are asked for. Every annotated class is a negative wherever it is not.
    :param dense_binary: there, weight of the cross-entropy of each class by itself.
    :param pseudo_weight: there, weight of voxels that only a prediction labels.
    :param map: weight of the cross-entropy of the displayed label map, in completely annotated cases.
    :param click_objects: objects of a patch that are clicked at most; None for all that have clicks.
    :param click_voxels: smaller objects are not clicked: remains at the border teach nothing.
    :param together: objects that go through the click head at once; fewer need less memory, the sum is the same.
    :param distillation: weight of staying with the answers of the starting model for its classes.
    :param distilled_classes: of these, how many are compared in a patch.
    :param distilled_objects: of these, how many are clicked in a patch.
    """

    dense: float = 0.0
    dense_binary: float = 0.0
    pseudo_weight: float = 0.3
    map: float = 0.0
    click_objects: int | None = None
    click_voxels: int = 1
    together: int = 4
    distillation: float = 0.0
    distilled_classes: int = 24
    distilled_objects: int = 2


@dataclass(frozen=True)
class OptimizerRecipe:
    """AdamW with a warm-up and a cosine.

    :param learning_rate: its peak.
    :param final_rate: where the cosine ends, as a part of the peak.
    :param warm_up: steps from 0 to the peak.
    :param rates: factors on the rate of single ``PARTS``.
    :param clip: largest norm of the gradient; None for any.
    :param average_decay: of the moving average of the weights, which then is the result; 0: the weights are.
    """

    learning_rate: float = 2e-5
    final_rate: float = 0.0
    warm_up: int = 0
    weight_decay: float = 1e-5
    rates: Mapping[str, float] = field(default_factory=dict)
    clip: float | None = None
    average_decay: float = 0.0


@dataclass(frozen=True)
class SavingRecipe:
    """How often the state is saved.

    :param every: steps between checkpoints.
    :param keep: how many are kept.
    :param half: the model's file is fp16.
    """

    every: int = 500
    keep: int = 2
    half: bool = False


@dataclass(frozen=True)
class ValidationRecipe:
    """How often the network is judged.

    :param every: steps between validations; None: an eighth of the run, 1000 at most.
    :param patches: fixed ones of the held-out cases.
    :param patience: stop early after so many validations without a better one; None: never.
    """

    every: int | None = None
    patches: int = 32
    patience: int | None = None

    def interval(self, steps: int) -> int:
        """Return the steps between validations of a run of so many."""
        return max(1, min(1000, steps // 8)) if self.every is None else self.every


@dataclass(frozen=True)
class Recipe:
    """One run of training.

    :param about: one line for people.
    :param model: fields of :class:`ModelConfig` that differ from the starting model's, or from the released one's.
    :param frozen: ``PARTS`` that do not learn.
    :param copy_class_decoder: the click decoder begins as the decoder of the automatic branch of the starting model.
    :param minimum_voxels: from nothing, the model learns the classes that completely annotated cases show with at
        least so many voxels; None: every class of its label set.
    :param steps: updates of the weights; None: by ``epochs``.
    :param epochs: each is every training case once, ``patches_per_case`` patches each.
    :param batch: patches for one update, whatever the number of processes.
    :param precision: one of ``PRECISIONS``; auto: bf16 or fp16 on GPUs, fp32 on processors.
    """

    name: str
    about: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    copy_class_decoder: bool = False
    minimum_voxels: int | None = None
    steps: int | None = None
    epochs: int = 1
    patches_per_case: int = 2
    batch: int = 1
    precision: str = "auto"
    seed: int = 0
    data: DataRecipe = field(default_factory=DataRecipe)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    saving: SavingRecipe = field(default_factory=SavingRecipe)
    validation: ValidationRecipe = field(default_factory=ValidationRecipe)

    def model_config(self, start: ModelConfig | None = None) -> ModelConfig:
        """Return the configuration of the model that is trained.

        :raises InputError: if ``model`` names no such setting, or an impossible one.
        """
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in self.model.items()}
        try:
            return replace(start or ModelConfig(), **values)
        except (TypeError, ModelError) as error:
            raise InputError(f"The recipe '{self.name}' describes no model: {error}") from error

    def total_steps(self, cases: int) -> int:
        """Return how many updates the run makes."""
        patches = self.epochs * cases * self.patches_per_case
        return self.steps if self.steps is not None else max(1, patches // self.batch)


def stage_names() -> list[str]:
    """Return the names of the recipes that come with this program."""
    return sorted(path.stem for path in STAGES.glob("*.yaml"))


def read_recipe(stage: str, config: Path | None = None, changes: Sequence[str] = ()) -> Recipe:
    """Return a stage's recipe with a user's changes.

    :param stage: one of :func:`stage_names`.
    :param config: a YAML file whose values replace the stage's.
    :param changes: single values, such as ``optimizer.learning_rate=1e-4``.
    :raises InputError: if the stage or a value is unknown or impossible.
    """
    if stage not in stage_names():
        raise InputError(f"There is no stage '{stage}'; choose one of {', '.join(stage_names())}.")
    values = _yaml((STAGES / f"{stage}.yaml").read_text(encoding="utf-8"), stage)
    if config is not None:
        values = merged(values, _yaml(_text(config), f"'{config}'"))
    for change in changes:
        values = merged(values, _change(change))
    return checked(_built(Recipe, {"name": stage, **values}, ""))


def to_yaml(recipe: Recipe) -> str:
    """Return a recipe as YAML, complete: what a run folder keeps."""
    import yaml

    return yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False)


def checked(recipe: Recipe) -> Recipe:
    """Return the recipe.

    :raises InputError: if a value is out of its range.
    """
    unknown = {*recipe.frozen, *recipe.optimizer.rates} - set(PARTS)
    prompts = recipe.prompts
    shares = (
        recipe.data.synthetic,
        recipe.data.rehearsal,
        prompts.drop_label,
        prompts.drop_clicks,
        prompts.corrections,
    )
    counts = {
        "steps": recipe.steps,
        "epochs": recipe.epochs,
        "patches_per_case": recipe.patches_per_case,
        "batch": recipe.batch,
        "loss.together": recipe.loss.together,
        "saving.every": recipe.saving.every,
        "saving.keep": recipe.saving.keep,
        "validation.every": recipe.validation.every,
        "validation.patches": recipe.validation.patches,
        "validation.patience": recipe.validation.patience,
    }
    none = [f"{name} is {count}" for name, count in counts.items() if count is not None and count < 1]
    problems = {
        f"there is no part '{next(iter(sorted(unknown)), '')}' of the network; parts are {', '.join(PARTS)}": unknown,
        f"precision must be one of {', '.join(PRECISIONS)}": recipe.precision not in PRECISIONS,
        "shares and probabilities lie between 0 and 1": not all(0 <= one <= 1 for one in shares),
        f"{', '.join(none)}; it must be at least 1": none,
        "the learning rate must be positive": not recipe.optimizer.learning_rate > 0,
        "every part of the network is frozen": set(recipe.frozen) == set(PARTS),
    }
    for problem, found in problems.items():
        if found:
            raise InputError(f"The recipe '{recipe.name}' cannot be used: {problem}.")
    return recipe


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with changes; sections are merged, everything else is replaced."""
    result = dict(values)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _change(text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError(f"'{text}' changes nothing; write it as optimizer.learning_rate=1e-4.")
    import yaml

    try:
        result: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"The value in '{text}' is not valid YAML.") from error
    for key in reversed(path.strip().split(".")):
        result = {key: result}
    return result


def _yaml(text: str, what: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The recipe {what} is not valid YAML ({reason}).") from error
    if not isinstance(values, dict):
        raise InputError(f"The recipe {what} holds no settings; write 'name: value' lines.")
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(
            f"The recipe '{path}' cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from error


def _built(kind: type, values: Any, place: str) -> Any:
    """Return a dataclass of nested values; what it does not know is refused, because it would be ignored."""
    if not isinstance(values, Mapping):
        raise InputError(f"'{place}' of the recipe must hold settings.")
    known = {one.name for one in fields(kind)}
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        inside = f" in '{place}'" if place else ""
        raise InputError(
            f"The recipe has no setting '{unknown[0]}'{inside}; settings there are {', '.join(sorted(known))}."
        )
    hints = get_type_hints(kind)
    return kind(**{key: _value(hints[key], value, f"{place}.{key}".strip(".")) for key, value in values.items()})


def _value(kind: Any, value: Any, place: str) -> Any:
    """Return a value of a type of the recipe's dataclasses."""
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    kind = options[0]
    if is_dataclass(kind):
        return _built(kind, value, place)
    origin = get_origin(kind) or kind
    try:
        return _plain_value(origin, value)
    except (TypeError, ValueError):
        raise InputError(f"'{place}' of the recipe cannot be '{value}'.") from None


def _plain_value(kind: type, value: Any) -> Any:
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if kind is Mapping and isinstance(value, Mapping):
        return dict(value)
    if kind is float and not isinstance(value, bool):
        return float(value)  # YAML takes 1e-4 for a text
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise TypeError


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
