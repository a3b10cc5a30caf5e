"""The segmentation that clicks correct: one of its segments changes, the others are kept."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.anatomy.structure import NEW_OBJECT_INDEX, Structure, new_object
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.seg_reading import StoredSegment, StoredSegmentation
from VISTA3DCore.imaging.segmentation import Segmentation

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue
    from VISTA3DCore.imaging.volume import Volume


_HIGHEST_LABEL = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False)
class Base:
    """The segmentation to correct, and which of its segments.

    :param mask: that segment on the grid of the image, bool [i, j, k], not empty.
    :param resample: whether the file's geometry may be another one.
    """

    stored: StoredSegmentation
    segment: StoredSegment
    mask: np.ndarray
    resample: bool

    @classmethod
    def read(cls, path: Path, structure: Structure | None, segment: str | None, volume: Volume, resample: bool) -> Base:
        """Read a file; see :func:`VISTA3DCore.imaging.formats.seg_reading.read_mask`.

        :raises InputError: if the file, the segment or the geometry cannot be used, or the segment is empty.
        """
        stored = StoredSegmentation.read(path)
        found = stored.find(structure, segment)
        return cls(stored, found, stored.mask(found, volume, resample), resample)

    def identity(self, known: Catalogue) -> Structure:
        """Return what the segment is: a structure of the catalogue, or an object of its own name."""
        found = self.stored.structure(self.segment, known)
        is_label = self.segment.id == str(self.segment.value)
        name = self.segment.name
        return found or (new_object() if is_label else replace(new_object(), name=name, display_name=name))

    def others(self, edited: Structure, known: Catalogue) -> dict[StoredSegment, Structure]:
        """Return the other segments, in the file's order; a note tells of those that are no structure of their own.

        A segment that the catalogue does not know, or whose structure is there already, keeps its name, color and
        codes. Its label stays where a label map gives it one that nothing else has, or becomes one above
        :data:`NEW_OBJECT_INDEX`.
        """
        rest = [segment for segment in self.stored.segments if segment is not self.segment]
        found: dict[int, StoredSegment] = {}
        for segment in rest:
            structure = self.stored.structure(segment, known)
            if structure is not None and structure.index not in (edited.index, *found):
                found[structure.index] = segment
        structures = {segment: known[index] for index, segment in found.items()}
        names = {_as_file_name(one.name) for one in (edited, *structures.values())}
        labels = {edited.index, *found}
        kept = []
        for segment in rest:
            if segment not in structures:
                label = self._free_label(segment, labels, known)
                structures[segment] = segment.as_object(label, _unique(segment.name, names))
                labels.add(label)
                kept.append(f"'{segment.name}' (label {label})")
        if kept:
            reason = "though the catalogue does not know them, or they are there twice"
            warnings.warn(f"Kept as they are, {reason}: {', '.join(kept)}.", UserWarning, stacklevel=2)
        return {segment: structures[segment] for segment in rest}

    def _free_label(self, segment: StoredSegment, labels: set[int], known: Catalogue) -> int:
        own = segment.value if self.stored.holds_labels else 0
        if 0 < own <= _HIGHEST_LABEL and own not in labels and own not in known:
            return own
        label = next(label for label in range(NEW_OBJECT_INDEX + 1, _HIGHEST_LABEL + 2) if label not in labels)
        if label > _HIGHEST_LABEL:
            raise InputError(f"'{self.stored.name}' holds more segments than a result can; give a base with fewer.")
        return label


def _unique(name: str, taken: set[str]) -> str:
    """Return a name, numbered if another one would give the same name of a file; it is taken from now on."""
    numbered = (f"{name} {number}" for number in itertools.count(2))
    free = next(one for one in itertools.chain([name], numbered) if _as_file_name(one) not in taken)
    taken.add(_as_file_name(free))
    return free


def _as_file_name(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name).casefold()


def corrected(
    edited: Structure,
    mask: np.ndarray,
    others: Mapping[StoredSegment, Structure],
    base: Base | None,
    volume: Volume,
    provenance: Mapping[str, str],
) -> Segmentation:
    """Return a segmentation of the corrected object and the base's other structures, which keep every voxel.

    :param mask: the corrected object, bool [i, j, k].
    :param others: see :meth:`Base.others`; empty without a base.
    """
    labels = mask.astype(np.uint16) * np.uint16(edited.index)
    masks: dict[int, np.ndarray] = {}
    if base is not None and others:
        wanted = {segment: structure.index for segment, structure in others.items()}
        for layer in base.stored.label_maps(wanted, volume, base.resample):
            _merge(layer, labels, masks)
    return Segmentation(labels, masks, (edited, *others.values()), volume.affine, dict(provenance))


def _merge(layer: np.ndarray, labels: np.ndarray, masks: dict[int, np.ndarray]) -> None:
    """Put a label map into another one; structures that overlap what is there become masks of their own."""
    for index in np.unique(layer[(labels > 0) & (layer > 0)]):
        masks[int(index)] = layer == index
        layer[masks[int(index)]] = 0
    np.copyto(labels, layer, where=layer > 0)
