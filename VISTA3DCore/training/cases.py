"""List the cases of data lists that training learns from and validates with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.data_list import DataItem, DataList

_PLANNED = re.compile(r"[PCI]TV", re.IGNORECASE)


@dataclass(frozen=True)
class Case:
    """One CT with its labels.

    :param name: for messages.
    :param image: image file, HU; None for a label map alone, from which CTs are painted.
    :param label: label file on the same grid; None for a CT without labels, which supervoxels can still teach from.
    :param classes: file's label value -> class indices; several where the value is a union, none where the catalogue
        does not know the object. Voxels with other values are ``IGNORE``.
    :param complete: True if every trained class was annotated, so that unlabelled voxels are background; False if
        only the listed structures were.
    :param weight: how often the case is drawn, relative to the others.
    :param pseudo_label: label map on the same grid that a model predicted, values are class indices; None if there is
        none or it is not to be relied on.
    :param supervoxel: map of supervoxels on the same grid, 0 = none.
    :param fold: of cross-validation.
    :param dataset: the dataset that it belongs to; the paper's sampling weights go by it.
    :param predicted: classes that the model behind ``pseudo_label`` looked for; None: those of the default run.
    """

    name: str
    image: Path | None
    label: Path | None
    classes: Mapping[int, tuple[int, ...]] = field(hash=False)
    complete: bool
    weight: float = 1.0
    pseudo_label: Path | None = None
    supervoxel: Path | None = None
    fold: int | None = None
    dataset: str = ""
    predicted: tuple[int, ...] | None = None


def case_of(item: DataItem, dataset: str = "") -> Case:
    """Return an entry of a data list as a case.

    Groups of the catalogue ("kidney") become unions of their members. Planning volumes of radiotherapy are left out:
    they are margins that somebody drew, nothing that a network could see.
    """
    seen = {value for value, ids in item.classes.items() if ids or not _PLANNED.match(item.names.get(value, ""))}
    return Case(
        name=item.name,
        image=item.image,
        label=item.label,
        classes={value: _leaves(ids) for value, ids in item.classes.items() if value in seen},
        complete=item.complete,
        weight=item.weight,
        pseudo_label=item.pseudo_label,
        supervoxel=item.supervoxel,
        fold=item.fold,
        dataset=dataset,
        predicted=item.predicted,
    )


def _leaves(indices: tuple[int, ...]) -> tuple[int, ...]:
    known = catalogue()
    found = (known[index].members or (index,) if index in known else (index,) for index in indices)
    return tuple(dict.fromkeys(leaf for leaves in found for leaf in leaves))


def split_cases(data: Sequence[DataList], fold: int | None = None) -> tuple[list[Case], list[Case]]:
    """Return the cases to learn from and those to validate with, of several datasets.

    :param fold: the fold to validate with; None learns from all of section ``training`` and validates with section
        ``validation``, where there is one. Label maps without an image go with their fold and validate nothing.
    :raises InputError: if nothing is left to learn from, or the fold has nothing to validate with.
    """
    cases = [case_of(item, one.name) for one in data for item in one.training]
    usable = [case for case in cases if case.label or case.pseudo_label or case.supervoxel]
    if fold is None:
        held_out = [case_of(item, one.name) for one in data for item in one.validation if item.label]
    else:
        held_out = [case for case in usable if case.fold == fold and case.label]
    left_out, held_out = held_out, [case for case in held_out if case.image is not None]
    learned = [case for case in usable if fold is None or case.fold != fold]
    if not learned:
        beside = "" if fold is None else f" outside fold {fold}"
        raise InputError(f"The data lists hold no training case{beside}; give 'training' entries with labels.")
    if fold is not None and not left_out:
        raise InputError(f"Fold {fold} has no labeled case to validate with; {_known_folds(usable)}.")
    return learned, held_out


def _known_folds(cases: Iterable[Case]) -> str:
    folds = sorted({case.fold for case in cases if case.fold is not None})
    return f"the folds of the data are: {', '.join(map(str, folds))}" if folds else "no entry of the data has a 'fold'"
