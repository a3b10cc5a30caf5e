"""Everything that is wrong with a data list, told at once and before hours are spent."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import TESTING, TRAINING, VALIDATION, DataItem, DataList
from VISTA3DCore.imaging.geometry import to_ras
from VISTA3DCore.imaging.readers import check_ct
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.cases import case_of, split_cases
from VISTA3DCore.training.datasets import IGNORE, codes_of, label_volume, unions_of

ERROR, WARNING = "error", "warning"
_MOST_LISTED = 6
_CHECKED = (TRAINING, VALIDATION, TESTING)


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
    lists: Sequence[DataList],
    model: ModelConfig,
    fold: int | None = None,
    progress: Progress | None = None,
    old: Sequence[DataList] = (),
) -> list[Problem]:
    """Read every file of sections ``training``, ``validation`` and ``testing`` and return everything that is wrong.

    :param model: its classes and label set are what labels must mean.
    :param fold: the fold that is to be held out, if any.
    :param old: lists that are rehearsed (fine-tuning): all of their folds are learned from.
    :return: problems of the lists first, then those of each entry.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress, found, uses = Progress.of(progress), [*_of_split(lists, fold), *_of_split(old, None)], _Uses(fold)
    for data in (*lists, *old):
        found += [*_of_list(data), *_of_folds(data.training, fold), *_of_meanings(data, model)]
    total = sum(len(data.sections.get(section, ())) for data in (*lists, *old) for section in _CHECKED) or 1
    done = 0
    for data in (*lists, *old):
        shown: set[tuple[int, ...]] = set()
        for section in _CHECKED:
            for item in data.sections.get(section, ()):
                progress.update(done / total, "Checking", item.name)
                entry = _Entry(item)
                found += entry.problems()
                uses.add(entry.digest, item, section, data in old)
                shown |= entry.shown if section == TRAINING else set()
                done += 1
        found += _of_shown(data, shown, model)
    found += uses.problems()
    progress.update(1.0, "Checking")
    return found


def has_errors(problems: Sequence[Problem]) -> bool:
    """Whether training must not start."""
    return any(problem.severity == ERROR for problem in problems)


def _of_split(lists: Sequence[DataList], fold: int | None) -> Iterator[Problem]:
    """Yield why the lists cannot be divided into cases to learn from and cases to validate with."""
    if not lists:
        return
    try:
        split_cases(lists, fold)
    except InputError as error:
        yield Problem(str(error))


def _of_list(data: DataList) -> Iterator[Problem]:
    for item in data.training:
        if not (item.label or item.pseudo_label or item.supervoxel):
            yield _warn(item, "has neither label nor supervoxels and teaches nothing")
        if not (np.isfinite(item.weight) and item.weight > 0):
            yield Problem(f"The weight of '{item.name}' is {item.weight:g}; it must be above 0.", case=item.name)


def _of_folds(training: Sequence[DataItem], fold: int | None) -> Iterator[Problem]:
    # A CT that was not annotated cannot validate, so it needs no fold.
    without = [item.name for item in training if item.fold is None and item.label is not None]
    if without and {item.fold for item in training} != {None}:
        text = f"Some entries have a fold and some have none: {_listed(without)} lack 'fold'."
        yield Problem(text, WARNING if fold is None else ERROR)
    for item in training:
        if item.fold is not None and item.fold < 0:
            yield Problem(f"The fold of '{item.name}' is {item.fold}; folds are counted from 0.", case=item.name)


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
    if any(item.label for item in data.training) and not any(classes):
        yield Problem("No label of the list means a class of the model; its objects can only be clicked.", WARNING)
    for item in data.training:
        yield from _of_codes(item)


def _of_codes(item: DataItem) -> Iterator[Problem]:
    meaning = case_of(item).classes
    try:
        codes_of(meaning, unions_of(meaning))
    except InputError as error:
        yield Problem(f"'{item.name}': {error}", case=item.name)


def _of_shown(data: DataList, shown: set[tuple[int, ...]], model: ModelConfig) -> Iterator[Problem]:
    """Yield the structures that labels are said to mean and that no label shows."""
    known = catalogue(model.label_set)
    meant = {ids for item in data.training for ids in case_of(item).classes.values()}
    missing = sorted({index for ids in meant - shown for index in ids} - {index for ids in shown for index in ids})
    names = [known[index].name for index in missing if index in known]
    if any(meant) and not any(shown):
        yield Problem(f"No label of '{data.name}' shows a structure that 'labels' explains.")
    elif names:
        yield Problem(
            f"No label of '{data.name}' shows what 'labels' explains as {_listed(names)}; it is not learned there.",
            WARNING,
        )


class _Uses:
    """Collects what each image is used for, to find those that are used for several things.

    :param fold: the fold that is held out.
    """

    def __init__(self, fold: int | None) -> None:
        self._fold = fold
        self._found: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def add(self, digest: str, item: DataItem, section: str, rehearsed: bool) -> None:
        """Note an entry; ``digest`` is that of its image, or "" if it cannot be read."""
        if not digest or (section == VALIDATION and (rehearsed or self._fold is not None)):
            return
        fold = "" if rehearsed or item.fold is None else f" {item.fold}"
        self._found[digest].append((item.name, f"{section}{fold}" if section == TRAINING else section))

    def problems(self) -> Iterator[Problem]:
        """Yield images that are there more than once."""
        for entries in self._found.values():
            if len(entries) < 2:
                continue
            listed, uses = _listed([name for name, _ in entries]), {use for _, use in entries}
            learned = {use for use in uses if use.startswith(TRAINING)}
            if learned and TESTING in uses:
                yield Problem(f"The same image is learned from and tested on: {listed}.")
            elif learned and VALIDATION in uses:
                yield Problem(f"The same image is learned from and validated with: {listed}.")
            elif len(learned) > 1:
                severity = WARNING if self._fold is None else ERROR
                yield Problem(f"The same image is in several folds: {listed}.", severity)
            else:
                yield Problem(f"The same image is listed several times: {listed}.", WARNING)


class _Entry:
    """Checks the files of one entry.

    After :meth:`problems`, ``digest`` is that of the image's voxels ("": it cannot be read), and ``shown`` holds what
    the values that occur in the label stand for.
    """

    def __init__(self, item: DataItem) -> None:
        self._item = item
        self.digest = ""
        self.shown: set[tuple[int, ...]] = set()

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
        """Return the image, or the label map where it is all that there is."""
        if self._item.image is None:
            return self._label_map(found)
        if not self._item.image.exists():
            found.append(self._error(f"The image of '{self._item.name}' is missing: '{self._item.image}'."))
            return None
        try:
            image = _read(self._item.image)
        except InputError as error:
            found.append(self._error(f"The image of '{self._item.name}' cannot be read: {error}"))
            return None
        self.digest = _digest(image)
        try:
            doubts = check_ct(image)
            found += [Problem(f"'{self._item.name}': {doubt}", WARNING, self._item.name) for doubt in doubts]
        except InputError as error:
            found.append(self._error(f"'{self._item.name}': {error}"))
        return image

    def _label_map(self, found: list[Problem]) -> Volume | None:
        try:
            label = _read(self._item.label) if self._item.label.exists() else None
        except InputError as error:
            found.append(self._error(f"The label of '{self._item.name}' cannot be read: {error}"))
            return None
        self.digest = "" if label is None else _digest(label)
        return label

    def _map(self, what: str, path: Path, image: Volume) -> Iterator[Problem]:
        """Yield what is wrong with a label map, a pseudo-label or supervoxels."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                array = label_volume(path, image, f"{what} of '{self._item.name}'").array
        except InputError as error:
            yield self._error(str(error))
            return
        held = {int(value) for value in np.unique(np.rint(array)) if value}
        yield from {"label": self._labels, "pseudo-label": self._predictions}.get(what, self._numbers)(held)

    def _labels(self, held: set[int]) -> Iterator[Problem]:
        classes = case_of(self._item).classes
        self.shown = {classes[value] for value in held if value in classes}
        unknown = sorted(held - set(self._item.classes))
        if not held:
            text = f"The label of '{self._item.name}' is empty: it teaches that none of its structures is there."
            yield Problem(text, WARNING, self._item.name)
        elif not held & set(self._item.classes):
            explained = _listed(sorted(self._item.classes)) or "nothing"
            yield self._error(
                f"No voxel of the label of '{self._item.name}' belongs to a structure: it holds {_listed(unknown)}, "
                f"and 'labels' explains {explained}."
            )
        elif unknown:
            yield Problem(
                f"The label of '{self._item.name}' has values that 'labels' does not explain: {_listed(unknown)}; "
                "these voxels count as unknown.",
                WARNING,
                self._item.name,
            )

    def _predictions(self, held: set[int]) -> Iterator[Problem]:
        unknown = sorted(value for value in held if value not in catalogue() and value != IGNORE)
        if unknown:
            yield self._error(
                f"The pseudo-label of '{self._item.name}' has values that are no classes: {_listed(unknown)}."
            )
        yield from self._numbers(held)

    def _numbers(self, held: set[int]) -> Iterator[Problem]:
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


def _digest(image: Volume) -> str:
    """Return a digest of the voxels, whatever their type and the order in which they are stored."""
    array, _ = to_ras(image.array, image.affine)
    hasher = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    for index in range(array.shape[2]):
        hasher.update(np.ascontiguousarray(array[:, :, index], np.float32))
    return hasher.hexdigest()


def _listed(things: Sequence[object]) -> str:
    shown = ", ".join(f"'{one}'" if isinstance(one, str) else str(one) for one in things[:_MOST_LISTED])
    return shown if len(things) <= _MOST_LISTED else f"{shown} and {len(things) - _MOST_LISTED} more"
