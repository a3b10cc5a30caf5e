"""The segmentation that clicks correct: one of its segments changes, the others are kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.anatomy.structure import Structure, new_object
from VISTA3DCore.imaging.seg_reading import StoredSegment, StoredSegmentation
from VISTA3DCore.imaging.segmentation import Segmentation

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue
    from VISTA3DCore.imaging.volume import Volume


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
        """Read a file; see :func:`VISTA3DCore.imaging.seg_reading.read_mask`.

        :raises InputError: if the file, the segment or the geometry cannot be used, or the segment is empty.
        """
        stored = StoredSegmentation.read(path)
        found = stored.find(structure, segment)
        return cls(stored, found, stored.mask(found, volume, resample), resample)

    def identity(self, known: Catalogue) -> Structure:
        """Return what the segment is: a structure of the catalogue, or an object of its own name."""
        found = self.stored.structure(self.segment, known)
        is_label = self.segment.id == str(self.segment.value)
        names = {} if is_label else {"name": self.segment.name, "display_name": self.segment.name}
        return found or replace(new_object(), **names)

    def others(self, edited: Structure, known: Catalogue) -> dict[StoredSegment, Structure]:
        """Return the other segments that are structures of the catalogue, each structure once."""
        found: dict[int, tuple[StoredSegment, Structure]] = {}
        left_out = []
        for segment in self.stored.segments:
            structure = self.stored.structure(segment, known)
            if segment is self.segment:
                continue
            if structure is None or structure.index in (edited.index, *found):
                left_out.append(f"'{segment.name}'")
            else:
                found[structure.index] = segment, structure
        if left_out:
            reason = "the catalogue does not know them, or they are there twice"
            warnings.warn(f"Not in the result, because {reason}: {', '.join(left_out)}.", UserWarning, stacklevel=2)
        return dict(found.values())


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
    labels, masks = mask.astype(np.uint16) * np.uint16(edited.index), {}
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
