"""Segmentations in the format of 3D Slicer (.seg.nrrd): names, colours, terminology, overlapping layers.

The keys are those that vtkMRMLSegmentationStorageNode of Slicer 5 reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.imaging.writers import Slices, encode_nrrd, label_dtype

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Structure

_REPRESENTATION = "Binary labelmap"
# What Slicer writes for a segment without voxels: an extent that ends before it starts.
_EMPTY_EXTENT = "0 -1 0 -1 0 -1"


def encode_seg_nrrd(
    file: BinaryIO,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
    structures: Sequence[Structure],
    affine: np.ndarray,
    provenance: Mapping[str, str],
) -> None:
    """Write a segmentation that opens in Slicer with one segment per structure, also for those without voxels.

    :param labels: [i, j, k], value = catalogue index.
    :param masks: masks of the structures that may overlap others.
    :param structures: the segments, in order.
    :param affine: 4x4, voxel index -> RAS mm.
    :param provenance: becomes tags (``VISTA3D.<key>``) of every segment.
    """
    highest = max((structure.index for structure in structures), default=0)
    layers = _Layers(labels, BitMasks.of(masks, labels.shape), structures, label_dtype(highest))
    entries = {
        "Segmentation_ContainedRepresentationNames": f"{_REPRESENTATION}|",
        "Segmentation_MasterRepresentation": _REPRESENTATION,
        "Segmentation_ConversionParameters": _reference_geometry(affine, labels.shape),
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extents = [_extents(layer, highest + 1) for layer in layers.images]
    for number, structure in enumerate(structures):
        layer = layers.place[structure.index]
        extent = extents[layer].get(structure.index, _EMPTY_EXTENT)
        segment = _segment_entries(structure, layer, extent, provenance)
        entries.update({f"Segment{number}_{key}": value for key, value in segment.items()})
    encode_nrrd(file, layers.images, affine, entries)


class _Layers:
    """The layers of a file, made slice by slice: the label map, and masks where they overlap nothing of their layer.

    :param labels: [i, j, k], value = catalogue index. :param dtype: of the file.
    """

    def __init__(self, labels: np.ndarray, masks: BitMasks, structures: Sequence[Structure], dtype: np.dtype) -> None:
        wanted = {structure.index for structure in structures}
        self._labels, self._masks = labels, masks
        # Which labels are segments; the others are left out.
        self._values = np.zeros(int(labels.max(initial=0)) + 1, dtype=dtype)
        known = [index for index in wanted if index < len(self._values)]
        self._values[known] = known
        self._own = sorted(wanted & set(masks))
        #: The layer of each structure.
        self.place = {**dict.fromkeys(wanted, 0), **self._places()}
        count = 1 + max(self.place.values(), default=0)
        self.images = [Slices(labels.shape, dtype, partial(self._slice, layer)) for layer in range(count)]

    def _places(self) -> dict[int, int]:
        """Put each mask into the first layer where it overlaps nothing."""
        overlaps = self._overlaps()
        place: dict[int, int] = {}
        for number, index in enumerate(self._own):
            taken = {0} if overlaps[number, -1] else set()
            taken |= {place[other] for at, other in enumerate(self._own[:number]) if overlaps[number, at]}
            place[index] = next(layer for layer in range(len(taken) + 1) if layer not in taken)
        return place

    def _overlaps(self) -> np.ndarray:
        """Return which masks share a voxel with which, and, in the last column, with the label map: bool [n, n + 1]."""
        count = len(self._own)
        found = np.zeros((count, count + 1), dtype=bool)
        for k in range(self._labels.shape[2] if count else 0):
            planes = [self._masks.plane(index, k) for index in self._own]
            labelled = self._values[self._labels[:, :, k]] > 0
            for one, plane in enumerate(planes):
                if not plane.any():
                    continue
                found[one, -1] |= bool(np.any(plane & labelled))
                for other in np.flatnonzero(~found[one, :one]):
                    found[one, other] = bool(np.any(plane & planes[other]))
        return found

    def _slice(self, layer: int, k: int) -> np.ndarray:
        plane = (
            self._values[self._labels[:, :, k]]
            if layer == 0
            else np.zeros_like(self._values, shape=self._labels.shape[:2])
        )
        for index in self._own:
            if self.place[index] == layer:
                plane[self._masks.plane(index, k)] = index
        return plane


def _extents(layer: Slices, count: int) -> dict[int, str]:
    """Return the inclusive extent "i0 i1 j0 j1 k0 k1" of each label, from the ends of the runs of equal labels.

    :param count: labels are smaller.
    """
    present = [np.zeros((count, size), dtype=bool) for size in layer.shape]
    for k in range(layer.shape[2]):
        labels, first, last = _runs(layer.at(k))
        for voxels in (first, last):
            present[0][labels, voxels % layer.shape[0]] = True
        present[1][labels, first // layer.shape[0]] = True
        present[2][labels, k] = True
    return {int(label): _extent(int(label), present) for label in np.flatnonzero(present[2].any(axis=1))}


def _runs(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return label, first and last voxel (i fastest) of each run of one label along i; the background has none."""
    flat = plane.ravel(order="F")
    starts = np.empty(flat.shape, dtype=bool)
    starts[1:] = flat[1:] != flat[:-1]
    starts[:: plane.shape[0]] = True
    first = np.flatnonzero(starts)
    last = np.append(first[1:], flat.size) - 1
    inside = flat[first] > 0
    return flat[first][inside], first[inside], last[inside]


def _extent(label: int, present: list[np.ndarray]) -> str:
    places = [np.flatnonzero(axis[label]) for axis in present]
    return " ".join(f"{place[0]} {place[-1]}" for place in places)


def _segment_entries(structure: Structure, layer: int, extent: str, provenance: Mapping[str, str]) -> dict[str, str]:
    tags = {"TerminologyEntry": structure.terminology_entry(), "VISTA3D.index": str(structure.index)}
    tags.update({f"VISTA3D.{key}": value for key, value in provenance.items()})
    return {
        "ID": structure.name.replace(" ", "_"),
        "Name": structure.display_name,
        "NameAutoGenerated": "0",
        "Color": " ".join(f"{channel / 255:.6g}" for channel in structure.color),
        "ColorAutoGenerated": "0",
        "Extent": extent,
        "LabelValue": str(structure.index),
        "Layer": str(layer),
        # "|" separates tags, so it cannot be part of one.
        "Tags": "".join(f"{key}:{value.replace('|', '/')}|" for key, value in tags.items()),
    }


def _reference_geometry(affine: np.ndarray, shape: tuple[int, ...]) -> str:
    """Serialize the grid as vtkSegmentationConverter::SerializeImageGeometry does."""
    numbers = [repr(float(value)) for value in np.asarray(affine, dtype=np.float64).ravel()]
    extent = [str(bound) for size in shape for bound in (0, size - 1)]
    return f"Reference image geometry|{';'.join(numbers + extent)};|Geometry of the image that was segmented.&"
