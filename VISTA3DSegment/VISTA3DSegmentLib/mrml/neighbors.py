# SPDX-License-Identifier: Apache-2.0
"""What clicks on a segment take from other segments or give to them, and how that is undone with the click.

The Segment Editor decides what happens to other segments: by its overwrite mode, by which of them are visible, and by
masking (what is erased inside of a segment that masks goes to that segment). So nothing is predicted here; the other
segments are looked at before and after a segment is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import slicer

from .boxes import NO_BOX, Ranges, Shape, box_of, intersection, shape_of, slices, union
from .labelmaps import box_of_image, covering, labels_in, lattice_of, moved, oriented_image, shift_between
from .segments import labelmap_name
from .tags import has_segment


@dataclass(frozen=True, eq=False)
class Voxels:
    """Some voxels of a segment.

    :param lattice: 4x4, voxel index -> RAS mm of the segmentation node: that of the segment's labelmap.
    :param box: of the lattice, in which they are.
    :param mask: bool [i, j, k] of the box.
    :param shared: which of them yet another segment held as well, and kept.
    """

    lattice: np.ndarray
    box: Ranges
    mask: np.ndarray
    shared: np.ndarray

    def only(self, kept: np.ndarray) -> Voxels | None:
        """Return those that a bool [i, j, k] keeps; None if there are none."""
        mask = self.mask & kept
        box = box_of(mask, _first(self.box))
        if box is None:
            return None
        inner = slices(box, self.box)
        return Voxels(self.lattice, box, mask[inner], (self.shared & kept)[inner])

    def without(self, other: Voxels | None) -> Voxels | None:
        """Return those that are not among others of the same segment; None if there are none."""
        return self if other is None else self.only(~other.on(self.lattice, self.box))

    def on(self, lattice: np.ndarray, box: Ranges) -> np.ndarray:
        """Return which voxels in a box of another lattice are among these, bool [i, j, k]."""
        mask, shift = np.zeros(shape_of(box), dtype=bool, order="F"), shift_between(self.lattice, lattice, self.box)
        if shift is not None:  # else the segment has got another geometry: none of its voxels is one of these
            place = moved(self.box, shift)
            if (common := intersection(place, box)) is not None:
                mask[slices(common, box)] = self.mask[slices(common, place)]
        return mask

    def together(self, other: Voxels) -> Voxels:
        """Return these and others of the same segment."""
        shift = shift_between(other.lattice, self.lattice, other.box)
        if shift is None:
            return other
        place = moved(other.box, shift)
        box = union(self.box, place)
        mask, shared = (np.zeros(shape_of(box), dtype=bool, order="F") for _ in range(2))
        for part, where in ((self, self.box), (other, place)):
            mask[slices(where, box)] |= part.mask
            shared[slices(where, box)] |= part.shared
        return Voxels(self.lattice, box, mask, shared)


Parts = Mapping[str, Voxels]


@dataclass(frozen=True, eq=False)
class Exchange:
    """What clicks on a segment moved, by the ids of the other segments.

    :param taken: from them. :param given: to them.
    """

    taken: Parts = field(default_factory=dict)
    given: Parts = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.taken or self.given)


class Neighbors:
    """All segments but one, as they are when this is made: before that one is written.

    :param segment_id: the one that is going to be written.
    :param lattice: 4x4, voxel index -> RAS mm of the segmentation node. :param box: of it, where that happens.
    :param exchange: what earlier answers to its clicks moved.
    """

    def __init__(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        segment_id: str,
        lattice: np.ndarray,
        box: Ranges,
        exchange: Exchange,
    ) -> None:
        self._node, self._own = segmentation_node, segment_id
        self._layers: dict[int, _Layer] = {}
        for other_id, image, label in _held(segmentation_node, segment_id):
            if id(image) not in self._layers:
                self._layers[id(image)] = _Layer.of(image, lattice, box)
            self._layers[id(image)].members[other_id] = label
        self._taken = self._unchanged(exchange.taken)
        self._given = {one: part for one, part in exchange.given.items() if has_segment(segmentation_node, one)}

    def settle(self, base: slicer.vtkOrientedImageData) -> Exchange:
        """Undo what the segment does not need any more, now that it is written, and return what is moved still.

        Others get back what the segment does not hold any more, unless something else has changed it since. What comes
        back to the segment from before its clicks is taken from nobody. Masking and overwriting do not matter for that,
        because everything only goes back to where it was.

        :param base: what the segment was before its clicks, where it was written.
        """
        lost, gained = self._changes()
        taken, given = {}, {}
        for other_id, one in self._taken.items():
            own, present = self._holds(self._own, one), self._holds(other_id, one)
            self._add(other_id, one.only(~own & ~present))
            _put(taken, other_id, one.only(own & ~present))
        for other_id, one in lost.items():
            before = labels_in(base, one.lattice, one.box) != 0
            if (returned := one.only(before)) is not None:
                self._add(other_id, returned.without(self._given.get(other_id)))
            _put(taken, other_id, one.only(~before))
        for other_id, one in self._given.items():
            own, present = self._holds(self._own, one), self._holds(other_id, one)
            self._remove(other_id, one.only(own & present))
            _put(given, other_id, one.only(~own & present))
        for other_id, one in gained.items():
            _put(given, other_id, one.without(self._taken.get(other_id)))
        return Exchange(taken, given)

    def _unchanged(self, taken: Parts) -> dict[str, Voxels]:
        """Return what was taken and is so still: its segment does not hold it again, and no other one has got it."""
        left: dict[str, Voxels] = {}
        for other_id, one in taken.items():
            if has_segment(self._node, other_id):
                elsewhere = _held_by_others(self._node, self._own, one.lattice, one.box)
                _put(left, other_id, one.only(~self._holds(other_id, one) & (one.shared | ~elsewhere)))
        return left

    def _changes(self) -> tuple[dict[str, Voxels], dict[str, Voxels]]:
        """Return what each of the others has lost, and what each has gained."""
        present = {other_id: (image, label) for other_id, image, label in _held(self._node, self._own)}
        lost: dict[str, Voxels] = {}
        gained: dict[str, Voxels] = {}
        for layer in self._layers.values():
            for other_id, before, after in layer.changed(present):
                _put(lost, other_id, self._part(layer, before & ~after))
                _put(gained, other_id, self._part(layer, after & ~before))
        return lost, gained

    def _part(self, layer: _Layer, mask: np.ndarray) -> Voxels | None:
        box = box_of(mask, _first(layer.box))
        if box is None:
            return None
        mask = mask[slices(box, layer.box)]
        return Voxels(layer.lattice, box, mask, mask & _held_by_others(self._node, self._own, layer.lattice, box))

    def _holds(self, segment_id: str, one: Voxels) -> np.ndarray:
        """Return where a segment is among some voxels, bool [i, j, k] of their box."""
        segment = self._node.GetSegmentation().GetSegment(segment_id)
        image = segment.GetRepresentation(labelmap_name())
        if image is None or image.IsEmpty():
            return np.zeros(shape_of(one.box), dtype=bool, order="F")
        return labels_in(image, one.lattice, one.box) == segment.GetLabelValue()

    def _add(self, segment_id: str, one: Voxels | None) -> None:
        if one is not None:
            self._merge(segment_id, one, one.mask, slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MAX)

    def _remove(self, segment_id: str, one: Voxels | None) -> None:
        if one is not None:
            self._merge(segment_id, one, ~one.mask, slicer.vtkSlicerSegmentationsModuleLogic.MODE_MERGE_MIN)

    def _merge(self, segment_id: str, one: Voxels, mask: np.ndarray, mode: int) -> None:
        label = self._node.GetSegmentation().GetSegment(segment_id).GetLabelValue()
        labels = mask.astype(np.min_scalar_type(label)) * label  # merged with the labelmap's values as they are
        image = oriented_image(labels, one.lattice, _first(one.box))
        write = slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment
        write(image, self._node, segment_id, mode, image.GetExtent())


@dataclass(eq=False)
class _Layer:
    """A part of a labelmap as it was, and the labels of the segments that it holds.

    :param stamp: time of its last change. :param box: of its lattice, where changes are looked for.
    :param stored: the part of the box that it covered. :param labels: [i, j, k], what was there.
    """

    image: slicer.vtkOrientedImageData
    stamp: int
    lattice: np.ndarray
    box: Ranges
    stored: Ranges
    labels: np.ndarray
    members: dict[str, int] = field(default_factory=dict)
    differing: frozenset[int] | None = None

    @classmethod
    def of(cls, image: slicer.vtkOrientedImageData, lattice: np.ndarray, box: Ranges) -> _Layer:
        """:param lattice, box: of another lattice, which voxels are looked at."""
        own = lattice_of(image)
        box = covering(box, lattice, own)
        stored = intersection(box, box_of_image(image)) or NO_BOX
        return cls(image, image.GetMTime(), own, box, stored, labels_in(image, own, stored))

    def changed(
        self, present: Mapping[str, tuple[slicer.vtkOrientedImageData, int]]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield the segments that may have changed: what they were, and what they are, bool [i, j, k] of the box.

        :param present: where each segment is now; those without voxels are left out.
        """
        if self.image.GetMTime() == self.stamp and all(
            present.get(one, (None, 0)) == (self.image, label) for one, label in self.members.items()
        ):
            return
        before = np.zeros(shape_of(self.box), dtype=self.labels.dtype, order="F")
        if self.stored != NO_BOX:
            before[slices(self.stored, self.box)] = self.labels
        read: dict[int, np.ndarray] = {}
        for other_id, label in self.members.items():
            image, now = present.get(other_id, (None, 0))
            if image is None:
                yield other_id, before == label, np.zeros(before.shape, dtype=bool)
                continue
            if id(image) not in read:
                read[id(image)] = labels_in(image, self.lattice, self.box)
            after = read[id(image)]
            if image is not self.image or now != label or label in self._differing(before, after):
                yield other_id, before == label, after == now

    def _differing(self, before: np.ndarray, after: np.ndarray) -> frozenset[int]:
        """Return the labels whose voxels are not the same before and after; computed once."""
        if self.differing is None:
            differ = before != after
            self.differing = frozenset(np.unique([*np.unique(before[differ]), *np.unique(after[differ])]).tolist())
        return self.differing


def _held(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str
) -> Iterator[tuple[str, slicer.vtkOrientedImageData, int]]:
    """Yield id, labelmap and label of all other segments that have voxels."""
    segmentation, name = segmentation_node.GetSegmentation(), labelmap_name()
    for other_id in segmentation.GetSegmentIDs():
        if other_id == segment_id:
            continue
        segment = segmentation.GetSegment(other_id)
        image = segment.GetRepresentation(name)
        if image is not None and not image.IsEmpty():
            yield other_id, image, segment.GetLabelValue()


def _held_by_others(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, lattice: np.ndarray, box: Ranges
) -> np.ndarray:
    """Return what any other segment holds in a box of a lattice, bool [i, j, k]."""
    labels: dict[int, tuple[slicer.vtkOrientedImageData, list[int]]] = {}
    for _other_id, image, label in _held(segmentation_node, segment_id):
        labels.setdefault(id(image), (image, []))[1].append(label)
    held = np.zeros(shape_of(box), dtype=bool, order="F")
    for image, known in labels.values():
        held |= np.isin(labels_in(image, lattice, box), known)
    return held


def _put(parts: dict[str, Voxels], segment_id: str, one: Voxels | None) -> None:
    """Add voxels to those of a segment."""
    if one is not None:
        parts[segment_id] = parts[segment_id].together(one) if segment_id in parts else one


def _first(box: Ranges) -> Shape:
    return tuple(start for start, _ in box)
