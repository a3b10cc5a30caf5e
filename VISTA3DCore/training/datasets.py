"""Labelled CTs for training: where they are, what their labels mean, and the arrays that patches are cut from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRanged,
    Spacingd,
    SpatialPadd,
)

from VISTA3DCore.errors import InputError
from VISTA3DCore.network.config import ModelConfig

IGNORE = 255
"""Label of voxels about which nothing is known, such as those outside the field of view."""

FIRST_UNION = 140
"""Labels from here on stand for unions of classes, such as "left lung" (both of its lobes)."""


@dataclass(frozen=True)
class Case:
    """One CT with its labels.

    :param name: for messages.
    :param image: image file, HU.
    :param label: label file on the same grid.
    :param classes: file's label value -> class indices; more than one where the value is a union.
    :param complete: True if every trained class was annotated, so that unlabelled voxels are background; False if
        only the listed structures were.
    :param weight: how often the case is drawn, relative to the others.
    """

    name: str
    image: Path
    label: Path
    classes: dict[int, tuple[int, ...]]
    complete: bool
    weight: float = 1.0


@dataclass(frozen=True)
class LoadedCase:
    """A case on the model grid.

    :param image: [1, i, j, k] float32, scaled to [0, 1].
    :param label: [1, i, j, k] uint8: 0 background, class index, ``FIRST_UNION`` + n, or ``IGNORE``.
    :param unions: members of each union.
    :param annotated: labels that occur in this case's protocol.
    """

    case: Case
    image: np.ndarray
    label: np.ndarray
    unions: tuple[tuple[int, ...], ...]
    annotated: tuple[int, ...]

    def members(self, label: int) -> tuple[int, ...]:
        """Return the classes that a label stands for."""
        return self.unions[label - FIRST_UNION] if label >= FIRST_UNION else (label,)


def read_index(folder: Path, split: str = "train") -> list[Case]:
    """Return the labelled cases of a data folder that has an ``index.json``.

    Each entry gives ``id``, ``split``, ``image``, ``label``, ``vista3d_ids`` (value -> class indices) and
    ``label_protocol``, which starts with "totalsegmentator" where all classes were annotated.

    :raises InputError: if the folder has no index.
    """
    index = folder / "index.json"
    if not index.is_file():
        raise InputError(f"The data folder '{folder}' has no index.json.")
    entries = [
        entry
        for entry in json.loads(index.read_text(encoding="utf-8"))
        if entry["split"] == split and entry.get("vista3d_ids")
    ]
    return [_case(folder, entry) for entry in entries]


def _case(folder: Path, entry: dict) -> Case:
    complete = entry["label_protocol"].startswith("totalsegmentator")
    classes = {int(value): tuple(ids) for value, ids in entry["vista3d_ids"].items()}
    return Case(entry["id"], folder / entry["image"], folder / entry["label"], classes, complete)


def load_case(case: Case, config: ModelConfig, minimum_size: int) -> LoadedCase:
    """Bring a case to the model grid: RAS, model spacing, intensities in [0, 1], padded to ``minimum_size``.

    Padding repeats the border in the image and is ``IGNORE`` in the label.

    :raises InputError: if image and label have different grids.
    """
    low, high = config.intensity_range
    keys = ("image", "label")
    loaded = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=config.spacing, mode=("bilinear", "nearest")),
            ScaleIntensityRanged("image", low, high, 0.0, 1.0, clip=True),
            SpatialPadd("image", (minimum_size,) * 3, mode="edge"),
            SpatialPadd("label", (minimum_size,) * 3, constant_values=IGNORE),
        ]
    )({"image": str(case.image), "label": str(case.label)})
    image, label = (np.asarray(loaded[key]) for key in keys)
    if image.shape != label.shape:
        raise InputError(f"Image and label of '{case.name}' have different grids: {image.shape} and {label.shape}.")
    mapped, unions = _map_labels(label, case.classes)
    annotated = tuple(int(value) for value in np.unique(mapped) if value not in (0, IGNORE))
    return LoadedCase(case, image.astype(np.float32), mapped, unions, annotated)


def _map_labels(label: np.ndarray, classes: dict[int, tuple[int, ...]]) -> tuple[np.ndarray, tuple]:
    """Replace file values by class indices or union labels; values without a class become background."""
    unions = tuple(sorted({ids for ids in classes.values() if len(ids) > 1}))
    table = np.zeros(256, np.uint8)
    table[IGNORE] = IGNORE
    for value, ids in classes.items():
        table[value] = ids[0] if len(ids) == 1 else FIRST_UNION + unions.index(ids)
    return table[np.rint(label).astype(np.int64).clip(0, IGNORE)], unions


def trained_classes(cases: Sequence[LoadedCase], minimum_voxels: int) -> tuple[int, ...]:
    """Return the classes that completely annotated cases show with at least ``minimum_voxels`` voxels in all."""
    counts = np.zeros(256, np.int64)
    for case in cases:
        if case.case.complete:
            counts += np.bincount(case.label.ravel(), minlength=256)
    return tuple(int(index) for index in np.flatnonzero(counts[:FIRST_UNION] >= minimum_voxels) if index > 0)
