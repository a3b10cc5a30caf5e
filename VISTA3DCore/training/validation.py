"""Everything that is wrong with a data list, told at once and before hours are spent."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import DataItem, DataList
from VISTA3DCore.imaging.readers import check_ct
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.datasets import IGNORE, case_of, codes_of, label_volume, unions_of

ERROR, WARNING = "error", "warning"
_MOST_LISTED = 6


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    :param text: one sentence that names the case and the file.
    :param severity: ``error``: training must not start; ``warning``: look at it.
    :param case: name of the entry, or "" for the list as a whole.
    """

    text: str
    severity: str = ERROR
    case: str = ""

    def __str__(self) -> str:
        return self.text


def validate(
    data: DataList, model: ModelConfig, fold: int | None = None, progress: Progress | None = None
) -> list[Problem]:
    """Read every file of sections ``training`` and ``testing`` and return everything that is wrong.

    :param model: its classes and label set are what labels must mean.
    :param fold: the fold that is to be held out, if any.
    :return: problems of the list first, then those of each entry.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress = Progress.of(progress)
    items = [*data.training, *data.testing]
    found = [*_of_list(data), *_of_folds(data.training, fold), *_of_meanings(data, model)]
    contents: dict[str, list[str]] = defaultdict(list)
    for done, item in enumerate(items):
        progress.update(done / len(items), "Checking", item.name)
        found += _Entry(item, contents).problems()
    found += _of_contents(data, contents)
    progress.update(1.0, "Checking")
    return found


def has_errors(problems: Sequence[Problem]) -> bool:
    """Whether training must not start."""
    return any(problem.severity == ERROR for problem in problems)


def _of_list(data: DataList) -> Iterator[Problem]:
    usable = [one for one in data.training if one.label or one.pseudo_label or one.supervoxel]
    if not usable:
        yield Problem(
            f"The data list '{data.path.name}' has no training case: section 'training' holds no entry with a label."
        )
    for item in data.training:
        if not (item.label or item.pseudo_label or item.supervoxel):
            yield _warn(item, "has neither label nor supervoxels and teaches nothing")
        if not (np.isfinite(item.weight) and item.weight > 0):
            yield Problem(f"The weight of '{item.name}' is {item.weight:g}; it must be above 0.", case=item.name)


def _of_folds(training: Sequence[DataItem], fold: int | None) -> Iterator[Problem]:
    folds = Counter(item.fold for item in training)
    # A CT that nobody annotated cannot validate, so it needs no fold.
    without = [item.name for item in training if item.fold is None and item.label is not None]
    if without and set(folds) != {None}:
        yield Problem(f"Some entries have a fold and some have none: {_listed(without)} lack 'fold'.")
    for item in training:
        if item.fold is not None and item.fold < 0:
            yield Problem(f"The fold of '{item.name}' is {item.fold}; folds are counted from 0.", case=item.name)
    if fold is None:
        return
    if not folds[fold]:
        known = ", ".join(map(str, sorted(one for one in folds if one is not None))) or "none"
        yield Problem(f"Fold {fold} has no case to validate with; the folds of the list are: {known}.")
    elif folds[fold] == len(training):
        yield Problem(f"All training cases are in fold {fold}, so none is left to learn from.")


def _of_meanings(data: DataList, model: ModelConfig) -> Iterator[Problem]:
    """Yield what is wrong with what the labels are said to mean."""
    known = catalogue(model.label_set)
    classes = {ids for item in data.training for ids in map(tuple, case_of(item).classes.values())}
    for ids in sorted(classes):
        for index in ids:
            if index not in known or index >= model.n_classes:
                yield Problem(f"A label means class {index}, which the model's label set '{known.name}' does not have.")
            elif model.classes is not None and index not in model.classes:
                name = known[index].name
                yield Problem(f"The model does not learn '{name}' ({index}), which labels mean.", WARNING)
    if data.training and not any(classes):
        yield Problem("No label of the list means a class of the model; its objects can only be clicked.", WARNING)
    for item in data.training:
        yield from _of_codes(item)


def _of_codes(item: DataItem) -> Iterator[Problem]:
    meaning = case_of(item).classes
    try:
        codes_of(meaning, unions_of(meaning))
    except InputError as error:
        yield Problem(f"'{item.name}': {error}", case=item.name)


def _of_contents(data: DataList, contents: dict[str, list[str]]) -> Iterator[Problem]:
    """Yield images that are there more than once."""
    training = {item.name: item.fold for item in data.training}
    testing = {item.name for item in data.testing}
    for names in contents.values():
        if len(names) < 2:
            continue
        listed = _listed(names)
        if testing.intersection(names) and set(training).intersection(names):
            yield Problem(f"The same image is learned from and tested on: {listed}.")
        elif len({training.get(name) for name in names if name in training}) > 1:
            yield Problem(f"The same image is in several folds: {listed}.")
        else:
            yield Problem(f"The same image is listed several times: {listed}.", WARNING)


class _Entry:
    """Checks the files of one entry."""

    def __init__(self, item: DataItem, contents: dict[str, list[str]]) -> None:
        self._item, self._contents = item, contents

    def problems(self) -> list[Problem]:
        """Return everything that is wrong with it."""
        found: list[Problem] = []
        image = self._image(found)
        files = {
            "label": self._item.label,
            "pseudo-label": self._item.pseudo_label,
            "supervoxels": self._item.supervoxel,
        }
        for what, path in files.items():
            if path is None:
                continue
            if not path.exists():
                found.append(self._error(f"The {what} of '{self._item.name}' is missing: '{path}'."))
            elif image is not None:
                found += self._map(what, path, image)
        return found

    def _image(self, found: list[Problem]) -> Volume | None:
        if not self._item.image.exists():
            found.append(self._error(f"The image of '{self._item.name}' is missing: '{self._item.image}'."))
            return None
        try:
            image = _read(self._item.image)
        except InputError as error:
            found.append(self._error(f"The image of '{self._item.name}' cannot be read: {error}"))
            return None
        digest = hashlib.blake2b(np.ascontiguousarray(image.array), digest_size=16).hexdigest()
        self._contents[digest].append(self._item.name)
        try:
            doubts = check_ct(image)
            found += [Problem(f"'{self._item.name}': {doubt}", WARNING, self._item.name) for doubt in doubts]
        except InputError as error:
            found.append(self._error(f"'{self._item.name}': {error}"))
        return image

    def _map(self, what: str, path: Path, image: Volume) -> Iterator[Problem]:
        """Yield what is wrong with a label map, a pseudo-label or supervoxels."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                array = label_volume(path, image, f"{what} of '{self._item.name}'").array
        except InputError as error:
            yield self._error(f"'{self._item.name}': {error}")
            return
        values, counts = np.unique(array, return_counts=True)
        if not np.isfinite(values).all() or (values != np.rint(values)).any() or (values < 0).any():
            yield self._error(f"The {what} of '{self._item.name}' must hold whole numbers from 0 on.")
            return
        held = {int(value): int(count) for value, count in zip(values, counts, strict=True) if value}
        yield from {"label": self._labels, "pseudo-label": self._predictions}.get(what, self._numbers)(held)

    def _labels(self, held: dict[int, int]) -> Iterator[Problem]:
        unknown = sorted(set(held) - set(self._item.classes))
        if unknown:
            yield Problem(
                f"The label of '{self._item.name}' has values that 'labels' does not explain: {_listed(unknown)}; "
                "these voxels count as unknown.",
                WARNING,
                self._item.name,
            )
        if not set(held) & set(self._item.classes):
            yield self._error(f"The label of '{self._item.name}' is empty: no voxel belongs to a structure.")

    def _predictions(self, held: dict[int, int]) -> Iterator[Problem]:
        unknown = sorted(value for value in held if value not in catalogue() and value != IGNORE)
        if unknown:
            yield self._error(
                f"The pseudo-label of '{self._item.name}' has values that are no classes: {_listed(unknown)}."
            )
        yield from self._numbers(held)

    def _numbers(self, held: dict[int, int]) -> Iterator[Problem]:
        if not held:
            yield _warn(self._item, "has an empty map of supervoxels or pseudo-labels")

    def _error(self, text: str) -> Problem:
        return Problem(text, case=self._item.name)


def _warn(item: DataItem, what: str) -> Problem:
    return Problem(f"'{item.name}' {what}.", WARNING, item.name)


def _read(path: Path) -> Volume:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Volume.read(path)


def _listed(things: Sequence[object]) -> str:
    shown = ", ".join(f"'{one}'" if isinstance(one, str) else str(one) for one in things[:_MOST_LISTED])
    return shown if len(things) <= _MOST_LISTED else f"{shown} and {len(things) - _MOST_LISTED} more"
