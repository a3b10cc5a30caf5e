"""Prompts for training: which structures to ask for in a patch, and simulated clicks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.network.click_head import PADDING, SPECIAL
from VISTA3DCore.training.click_sampling import Clicks, added, counted, draw_counts, error_clicks, regular_clicks
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, LoadedCase
from VISTA3DCore.training.supervoxel_objects import KINDS, MAKERS, REGULAR, ZERO_SHOT_UNSEEN, PartObject, Parts
from VISTA3DCore.training.targets import Target, object_of, target_of, with_parts

ZERO_SHOT = 512
"""Token of objects that are presented as unknown: any index above 132 means that (``map_shift`` of the reference)."""


class Patch(Protocol):
    """What prompts are sampled from; :class:`VISTA3DCore.training.datasets.PatchData` is one."""

    label: np.ndarray
    pseudo_label: np.ndarray | None
    supervoxel: np.ndarray | None


@dataclass(frozen=True)
class PromptConfig:
    """How many prompts of which kind. The defaults are those of stages 1 and 2 of the paper.

    :param max_foreground: structures of a patch that are asked for at most, of annotations and of predictions each;
        None for all.
    :param max_background: absent structures that are asked for at most.
    :param max_points: positive clicks to begin with at most.
    :param drop_label: probability that the classes are not told, only clicks.
    :param drop_clicks: probability that there are no clicks if the classes are told.
    :param iterations: answers, each after clicks on the errors of the one before.
    :param margin: part of the window's side in which nothing is clicked: 10 of 128 voxels.
    :param kinds: probability of each of ``KINDS`` where there are supervoxels.
    :param zero_shot: how often an organ that a supervoxel changed is presented as an unknown object.
    :param zero_shot_regular: how often an unchanged organ is (0 in the paper).
    :param smallest: side of a cube as large as the smallest unknown object, as a part of the window: 20 of 128.
    :param least_voxels: remains of a structure at the border that are smaller are not asked for.
    :param small_errors: also click errors that erosion leaves nothing of (not in the paper).
    :param corrections: how often clicks on a class begin from the automatic result, on its errors (0 in the paper).
    :param classes: that the model learns; None for all that its label set knows.
    """

    max_foreground: int | None = 4
    max_background: int | None = 0
    max_points: int = 3
    drop_label: float = 1.0
    drop_clicks: float = 0.0
    iterations: int = 5
    margin: float = 10 / 128
    kinds: tuple[float, float, float, float, float] = (0.6, 0.1, 0.1, 0.1, 0.1)
    zero_shot: float = 0.5
    zero_shot_regular: float = 0.0
    smallest: float = 20 / 128
    least_voxels: int = 1
    small_errors: bool = False
    corrections: float = 0.0
    classes: tuple[int, ...] | None = None

    def margin_voxels(self, shape: Sequence[int]) -> int:
        """Return the margin of a window in voxels, rounded."""
        return round(self.margin * min(shape))

    def smallest_voxels(self, shape: Sequence[int]) -> int:
        """Return how many voxels an unknown object has at least."""
        return int(np.prod([self.smallest * size for size in shape]))


INTERACTIVE = PromptConfig()
AUTOMATIC = PromptConfig(max_foreground=32, max_background=4, drop_label=0.0, drop_clicks=1.0, iterations=1)
"""Stages 1 and 2, and stages 3 and 4, of the paper (hyper_parameters_stage*.yaml)."""


@dataclass(frozen=True, eq=False)
class PromptObject:
    """One object that is asked for in a patch.

    :param target: bool [i, j, k]; empty for a structure that is not there.
    :param valid: bool [i, j, k]; the loss must leave the other voxels out.
    :param classes: what is asked for: one class, the members of a union, or nothing for an unknown object.
    :param token: the class that tells the click head what it is about, or ``ZERO_SHOT``.
    :param special: its clicks need the special tokens.
    :param clicks: the first clicks; None if they are dropped or it is not there.
    :param ask: whether the class is told; False if only clicks are.
    :param kind: one of ``KINDS``.
    :param pseudo: it comes from the pseudo-label.
    :param shown: bool [i, j, k], the mask that the first clicks correct; None for an empty one.
    """

    target: np.ndarray
    valid: np.ndarray
    classes: tuple[int, ...]
    token: int
    special: bool = False
    clicks: Clicks | None = None
    ask: bool = False
    kind: str = REGULAR
    pseudo: bool = False
    shown: np.ndarray | None = None

    @property
    def zero_shot(self) -> bool:
        """Whether it is presented as an unknown object."""
        return self.token == ZERO_SHOT


def sample_prompts(
    patch: Patch, case: LabelMeaning | LoadedCase, config: PromptConfig, rng: np.random.Generator
) -> list[PromptObject]:
    """Return what to ask for in a patch.

    Structures that the dataset does not annotate are asked for in the pseudo-label alone, or not at all. Where a patch
    has supervoxels, objects of the map whose background is known (the pseudo-label, else complete annotations) are
    changed by them. A CT without labels gives unknown objects alone.

    :param patch: label maps and supervoxels of one patch.
    :param case: what its codes mean.
    :return: may be empty; with ``ask`` objects the absent ones come last.
    """
    meaning = case.meaning if isinstance(case, LoadedCase) else case
    told, clicked = _modes(config, rng)
    pseudo = None if meaning.complete else patch.pseudo_label
    parts = None if told or patch.supervoxel is None else _parts(patch, meaning, pseudo, config)
    own = _Round(patch.label, meaning, config, None if pseudo is not None else parts, clicked, rng)
    objects = own.objects(_askable(meaning, config), meaning.objects if clicked else ())
    if pseudo is not None:
        predicted = _Round(pseudo, replace(meaning, annotated=()), config, parts, clicked, rng)
        objects += [replace(one, pseudo=True) for one in predicted.objects(_predictable(pseudo, meaning, config))]
    elif parts is not None and not meaning.complete:
        objects += own.unseen()
    told_objects = (replace(one, ask=told and bool(one.classes)) for one in objects)
    return [one for one in told_objects if one.ask or one.clicks is not None]


def next_prompts(
    objects: Sequence[PromptObject], answers: np.ndarray, config: PromptConfig, rng: np.random.Generator
) -> list[PromptObject]:
    """Return the objects with a click more on a miss and on a spill of each answer, where there are such errors.

    Objects without clicks stay as they are.

    :param answers: bool [B, i, j, k], what the network gave.
    """
    return [_corrected(one, answer, config, rng) for one, answer in zip(objects, answers, strict=True)]


def _corrected(one: PromptObject, answer: np.ndarray, config: PromptConfig, rng: np.random.Generator) -> PromptObject:
    if one.clicks is None:
        return one
    margin = config.margin_voxels(answer.shape)
    more = error_clicks(one.target, answer, rng, valid=one.valid, margin=margin, small_errors=config.small_errors)
    return replace(one, clicks=added(one.clicks, more))


def _modes(config: PromptConfig, rng: np.random.Generator) -> tuple[bool, bool]:
    """Return whether this patch's classes are told, and whether there are clicks; one of them is always True."""
    if rng.random() < config.drop_label:
        return False, True
    return True, bool(rng.random() >= config.drop_clicks)


def _askable(meaning: LabelMeaning, config: PromptConfig) -> list[int]:
    """Return the codes whose absence is known where they are not seen.

    Where everything was annotated, that is the default set of the catalogue: lesions and vessels of the liver are not
    part of any complete protocol.
    """
    everything = [one.index for one in catalogue().everything] if meaning.complete else []
    codes = sorted({*meaning.annotated, *everything})
    return [code for code in codes if config.classes is None or set(meaning.members(code)) <= set(config.classes)]


def _predictable(pseudo: np.ndarray, meaning: LabelMeaning, config: PromptConfig) -> list[int]:
    """Return the classes that a pseudo-label speaks of and that the dataset does not annotate.

    A class that the model behind it did not look for is not absent because it was not predicted.
    """
    annotated = {member for code in meaning.annotated for member in meaning.members(code)}
    spoken = meaning.predicted
    if spoken is None:
        shown = np.flatnonzero(np.bincount(pseudo.reshape(-1), minlength=IGNORE + 1)[:FIRST_UNION]).tolist()
        spoken = [*(one.index for one in catalogue().everything), *(index for index in shown if index)]
    known = set(spoken) if config.classes is None else set(spoken) & set(config.classes)
    return sorted(known - annotated)


def _parts(patch: Patch, meaning: LabelMeaning, pseudo: np.ndarray | None, config: PromptConfig) -> Parts | None:
    """Return what unknown objects are cut from, or None if nobody knows where the background is."""
    unlabelled = not meaning.annotated and not meaning.objects
    if pseudo is None and not meaning.complete and not unlabelled:
        return None
    label = patch.label if pseudo is None else pseudo
    return Parts(
        supervoxel=np.where(label == IGNORE, 0, patch.supervoxel),
        label=label,
        background=label == 0,
        prompted=frozenset(),
        points=config.max_points,
        margin=config.margin_voxels(label.shape),
        smallest=config.smallest_voxels(label.shape),
        zero_shot=config.zero_shot,
    )


class _Round:
    """Samples the objects of one label map."""

    def __init__(
        self,
        label: np.ndarray,
        meaning: LabelMeaning,
        config: PromptConfig,
        parts: Parts | None,
        clicked: bool,
        rng: np.random.Generator,
    ) -> None:
        self._label, self._meaning, self._config, self._parts, self._rng = label, meaning, config, parts, rng
        self._clicked = clicked
        self._counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
        self._margin = config.margin_voxels(label.shape)
        # With supervoxels the reference begins with as many clicks as allowed, all of them positive.
        self._first = (config.max_points, 0) if parts is not None else draw_counts(config.max_points, rng)

    def objects(self, askable: Sequence[int], unknown: Sequence[int] = ()) -> list[PromptObject]:
        """Return what is there of classes and unknown objects, then classes that are not there."""
        present = [code for code in askable if self._voxels(code) >= self._config.least_voxels]
        absent = [code for code in askable if not self._voxels(code)]
        present += [code for code in unknown if self._counts[code] >= self._config.least_voxels]
        chosen = self._some(present, self._config.max_foreground)
        if self._parts is not None:
            self._parts = replace(self._parts, prompted=frozenset(chosen))
        objects = [self._object(code) for code in chosen]
        return objects + [self._absent(code) for code in self._some(absent, self._config.max_background)]

    def unseen(self) -> list[PromptObject]:
        """Return supervoxels of a CT without labels, as many as there may be structures."""
        most = self._config.max_foreground or INTERACTIVE.max_foreground
        nothing = object_of(self._label, IGNORE)
        cut = (self._cut(ZERO_SHOT_UNSEEN, None) for _ in range(most))
        return [self._changed((), nothing, part, ZERO_SHOT_UNSEEN) for part in cut if part is not None]

    def _some(self, codes: list[int], most: int | None) -> list[int]:
        if most is None or len(codes) <= most:
            return codes
        return sorted(self._rng.choice(codes, most, replace=False).tolist())

    def _voxels(self, code: int) -> int:
        """Return how many voxels a class or union has, its parts included."""
        wanted = with_parts(self._meaning.members(code))
        found = (
            self._counts[one] for one in np.flatnonzero(self._counts[:IGNORE]).tolist() if self._within(one, wanted)
        )
        return int(sum(found))

    def _within(self, code: int, wanted: frozenset[int]) -> bool:
        members = self._meaning.members(code)
        return bool(members) and wanted.issuperset(members)

    def _object(self, code: int) -> PromptObject:
        members = self._meaning.members(code)
        target = target_of(self._label, members, self._meaning) if members else object_of(self._label, code)
        special = _special(members)
        plain = special or not members or self._parts is None
        kind = REGULAR if plain else str(self._rng.choice(KINDS, p=self._config.kinds))
        part = None if kind == REGULAR else self._cut(kind, target.inside)
        if part is None:
            return self._regular(members, target, special)
        return self._changed(members, target, part, kind)

    def _regular(self, members: tuple[int, ...], target: Target, special: bool) -> PromptObject:
        config, unknown = self._config, not members
        hidden = not special and self._rng.random() < config.zero_shot_regular
        token = ZERO_SHOT if unknown or hidden else members[0]
        clicks = self._clicks(target) if self._clicked else None
        return PromptObject(target.inside, target.valid, members, token, special, clicks)

    def _clicks(self, target: Target) -> Clicks:
        outside = target.valid & ~target.inside
        return regular_clicks(target.inside, outside, self._first, self._margin, self._rng)

    def _changed(self, members: tuple[int, ...], target: Target, part: PartObject, kind: str) -> PromptObject:
        if not part.zero_shot:
            return PromptObject(part.target, target.valid, members, members[0], clicks=part.clicks, kind=kind)
        return PromptObject(part.target, self._label != IGNORE, (), ZERO_SHOT, clicks=part.clicks, kind=kind)

    def _cut(self, kind: str, organ: np.ndarray | None) -> PartObject | None:
        """Cut an object; one that is presented as unknown takes its voxels with it."""
        part = MAKERS[kind](self._parts, organ, self._rng)
        if part is not None and part.zero_shot:
            self._parts = replace(self._parts, background=self._parts.background & ~part.target)
        return part

    def _absent(self, code: int) -> PromptObject:
        members = self._meaning.members(code)
        target = target_of(self._label, members, self._meaning)
        return PromptObject(target.inside, target.valid, members, members[0], _special(members))


def _special(members: tuple[int, ...]) -> bool:
    """Return whether clicks on a structure are ambiguous between it and its organ."""
    return any(catalogue()[member].special_click_tokens for member in members)


def stack_clicks(clicks: Sequence[Clicks], special: Sequence[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the clicks of several objects to one tensor: coordinates [B, N, 3] and labels [B, N], -1 = padding.

    :param special: [B] the object's class needs special tokens.
    """
    coordinates = torch.zeros(len(clicks), counted(clicks), 3)
    labels = torch.full(coordinates.shape[:2], PADDING, dtype=torch.long)
    for row, (points, polarity) in enumerate(clicks):
        coordinates[row, : len(points)] = torch.as_tensor(points, dtype=torch.float32)
        labels[row, : len(points)] = torch.as_tensor(polarity.astype(np.int64)) + SPECIAL * bool(special[row])
    return coordinates, labels
