# SPDX-License-Identifier: Apache-2.0
"""Labelmaps that several segments share: translating their labels, putting two together, taking segments out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import slicer

from .boxes import NO_BOX, Ranges, intersection, slices, union
from .labelmaps import array_of, box_of_image, lattice_of, moved, resampled, shift_between, unfilled_image
from .segments import labelmap_name, labelmap_of

# What is done between two chances for the window to breathe: some milliseconds.
_VOXELS_PER_STEP = 1 << 22
_LABELS = 1 << 16

Steps = Generator[None, None, Any]
Value = TypeVar("Value")


@dataclass
class Stored:
    """Where the voxels of a structure are."""

    image: slicer.vtkOrientedImageData
    label: int


@dataclass(frozen=True)
class Inside:
    """The voxels of a lattice that lie in a region: those of a box where a mask [i, j, k] holds."""

    box: Ranges
    mask: np.ndarray

    def clear(self, values: np.ndarray, box: Ranges, outside: bool = False) -> None:
        """Set what lies inside, or else outside, to 0, in values [i, j, k] of a box."""
        inside, common = np.zeros(values.shape, dtype=bool), intersection(box, self.box)
        if common is not None:
            inside[slices(common, box)] = self.mask[slices(common, self.box)]
        values[~inside if outside else inside] = 0


def drained(steps: Generator[None, None, Value]) -> Value:
    """Do all steps at once, and return what they return."""
    values = []

    def all_steps() -> Steps:
        values.append((yield from steps))

    for _step in all_steps():
        pass
    return values[0]


def parts_of(shape: tuple[int, ...]) -> Iterable[range]:
    """Cut the planes of a volume into ranges that take some milliseconds each."""
    size = max(1, _VOXELS_PER_STEP // max(1, shape[0] * shape[1]))
    return (range(start, min(start + size, shape[2])) for start in range(0, shape[2], size))


def translated(plane: np.ndarray, labels: Mapping[int, int]) -> np.ndarray:
    """Return a plane with some labels translated, uint16; all others become 0."""
    if plane.dtype.kind == "u" and plane.dtype.itemsize <= 2:
        table = np.zeros(_LABELS, dtype=np.uint16)
        table[list(labels)] = list(labels.values())
        return table.take(plane)
    result = np.zeros(plane.shape, dtype=np.uint16)
    for old, new in labels.items():
        result[plane == old] = new
    return result


def box_of_labels(values: np.ndarray, labels: Iterable[int]) -> Steps:
    """Return the smallest box that holds all voxels with some labels; NO_BOX for none."""
    along, wanted = [np.zeros(size, dtype=bool) for size in values.shape], dict.fromkeys(labels, 1)
    for planes in parts_of(values.shape):
        for k in planes:
            hits = translated(values[:, :, k].T, wanted)  # i runs fastest in memory
            along[0] |= hits.any(axis=0)
            along[1] |= (rows := hits.any(axis=1))
            along[2][k] = rows.any()
        yield
    found = [np.flatnonzero(axis) for axis in along]
    return tuple((int(axis[0]), int(axis[-1]) + 1) for axis in found) if len(found[0]) else NO_BOX


def composed(
    new: slicer.vtkOrientedImageData,
    new_labels: Mapping[int, int],
    lattice: np.ndarray,
    old: slicer.vtkOrientedImageData | None = None,
    old_labels: Mapping[int, int] | None = None,
    inside: Inside | None = None,
) -> Steps:
    """Return a labelmap of what is new and, outside of a region, of what was there before; empty if that is nothing.

    :param new: counts in the region alone, where there is one.
    :param new_labels, old_labels: what becomes of labels; others are left out.
    :param lattice: of the result, and of ``new``.
    :param old: on any lattice.
    """
    parts = [(*_placed(new), new_labels, True)]
    if old is not None and not old.IsEmpty():
        shift = shift_between(lattice_of(old), lattice, box_of_image(old))
        if shift is None:
            old, shift = resampled(old, lattice), (0, 0, 0)
        voxels, box = _placed(old)
        parts.append((voxels, moved(box, shift), old_labels, False))
    used = []
    for voxels, box, labels, is_new in parts:
        inner = yield from box_of_labels(voxels, labels)
        if inner != NO_BOX:
            place = moved(inner, tuple(start for start, _ in box))
            used.append((voxels[slices(inner)], place, labels, is_new))
    whole = union(*(box for _voxels, box, *_rest in used))
    if whole is None:
        return slicer.vtkOrientedImageData()
    image = unfilled_image(whole, lattice, label_type(label for part in used for label in part[2].values()))
    result = array_of(image)[0]
    result[...] = 0
    for voxels, box, labels, is_new in used:
        target = result[slices(box, whole)]
        for planes in parts_of(voxels.shape):
            for k in planes:
                values = translated(voxels[:, :, k].T, labels).T
                if inside is not None:
                    plane = (*box[:2], (box[2][0] + k, box[2][0] + k + 1))
                    inside.clear(values[:, :, np.newaxis], plane, outside=is_new)
                np.copyto(target[:, :, k], values, where=values != 0, casting="same_kind")
            yield
    return image


def label_type(labels: Iterable[int]) -> np.dtype:
    """Return the smallest type that holds labels."""
    return np.dtype(np.uint8 if max(labels, default=0) < 256 else np.uint16)


def erase(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Sequence[str]) -> dict[str, Stored | None]:
    """Take segments out of labelmaps that they share with others, which stay as they are; return where they are now.

    A labelmap that is not shared with others stays whole, and is returned as it is: no voxel is copied. Segments
    without voxels have None.
    """
    held = {one: Stored(*labelmap_of(segmentation_node, one)) for one in segment_ids}
    together: dict[int, list[str]] = defaultdict(list)
    for segment_id, stored in held.items():
        together[id(stored.image)].append(segment_id)
    for ids in together.values():
        image = held[ids[0]].image
        sharing = segmentation_node.GetSegmentation().GetSegmentIDsForDataObject(image, labelmap_name())
        if set(sharing) <= set(segment_ids) or image.IsEmpty():
            continue
        own = _moved_out(image, [held[one].label for one in ids])
        for one in ids:
            held[one] = Stored(own, held[one].label)
    return {one: None if stored.image.IsEmpty() else stored for one, stored in held.items()}


def tell(segmentation_node: slicer.vtkMRMLSegmentationNode, replaced: Sequence[str]) -> None:
    """Make surfaces of replaced segments anew, where there are any, and tell views and undo of new voxels."""
    if replaced:
        slicer.vtkSlicerSegmentationsModuleLogic.ReconvertAllRepresentations(segmentation_node, list(replaced))
    segmentation = segmentation_node.GetSegmentation()
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified)
    segmentation.InvokeEvent(segmentation.RepresentationModified)


def _moved_out(image: slicer.vtkOrientedImageData, labels: Sequence[int]) -> slicer.vtkOrientedImageData:
    """Move labels out of a labelmap into another one with the same box, which is returned."""
    voxels, _start = array_of(image)
    own = unfilled_image(box_of_image(image), lattice_of(image), voxels.dtype)
    taken = array_of(own)[0]
    for k in range(voxels.shape[2]):
        plane = voxels[:, :, k].T
        hits = plane == labels[0] if len(labels) == 1 else np.isin(plane, labels)
        taken[:, :, k].T[...] = np.where(hits, plane, 0)
        plane[hits] = 0
    # Not image.Modified(): Slicer would throw away the surfaces of all segments.
    image.GetPointData().GetScalars().Modified()
    return own


def _placed(image: slicer.vtkOrientedImageData) -> tuple[np.ndarray, Ranges]:
    return array_of(image)[0], box_of_image(image)
