# SPDX-License-Identifier: Apache-2.0
"""The result of an automatic run as segments of a segmentation.

Structures that exclude each other share one labelmap, so that 117 of them take the memory of one; a structure that
overlaps others gets a labelmap of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import Structure
from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from .boxes import NO_BOX, box_of, slices
from .clicks import TAG as CLICKS_TAG
from .labelmaps import (
    array_of,
    move_to,
    oriented_image,
    reference_lattice,
    resampled,
    shift_between,
    unfilled_image,
)
from .segments import (
    add_segment,
    describe_segment,
    find_segments,
    labelmap_name,
    labelmap_of,
    new_segment,
    require_labelmaps,
    voxels_to_node,
)
from .tags import segment_of
from .volumes import volume_shape

# What is done between two chances for the window to breathe: some milliseconds.
_VOXELS_PER_STEP = 1 << 22
_LABELS = 1 << 16

Steps = Generator[None, None, Any]


def write_result(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
    structures: Sequence[Structure],
    provenance: Mapping[str, str],
) -> list[str]:
    """Write structures into a segmentation; return the ids of their segments, in order.

    A segment that is there already (see :func:`VISTA3DSegmentLib.mrml.segments.find_segment`) gets the new voxels and
    keeps its id, name and color, but not its clicks; all other segments are untouched. A structure without voxels
    becomes an empty segment, see :func:`empty_segments`. Observers of the node hear of everything at once.

    :param labels: uint16 [i, j, k] on the volume's grid, value = index of a structure.
    :param masks: bool [i, j, k] of the structures that overlap others, by index.
    :param provenance: stored with each segment.
    :raises InputError: if it cannot be written; then nothing has changed.
    """
    ids: list[str] = []

    def steps() -> Steps:
        ids.extend((yield from write_in_steps(segmentation_node, volume_node, labels, masks, structures, provenance)))

    for _step in steps():
        pass
    return ids


def write_in_steps(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
    structures: Sequence[Structure],
    provenance: Mapping[str, str],
) -> Generator[None, None, list[str]]:
    """Do what :func:`write_result` does in steps of some milliseconds; the last one writes and returns the ids.

    :raises InputError: at the first step if it cannot be written, or in the last one if the nodes have changed since.
    """
    _check(segmentation_node, volume_node, labels, masks)
    lattice = voxels_to_node(volume_node, segmentation_node)
    shared_structures = [one for one in structures if one.index not in masks]
    shared = yield from _label_image(labels, [one.index for one in shared_structures], lattice)
    stored = {one.index: _Stored(shared, one.index) for one in shared_structures}
    for one in structures:
        if one.index in masks:
            yield
            image = _mask_image(masks[one.index], lattice)
            stored[one.index] = _Stored(shared, one.index) if image is None else _Stored(image, 1)
    yield
    _check(segmentation_node, volume_node, labels, masks)
    if not np.array_equal(lattice, voxels_to_node(volume_node, segmentation_node)):
        raise InputError(_("The volume or the segmentation was moved while the result was written; start again."))
    _bring_to_reference(segmentation_node, volume_node, lattice, stored)
    return _put(segmentation_node, structures, stored, provenance)


def empty_segments(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> list[str]:
    """Return which of some segments have no voxels.

    :raises InputError: if one of them is missing.
    """
    stored = {one: labelmap_of(segmentation_node, one) for one in segment_ids}
    images = {id(image): image for image, _label in stored.values()}
    present = {key: _labels_in(image) for key, image in images.items()}
    return [one for one, (image, label) in stored.items() if label not in present[id(image)]]


@dataclass
class _Stored:
    """Where the voxels of a structure are."""

    image: slicer.vtkOrientedImageData
    label: int


def _check(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
) -> None:
    """Raise InputError where a result cannot be written."""
    shape = volume_shape(volume_node)
    if labels.shape != shape or any(mask.shape != shape for mask in masks.values()):
        sentence = _("The result does not fit to the volume '{name}', which was changed; start again.")
        raise InputError(sentence.format(name=volume_node.GetName()))
    require_labelmaps(segmentation_node)


def _label_image(labels: np.ndarray, indices: Sequence[int], lattice: np.ndarray) -> Steps:
    """Return a labelmap of the smallest box that holds the structures with some indices; an empty one for none."""
    wanted = np.zeros(_LABELS, dtype=bool)
    wanted[list(indices)] = True
    box = yield from _box_of_labels(labels, wanted)
    if box == NO_BOX:
        return slicer.vtkOrientedImageData()
    table = np.where(wanted, np.arange(_LABELS), 0).astype(np.uint8 if max(indices) < 256 else np.uint16)
    image = unfilled_image(box, lattice, table.dtype)
    inner, voxels = labels[slices(box)], array_of(image)[0]
    for planes in _parts(inner.shape):
        for k in planes:
            voxels[:, :, k].T[...] = table.take(inner[:, :, k].T)  # i runs fastest in memory
        yield
    return image


def _box_of_labels(labels: np.ndarray, wanted: np.ndarray) -> Steps:
    """Return the smallest box that holds all voxels with wanted labels."""
    along = [np.zeros(size, dtype=bool) for size in labels.shape]
    for planes in _parts(labels.shape):
        for k in planes:
            hits = wanted.take(labels[:, :, k].T)
            along[0] |= hits.any(axis=0)
            along[1] |= (rows := hits.any(axis=1))
            along[2][k] = rows.any()
        yield
    found = [np.flatnonzero(axis) for axis in along]
    return tuple((int(axis[0]), int(axis[-1]) + 1) for axis in found) if len(found[0]) else NO_BOX


def _parts(shape: tuple[int, ...]) -> Iterable[range]:
    """Cut the planes of a volume into ranges that take some milliseconds each."""
    size = max(1, _VOXELS_PER_STEP // max(1, shape[0] * shape[1]))
    return (range(start, min(start + size, shape[2])) for start in range(0, shape[2], size))


def _mask_image(mask: np.ndarray, lattice: np.ndarray) -> slicer.vtkOrientedImageData | None:
    """Return a labelmap of the smallest box that holds a mask; None for an empty one."""
    box = box_of(mask)
    return None if box is None else oriented_image(mask[slices(box)], lattice, tuple(start for start, _ in box))


def _bring_to_reference(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    lattice: np.ndarray,
    stored: Mapping[int, _Stored],
) -> None:
    """Move or resample labelmaps from a volume's lattice to the segmentation's, on which Slicer's tools edit."""
    target = reference_lattice(segmentation_node)
    if target is None or not segmentation_node.GetSegmentation().GetNumberOfSegments():
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        target = reference_lattice(segmentation_node)
    shift = shift_between(lattice, target, tuple((0, size) for size in volume_shape(volume_node)))
    images = {id(one.image): one.image for one in stored.values()}
    for image in images.values():
        if shift is None:
            image.ShallowCopy(resampled(image, target))
        elif not image.IsEmpty():
            move_to(image, target, shift)


def _put(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    structures: Sequence[Structure],
    stored: Mapping[int, _Stored],
    provenance: Mapping[str, str],
) -> list[str]:
    """Make or replace the segments, seen from outside in one step."""
    found = find_segments(segmentation_node, structures)
    was_modifying = segmentation_node.StartModify()
    try:
        _erase(segmentation_node, list(found.values()))
        ids = []
        for structure in structures:
            segment_id = found.get(structure.index)
            segment = new_segment(structure) if segment_id is None else segment_of(segmentation_node, segment_id)
            describe_segment(segment, structure, provenance)
            segment.RemoveTag(CLICKS_TAG)  # they were on what is replaced
            segment.SetLabelValue(stored[structure.index].label)
            segment.AddRepresentation(labelmap_name(), stored[structure.index].image)
            ids.append(segment_id or add_segment(segmentation_node, segment, structure))
        _tell(segmentation_node, list(found.values()))
    finally:
        segmentation_node.EndModify(was_modifying)
    return ids


def _erase(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Sequence[str]) -> None:
    """Remove segments from labelmaps that they share with others, which stay as they are."""
    labels: dict[int, list[int]] = defaultdict(list)
    images = {}
    for segment_id in segment_ids:
        image, label = labelmap_of(segmentation_node, segment_id)
        images[id(image)] = image
        labels[id(image)].append(label)
    for key, image in images.items():
        sharing = segmentation_node.GetSegmentation().GetSegmentIDsForDataObject(image, labelmap_name())
        if set(sharing) <= set(segment_ids) or image.IsEmpty():
            continue
        voxels, _start = array_of(image)
        for k in range(voxels.shape[2]):
            plane = voxels[:, :, k].T
            plane[plane == labels[key][0] if len(labels[key]) == 1 else np.isin(plane, labels[key])] = 0
        # Not image.Modified(): Slicer would throw away the surfaces of all segments.
        image.GetPointData().GetScalars().Modified()


def _tell(segmentation_node: slicer.vtkMRMLSegmentationNode, replaced: Sequence[str]) -> None:
    """Make surfaces of replaced segments anew, where there are any, and tell views and undo of new voxels."""
    if replaced:
        slicer.vtkSlicerSegmentationsModuleLogic.ReconvertAllRepresentations(segmentation_node, list(replaced))
    segmentation = segmentation_node.GetSegmentation()
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified)
    segmentation.InvokeEvent(segmentation.RepresentationModified)


def _labels_in(image: slicer.vtkOrientedImageData) -> frozenset[int]:
    """Return the labels of a labelmap; looks closely only at voxels that differ from the one before."""
    voxels, _start = array_of(image)
    found: set[int] = set()
    for k in range(voxels.shape[2]):
        plane = voxels[:, :, k].T
        found.update(np.unique(plane[:, 1:][plane[:, 1:] != plane[:, :-1]]).tolist())
        found.update(np.unique(plane[:, 0]).tolist())
    return frozenset(found)
