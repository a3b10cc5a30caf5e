"""Load labeled CTs for training: what their labels mean, and the arrays that patches are cut from.

Every array of a case uses the same codes, whatever its file holds:

* 0: none of the structures that the dataset annotates;
* 1 to 139: a class of the catalogue;
* from ``FIRST_UNION`` on: a union of classes ("left lung": both lobes), or an object that the catalogue does not know;
* ``IGNORE``: nothing is known.

Where not everything was annotated, 0 says nothing about the other structures: they are never asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine, to_ras
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.preprocessing import preprocess
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import Case

IGNORE = 255
"""Label of voxels about which nothing is known, such as those outside the field of view."""

FIRST_UNION = 140
"""Labels from here on stand for unions of classes, such as "left lung" (both of its lobes), or for unknown objects."""

GRID_TOLERANCE = 0.05
"""Corners of an image and its label map may differ by this part of a voxel: headers are rounded."""

WHOLE_TOLERANCE = 1e-3
"""Values of a label map that are stored as scaled numbers may differ from whole numbers by this much."""


@dataclass(frozen=True)
class LabelMeaning:
    """What the codes in the arrays of one case mean.

    :param unions: members of each code from ``FIRST_UNION`` on; an empty one is an object without class.
    :param annotated: codes that the dataset annotates, whether or not they occur in this case.
    :param complete: see :class:`Case`.
    :param predicted: see :class:`Case`.
    """

    unions: tuple[tuple[int, ...], ...] = ()
    annotated: tuple[int, ...] = ()
    complete: bool = False
    predicted: tuple[int, ...] | None = None

    def members(self, label: int) -> tuple[int, ...]:
        """Return the classes that a code stands for; none for 0, ``IGNORE`` and unknown objects."""
        if label in (0, IGNORE):
            return ()
        return self.unions[label - FIRST_UNION] if label >= FIRST_UNION else (label,)

    @property
    def objects(self) -> tuple[int, ...]:
        """Codes of objects that the catalogue does not know: they can be clicked, but not asked for by class."""
        return tuple(FIRST_UNION + n for n, members in enumerate(self.unions) if not members)


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """A case on the model grid.

    :param image: [1, i, j, k] float32, scaled to [0, 1]; all 0 where the case is a label map alone.
    :param label: [1, i, j, k] uint8: the codes of this module.
    :param unions: members of each union.
    :param annotated: codes that belong to this case's protocol and can be asked for.
    :param pseudo_label: as ``label``, or None. Where the dataset annotates something, it agrees with ``label``.
    :param supervoxel: [1, i, j, k] int32, 0 = none, or None.
    """

    case: Case
    image: np.ndarray
    label: np.ndarray
    unions: tuple[tuple[int, ...], ...]
    annotated: tuple[int, ...]
    pseudo_label: np.ndarray | None = None
    supervoxel: np.ndarray | None = None

    @property
    def meaning(self) -> LabelMeaning:
        """What the codes mean, without the arrays."""
        return LabelMeaning(self.unions, self.annotated, self.case.complete, self.case.predicted)

    def members(self, label: int) -> tuple[int, ...]:
        """Return the classes that a label stands for."""
        return self.meaning.members(label)


@dataclass(frozen=True, eq=False)
class PatchData:
    """What a step of training sees of one case: one window of the model.

    :param image: [i, j, k] float32, scaled to [0, 1].
    :param label: [i, j, k] uint8, the codes of this module.
    :param meaning: what they mean.
    :param pseudo_label: as ``label``, or None.
    :param supervoxel: [i, j, k] int32, 0 = none, or None.
    :param name: of the case, for messages.
    """

    image: np.ndarray
    label: np.ndarray
    meaning: LabelMeaning
    pseudo_label: np.ndarray | None = None
    supervoxel: np.ndarray | None = None
    name: str = ""


def load_case(case: Case, config: ModelConfig, minimum_size: int | Sequence[int]) -> LoadedCase:
    """Bring a case to the model grid as the engine does before it segments: spacing, foreground crop, [0, 1], RAS.

    Volumes smaller than ``minimum_size`` (voxels) are padded: the image by its border, labels by ``IGNORE``.

    :raises InputError: if a file cannot be read, or label map and image have different grids.
    """
    if case.image is None:
        return _load_label_map(case, config, minimum_size)
    image = Volume.read(case.image)
    grid = preprocess(image, config)
    pad = padding(grid.image.shape, np.broadcast_to(minimum_size, 3))
    padded = np.pad(grid.image, pad, mode="edge")[None]
    unions = unions_of(case.classes)

    def on_grid(path: Path, what: str) -> np.ndarray:
        return nearest(label_volume(path, image, f"{what} of '{case.name}'"), grid.affine, grid.image.shape)

    label = np.zeros(grid.image.shape, np.uint8)
    if case.label is not None:
        label = coded(on_grid(case.label, "label"), case.classes, unions)
    padded_label = np.pad(label, pad, constant_values=IGNORE)[None]
    loaded = LoadedCase(case, padded, padded_label, unions, annotated_of(case.classes))
    if case.pseudo_label is not None:
        pseudo = reconciled(on_grid(case.pseudo_label, "pseudo-label"), label, loaded.meaning)
        loaded = replace(loaded, pseudo_label=np.pad(pseudo, pad, constant_values=IGNORE)[None])
    if case.supervoxel is not None:
        parts = on_grid(case.supervoxel, "supervoxels").astype(np.int32)
        loaded = replace(loaded, supervoxel=np.pad(parts, pad)[None])
    return loaded


def _load_label_map(case: Case, config: ModelConfig, minimum_size: int | Sequence[int]) -> LoadedCase:
    """Bring a label map that has no CT to the model grid."""
    volume = Volume.read(case.label)
    array, affine = to_ras(volume.array, volume.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    ratio = np.asarray(config.spacing) / spacing
    shape = tuple(max(1, round(size / step)) for size, step in zip(array.shape, ratio, strict=True))
    grid = affine @ np.diag([*ratio, 1.0])
    grid[:3, 3] += affine[:3, :3] @ ((ratio - 1) / 2)  # the corners of the two grids coincide
    unions = unions_of(case.classes)
    label = coded(nearest(volume, grid, shape), case.classes, unions)
    pad = padding(shape, np.broadcast_to(minimum_size, 3))
    padded = np.pad(label, pad, constant_values=IGNORE)[None]
    return LoadedCase(case, np.zeros(padded.shape, np.float32), padded, unions, annotated_of(case.classes))


def annotated_of(classes: Mapping[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the codes of what can be asked for by class: everything but unknown objects."""
    codes = codes_of(classes, unions_of(classes))
    return tuple(sorted({codes[value] for value, ids in classes.items() if ids}))


def padding(shape: Sequence[int], minimum: Sequence[int]) -> list[tuple[int, int]]:
    """Return how many voxels to add before and behind each axis, the same on both sides as far as possible."""
    missing = [max(0, int(least) - size) for size, least in zip(shape, minimum, strict=True)]
    return [(count // 2, count - count // 2) for count in missing]


def label_volume(path: Path, image: Volume, what: str) -> Volume:
    """Read a label map and check that it lies on the grid of an image; flipped or permuted storage is the same grid.

    :param what: begins the sentence of an error, such as "label of 'liver_3'".
    :raises InputError: if it cannot be read, has another grid, or holds other values than whole numbers from 0 on.
    """
    try:
        volume = Volume.read(path)
    except InputError as error:
        raise InputError(f"The {what} cannot be read: {error}") from error
    _check_whole(volume.array, what)
    (own, own_affine), (others, others_affine) = (to_ras(one.array, one.affine) for one in (volume, image))
    if own.shape == others.shape:
        corner = np.array([[0, 0, 0], own.shape])
        to_image = np.linalg.solve(others_affine, own_affine)
        if np.abs(apply_affine(to_image, corner) - corner).max() <= GRID_TOLERANCE:
            return volume
    sizes = [" x ".join(map(str, one.shape)) for one in (own, others)]
    spacings = [" x ".join(f"{length:.4g}" for length in one.spacing) for one in (volume, image)]
    raise InputError(
        f"The {what} and its image have different grids: {sizes[0]} voxels of {spacings[0]} mm and {sizes[1]} voxels "
        f"of {spacings[1]} mm, or another position; resample one of them."
    )


def _check_whole(array: np.ndarray, what: str) -> None:
    """:raises InputError: if values are no whole numbers, as after linear interpolation, or negative."""
    if array.dtype.kind == "f":
        off = ~(np.abs(array - np.rint(array)) <= WHOLE_TOLERANCE)
        if off.any():
            raise InputError(
                f"The {what} must hold whole numbers from 0 on, and {np.count_nonzero(off):,} of its voxels do not, "
                f"such as {array[off][0]:g}; if it was resampled, use nearest-neighbor interpolation."
            )
    if array.size and array.min() < -WHOLE_TOLERANCE:
        raise InputError(f"The {what} must hold whole numbers from 0 on; it holds {array.min():g}.")


def nearest(labels: Volume, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the voxels of a label map that lie nearest to those of a grid, [i, j, k] of the grid's shape.

    :param affine: of the grid, 4x4, voxel index -> RAS mm; parallel to the axes of the label map but for rounding.
    """
    array, own_affine = to_ras(labels.array, labels.affine)
    mapping = np.linalg.solve(own_affine, affine)
    lines = []
    for axis, size in enumerate(shape):
        steps = mapping[axis, axis] * np.arange(size) + mapping[axis, 3]
        lines.append(np.rint(steps).astype(np.intp).clip(0, array.shape[axis] - 1))
    return np.ascontiguousarray(array[np.ix_(*lines)])


def unions_of(classes: Mapping[int, tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return what the codes from ``FIRST_UNION`` on stand for; each unknown object has one of its own."""
    unknown = [ids for ids in classes.values() if not ids]
    return (*sorted({ids for ids in classes.values() if len(ids) > 1}), *unknown)


def codes_of(classes: Mapping[int, tuple[int, ...]], unions: tuple[tuple[int, ...], ...]) -> dict[int, int]:
    """Return the code of each label value of a file.

    :raises InputError: if there are more classes or unions than codes.
    """
    unknown = iter(FIRST_UNION + n for n, members in enumerate(unions) if not members)
    codes = {}
    for value, ids in classes.items():
        if len(ids) == 1:
            codes[value] = ids[0]
        else:
            codes[value] = FIRST_UNION + unions.index(ids) if ids else next(unknown)
    too_high = any(ids[0] >= FIRST_UNION for ids in classes.values() if len(ids) == 1)
    if too_high or FIRST_UNION + len(unions) > IGNORE:
        raise InputError(
            f"Training knows classes below {FIRST_UNION} and at most {IGNORE - FIRST_UNION} unions and other objects "
            "in one dataset; map its labels to fewer or lower indices."
        )
    return codes


def coded(label: np.ndarray, classes: Mapping[int, tuple[int, ...]], unions: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """Replace the values of a label file by codes; values that have no meaning become ``IGNORE``.

    :param label: [i, j, k], any real type.
    """
    codes = {0: 0, **codes_of(classes, unions)}
    values, places = np.unique(np.rint(label).astype(np.int64), return_inverse=True)
    table = np.array([codes.get(int(value), IGNORE) for value in values], np.uint8)
    return table[places].reshape(label.shape)


def reconciled(pseudo: np.ndarray, label: np.ndarray, meaning: LabelMeaning) -> np.ndarray:
    """Let annotations overrule predictions.

    What the dataset annotates counts wherever it is and wherever it is not; predictions fill in the rest.

    :param pseudo: [i, j, k] class indices, ``IGNORE`` where the predictions are not to be relied on.
    :param label: [i, j, k] codes.
    :return: [i, j, k] codes, uint8.
    """
    known = {member for code in meaning.annotated for member in meaning.members(code)}
    table = np.zeros(IGNORE + 1, np.uint8)
    table[IGNORE] = IGNORE
    for index in range(1, FIRST_UNION):
        table[index] = 0 if index in known else index
    predicted = table[np.rint(pseudo).astype(np.int64).clip(0, IGNORE)]
    return np.where(label == 0, predicted, label)


def trained_classes(cases: Iterable[LoadedCase], minimum_voxels: int) -> tuple[int, ...]:
    """Return the classes that completely annotated cases show with at least ``minimum_voxels`` voxels in all."""
    counts = np.zeros(IGNORE + 1, np.int64)
    for case in cases:
        if case.case.complete:
            counts += np.bincount(case.label.ravel(), minlength=IGNORE + 1)
    return tuple(int(index) for index in np.flatnonzero(counts[:FIRST_UNION] >= minimum_voxels) if index > 0)


def shown_classes(cases: Iterable[LoadedCase]) -> set[int]:
    """Return the classes, and the members of unions, that the annotations of any case show."""
    found: set[int] = set()
    for case in cases:
        codes = np.flatnonzero(np.bincount(case.label.ravel(), minlength=IGNORE + 1)[1:IGNORE]) + 1
        found.update(member for code in codes.tolist() for member in case.meaning.members(code))
    return found
