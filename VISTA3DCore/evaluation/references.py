"""Reference label maps: which voxels are which structure, alone or in a data list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from VISTA3DCore.anatomy.catalogue import Catalogue, Structure
from VISTA3DCore.errors import InputError, UnknownStructureError
from VISTA3DCore.evaluation.data_list import DataItem, read_json
from VISTA3DCore.imaging.formats.seg_reading import StoredSegment, StoredSegmentation
from VISTA3DCore.imaging.geometry import apply_affine, spacing_of
from VISTA3DCore.imaging.placing import place
from VISTA3DCore.imaging.volume import Volume

# Grids are the same if no voxel lies farther apart than this share of the smallest spacing: rounding in headers.
_GRID_TOLERANCE = 0.05
# Where a reference labels a part on its own, the whole contains it: hepatic vessel and tumor in the liver, pancreatic
# tumor, trachea in the airway (MERGE_LIST, upstream vista3d/scripts/utils/workflow_utils.py).
_PARTS = {1: (25, 26), 4: (24,), 132: (57,)}


@dataclass(frozen=True)
class Meaning:
    """What a label value stands for: a name, and the indices of the structures that it holds (none if unknown)."""

    name: str
    indices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Target:
    """One structure of a reference.

    :param name: for reports.
    :param values: the label values that make it up; all of them occur.
    :param structure: what the model may be told; None for an object of which it is told nothing.
    """

    name: str
    values: tuple[int, ...]
    structure: Structure | None = None

    @property
    def known(self) -> Structure:
        """The structure of a target that is no unknown object."""
        assert self.structure is not None
        return self.structure


class Reference:
    """Label maps and what their values stand for.

    :param layers: integers [i, j, k] on the image's grid; several where structures overlap.
    :param meanings: value -> :class:`Meaning`; None: values are catalogue indices.
    """

    def __init__(
        self, layers: Sequence[np.ndarray], meanings: Mapping[int, Meaning] | None, catalogue: Catalogue
    ) -> None:
        present = sorted({int(value) for labels in layers for value in np.unique(labels) if value})
        if meanings is None:
            meanings = {one.index: Meaning(one.name, (one.index,)) for one in catalogue}
        self._layers, self._catalogue = layers, catalogue
        self._meanings = {value: meanings[value] for value in present if value in meanings}

    @property
    def names(self) -> tuple[str, ...]:
        """What the reference holds, by value."""
        return tuple(meaning.name for meaning in self._meanings.values())

    def targets(self, requests: Iterable[str], available: Iterable[int]) -> list[Target]:
        """Return the structures asked for that both the reference and the model know.

        :param requests: names as :meth:`Catalogue.resolve` takes them; ``everything`` stands for all of the reference.
        :param available: indices of the model.
        :raises UnknownStructureError: for an unknown name, or one that the model does not know.
        """
        known = set(available)
        wanted: list[Structure] = []
        for request in requests:
            wanted += self._all_known(known) if _is_everything(request) else self._catalogue.resolve(request, known)
        targets = (Target(one.name, self._values_of(one), one) for one in unique(wanted))
        return [target for target in targets if target.values]

    def objects(self, requests: Iterable[str]) -> list[Target]:
        """Return what is asked for as objects of which the model is told nothing (zero-shot).

        :param requests: names in the reference or of the catalogue; ``everything`` stands for all of the reference.
        """
        names: list[str] = []
        for request in requests:
            names += self.names if _is_everything(request) else self._names_for(request)
        return [Target(name, self._values_named(name)) for name in unique(names)]

    def structure_of(self, target: Target) -> Structure | None:
        """Return the one structure that a target's values stand for, whatever the reference calls it; or None."""
        if target.structure is not None:
            return target.structure
        meant = {self._meanings[value].indices for value in target.values}
        single = len(meant) == 1 and len(next(iter(meant))) == 1
        return self._catalogue[next(iter(meant))[0]] if single else None

    def mask(self, target: Target) -> np.ndarray:
        """Return a target's voxels, bool [i, j, k]."""
        return np.logical_or.reduce([np.isin(labels, target.values) for labels in self._layers])

    def _all_known(self, known: set[int]) -> list[Structure]:
        single = [meaning.indices[0] for meaning in self._meanings.values() if len(meaning.indices) == 1]
        return [self._catalogue[index] for index in single if index in known]

    def _names_for(self, request: str) -> list[str]:
        exact = [name for name in self.names if name.lower() == request.lower()]
        if exact:
            return exact
        try:
            indices = {(one.index,) for one in self._catalogue.resolve(request)}
        except UnknownStructureError:
            return []
        return [meaning.name for meaning in self._meanings.values() if meaning.indices in indices]

    def _values_named(self, name: str) -> tuple[int, ...]:
        return tuple(value for value, meaning in self._meanings.items() if meaning.name == name)

    def _values_of(self, structure: Structure) -> tuple[int, ...]:
        """Return the values of a structure and of what belongs to it; none without the structure itself."""
        own = {(structure.index,)}
        if own.isdisjoint(meaning.indices for meaning in self._meanings.values()):
            return ()
        if self._catalogue.name == "vista3d-ct":
            own |= {(part,) for part in _PARTS.get(structure.index, ())}
        return tuple(value for value, meaning in self._meanings.items() if meaning.indices in own)


def read_reference(item: DataItem, volume: Volume, catalogue: Catalogue) -> Reference:
    """Read the reference of a case on the grid of its image.

    Without meanings in the data list, label values are catalogue indices. A segmentation of Slicer (``.seg.nrrd``)
    names its own segments; what the data list says of values is not used then.

    :param item: with a label map.
    :raises InputError: if it cannot be read, holds no whole numbers, or has another geometry.
    """
    assert item.label is not None
    if not item.label.name.lower().endswith(".seg.nrrd"):
        meanings = {value: Meaning(item.names.get(value, str(value)), ids) for value, ids in item.classes.items()}
        return Reference([read_labels(item.label, volume)], meanings or None, catalogue)
    stored = StoredSegmentation.read(item.label)
    numbers = {segment: number for number, segment in enumerate(stored.segments, 1)}
    try:
        layers = list(stored.label_maps(numbers, volume))
    except InputError as error:
        raise _other_geometry(item.label, volume) from error
    return Reference(layers, {number: _segment(one, catalogue) for one, number in numbers.items()}, catalogue)


def read_labels(path: Path, volume: Volume) -> np.ndarray:
    """Read a reference label map (NIfTI, NRRD, MHA) on the grid of an image; its axes may be stored otherwise.

    :return: integers [i, j, k].
    :raises InputError: if it cannot be read, holds no whole numbers, or has another geometry.
    """
    reference = Volume.read(path)
    labels = _whole_numbers(reference.array, path)
    if reference.shape == volume.shape and _same_place(reference.affine, volume.affine, volume.shape):
        return labels
    return _reoriented(labels, reference.affine, volume, path)


def _whole_numbers(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    whole = np.rint(array)
    if not np.array_equal(whole, array):
        raise InputError(f"The reference '{path.name}' holds fractions; a label map of whole numbers is needed.")
    return whole.astype(np.int32)


def _reoriented(labels: np.ndarray, affine: np.ndarray, volume: Volume, path: Path) -> np.ndarray:
    """Return labels of the same voxels that are stored along other axes: DICOM beside NIfTI, for instance."""
    try:
        present = place(np.ones(labels.shape, dtype=bool), affine, volume, path.name)
    except InputError as error:
        raise _other_geometry(path, volume) from error
    if labels.size != volume.array.size or not present.all():
        raise _other_geometry(path, volume)
    return place(labels, affine, volume, path.name)


def read_meanings(path: Path, catalogue: Catalogue) -> dict[int, Meaning]:
    """Read what label values stand for from JSON: ``{"1": "liver", "2": 14, "3": [30, 31, 32], "4": "my lesion"}``.

    A name that the catalogue does not know stands for an object without class. Lists are unions of structures.

    :raises InputError: if the file cannot be read or does not have this form.
    """
    table = read_json(path)
    if not isinstance(table, dict):
        raise InputError(f'\'{path.name}\' must map label values to structures, such as {{"1": "liver"}}.')
    try:
        return {int(value): _meaning(entry, catalogue) for value, entry in table.items()}
    except (ValueError, TypeError) as error:
        raise InputError(f"'{path.name}' must map whole numbers to names, indices or lists of indices.") from error


def labeled_image(image: Path, labels: Path, meanings: Mapping[int, Meaning] | None = None) -> DataItem:
    """Return one image with its label map as a case.

    :param meanings: what the values stand for; None: they are catalogue indices.
    """
    classes = {value: meaning.indices for value, meaning in (meanings or {}).items()}
    names = {value: meaning.name for value, meaning in (meanings or {}).items()}
    return DataItem(image.name, image, labels, classes, names)


def unique(items: Iterable) -> list:
    """Return the items without repetitions, in order."""
    return list(dict.fromkeys(items))


def _meaning(entry: Any, catalogue: Catalogue) -> Meaning:
    if isinstance(entry, list):
        members = [catalogue.find(one) for one in entry]
        return Meaning(" + ".join(one.name for one in members), tuple(one.index for one in members))
    if isinstance(entry, bool) or not isinstance(entry, (str, int)):
        raise TypeError(entry)
    try:
        structure = catalogue.find(entry)
    except UnknownStructureError:
        if isinstance(entry, int):
            raise
        return Meaning(entry)
    return Meaning(structure.name, (structure.index,))


def _segment(segment: StoredSegment, catalogue: Catalogue) -> Meaning:
    structure = segment.structure(catalogue)
    return Meaning(segment.name, () if structure is None else (structure.index,))


def _other_geometry(path: Path, volume: Volume) -> InputError:
    return InputError(
        f"The reference '{path.name}' has another geometry than the image '{volume.name}'; "
        "resample it onto the image with nearest-neighbour interpolation first."
    )


def _is_everything(request: str) -> bool:
    return request.strip().lower() in ("everything", "all")


def _same_place(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> bool:
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
    apart = np.linalg.norm(apply_affine(first, corners) - apply_affine(second, corners), axis=1)
    return bool(apart.max() <= _GRID_TOLERANCE * spacing_of(second).min())
