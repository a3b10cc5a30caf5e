# SPDX-License-Identifier: Apache-2.0
"""The result of an automatic run as segments of a segmentation.

Structures that exclude each other share one labelmap, so that 117 of them take the memory of one; a structure that
overlaps others gets a labelmap of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import Structure
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import Region, apply_affine

from ..i18n import tr as _
from .boxes import NO_BOX, box_of, shape_of, slices
from .clicks import ClickList, Edit, read_clicks, store_clicks
from .corrections import RESULT_TAG
from .labelmaps import (
    array_of,
    box_of_image,
    moved,
    oriented_image,
    reference_lattice,
    resampled,
    shift_between,
    unfilled_image,
)
from .layers import Inside, Steps, Stored, box_of_labels, drained, label_type, parts_of, tell, translated
from .matrices import node_to_world
from .names import name_of
from .planning import Plan, bring, plan_for
from .segments import (
    add_segment,
    describe_segment,
    labelmap_name,
    labelmap_of,
    new_segment,
    require_labelmaps,
    voxels_to_node,
)
from .stored_bases import forget_base
from .tags import segment_of
from .undo import Change, change_of
from .volumes import ijk_to_world, volume_shape


@dataclass
class Written:
    """What :func:`write_in_steps` has done.

    :param ids: of the structures' segments, in order; those that were kept are among them, those left out are not.
    :param kept: the structures whose segments were kept because somebody had corrected them.
    :param change: what undoes it.
    """

    ids: list[str]
    kept: list[Structure]
    change: Change


def write_result(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
    structures: Sequence[Structure],
    provenance: Mapping[str, str],
    **options: Any,
) -> list[str]:
    """Do all steps of :func:`write_in_steps` at once; return the ids of the segments, in order."""
    arguments = segmentation_node, volume_node, labels, masks, structures, provenance
    return drained(write_in_steps(*arguments, **options)).ids


def write_in_steps(  # noqa: PLR0913 - the last ones are options
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
    structures: Sequence[Structure],
    provenance: Mapping[str, str],
    *,
    region: Region | None = None,
    keep_corrected: bool = False,
    keep_empty: bool = True,
) -> Generator[None, None, Written]:
    """Write structures into a segmentation in steps of some milliseconds; only the last one changes anything.

    A segment that is there already (see :func:`VISTA3DSegmentLib.mrml.segments.find_segment`) gets the new voxels and
    keeps its id, name and color, but not its clicks; all other segments are untouched. Observers of the node hear of
    everything at once.

    :param labels: uint16 [i, j, k] on the volume's grid, value = index of a structure.
    :param masks: bool [i, j, k] of the structures that overlap others, by index.
    :param provenance: stored with each segment.
    :param region: what was segmented, world RAS mm: outside of it segments keep their voxels and clicks.
    :param keep_corrected: leave segments alone that have clicks or were edited, see
        :func:`VISTA3DSegmentLib.mrml.corrections.corrected_segments`.
    :param keep_empty: give structures without voxels an empty segment, see :func:`empty_segments`; if not, they get
        none, and only a segment that is there already is emptied.
    :raises InputError: at the first step if it cannot be written, or in the last one if the nodes have changed since.
    """
    _check(segmentation_node, volume_node, labels, masks)
    lattice, shape = voxels_to_node(volume_node, segmentation_node), volume_shape(volume_node)
    stored = yield from _stored(labels, masks, structures, lattice)
    reference = _lattice_in_use(segmentation_node)
    target = lattice if reference is None else reference
    bring(stored, lattice, target, shape)
    inside = None if region is None else (yield from _inside(region, volume_node, lattice, target))
    plan = yield from plan_for(segmentation_node, structures, stored, target, inside, keep_corrected)
    _check(segmentation_node, volume_node, labels, masks)
    if not np.array_equal(lattice, voxels_to_node(volume_node, segmentation_node)):
        raise InputError(_("The volume or the segmentation was moved while the result was written; start again."))
    if _lattice_in_use(segmentation_node) is None:
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    plan.bring(target, reference_lattice(segmentation_node), shape)
    written = structures if keep_empty else [one for one in structures if plan.has_segment(one.index)]
    return _put(segmentation_node, written, plan, provenance, region)


def empty_segments(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> list[str]:
    """Return which of some segments have no voxels.

    :raises InputError: if one of them is missing.
    """
    stored = {one: labelmap_of(segmentation_node, one) for one in segment_ids}
    images = {id(image): image for image, _label in stored.values()}
    present = {key: _labels_in(image) for key, image in images.items()}
    return [one for one, (image, label) in stored.items() if label not in present[id(image)]]


def _check(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    volume_node: slicer.vtkMRMLScalarVolumeNode,
    labels: np.ndarray,
    masks: Mapping[int, np.ndarray],
) -> None:
    """Raise InputError where a result cannot be written."""
    shape = volume_shape(volume_node)
    if labels.shape != shape or any(mask.shape != shape for mask in masks.values()):
        sentence = _("The result does not fit the volume '{name}', which was changed; start again.")
        raise InputError(sentence.format(name=name_of(volume_node)))
    require_labelmaps(segmentation_node)


def _stored(
    labels: np.ndarray, masks: Mapping[int, np.ndarray], structures: Sequence[Structure], lattice: np.ndarray
) -> Steps:
    """Return labelmaps of the structures on a volume's lattice, by index."""
    shared_structures = [one for one in structures if one.index not in masks]
    shared = yield from _label_image(labels, [one.index for one in shared_structures], lattice)
    stored = {one.index: Stored(shared, one.index) for one in shared_structures}
    for one in structures:
        if one.index in masks:
            yield
            image = _mask_image(masks[one.index], lattice)
            stored[one.index] = Stored(shared, one.index) if image is None else Stored(image, 1)
    return stored


def _label_image(labels: np.ndarray, indices: Sequence[int], lattice: np.ndarray) -> Steps:
    """Return a labelmap of the smallest box that holds the structures with some indices; an empty one for none."""
    box = yield from box_of_labels(labels, indices)
    if box == NO_BOX:
        return slicer.vtkOrientedImageData()
    kept = {index: index for index in indices}
    image = unfilled_image(box, lattice, label_type(indices))
    inner, voxels = labels[slices(box)], array_of(image)[0]
    for planes in parts_of(inner.shape):
        for k in planes:
            voxels[:, :, k].T[...] = translated(inner[:, :, k].T, kept)  # i runs fastest in memory
        yield
    return image


def _mask_image(mask: np.ndarray, lattice: np.ndarray) -> slicer.vtkOrientedImageData | None:
    """Return a labelmap of the smallest box that holds a mask; None for an empty one."""
    box = box_of(mask)
    return None if box is None else oriented_image(mask[slices(box)], lattice, tuple(start for start, _ in box))


def _lattice_in_use(segmentation_node: slicer.vtkMRMLSegmentationNode) -> np.ndarray | None:
    """Return the lattice on which Slicer's tools edit; None where an empty segmentation takes that of the volume."""
    empty = not segmentation_node.GetSegmentation().GetNumberOfSegments()
    return None if empty else reference_lattice(segmentation_node)


def _inside(
    region: Region, volume_node: slicer.vtkMRMLScalarVolumeNode, lattice: np.ndarray, target: np.ndarray
) -> Steps:
    """Return the voxels that a region touches, on the lattice that segments are on.

    The engine's box of a volume's voxels has corners beyond the region where the volume is oblique: they are left out.
    """
    shape, affine = volume_shape(volume_node), ijk_to_world(volume_node)
    box = tuple((part.start, part.stop) for part in region.voxel_box(affine, shape))
    mask, half = np.ones(shape_of(box), dtype=bool, order="F"), np.abs(affine[:3, :3]).sum(axis=1) / 2
    along = [np.outer(affine[:3, axis], np.arange(*ends)) for axis, ends in enumerate(box)]
    for planes in parts_of(mask.shape):
        for k in planes:
            for row in range(3):
                places = along[0][row][:, None] + along[1][row] + (along[2][row, k] + affine[row, 3])
                low, high = region.minimum[row] - half[row], region.maximum[row] + half[row]
                mask[:, :, k] &= (places >= low) & (places <= high)
        yield
    shift = shift_between(lattice, target, tuple((0, size) for size in shape))
    if shift is not None:
        return Inside(moved(box, shift), mask)
    image = resampled(oriented_image(mask, lattice, tuple(start for start, _ in box)), target)
    return Inside(box_of_image(image), array_of(image)[0] != 0)


def _put(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    structures: Sequence[Structure],
    plan: Plan,
    provenance: Mapping[str, str],
    region: Region | None,
) -> Written:
    """Make or replace the segments, seen from outside in one step."""
    was_modifying, ids = segmentation_node.StartModify(), dict(plan.kept)
    change = change_of(segmentation_node, plan.replaced.values())
    try:
        for structure in (one for one in structures if one.index not in plan.kept):
            segment_id = plan.replaced.get(structure.index)
            segment = new_segment(structure) if segment_id is None else segment_of(segmentation_node, segment_id)
            describe_segment(segment, structure, provenance)
            _tag(segment, structure, plan)
            if segment_id is None:
                segment_id = add_segment(segmentation_node, segment, structure)
                change.added.append(segment_id)
            else:
                _drop_clicks(segmentation_node, segment_id, region)
            ids[structure.index] = segment_id
        tell(segmentation_node, list(plan.replaced.values()))
        change.note_written({ids[one.index]: plan.prints[one.index] for one in structures if one.index in plan.prints})
    except InputError:
        change.undo()
        raise
    finally:
        segmentation_node.EndModify(was_modifying)
    return Written(
        [ids[one.index] for one in structures], [one for one in structures if one.index in plan.kept], change
    )


def _tag(segment: slicer.vtkSegment, structure: Structure, plan: Plan) -> None:
    """Give a segment its voxels, and the mark by which corrections are known later."""
    stored = plan.stored[structure.index]
    forget_base(segment)  # it belongs to what is replaced
    segment.SetLabelValue(stored.label)
    segment.AddRepresentation(labelmap_name(), stored.image)
    if structure.index in plan.mixed:
        segment.RemoveTag(RESULT_TAG)
    else:
        segment.SetTag(RESULT_TAG, str(plan.prints[structure.index]))


def _drop_clicks(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, region: Region | None) -> None:
    """Forget the clicks on what was replaced."""
    try:
        clicks = ClickList() if region is None else read_clicks(segmentation_node, segment_id)
    except InputError:  # damaged: nothing of them can be used
        clicks = ClickList()
    if clicks:
        places = apply_affine(node_to_world(segmentation_node), [one.position for one in clicks.clicks])
        inside = np.all((places >= region.minimum) & (places <= region.maximum), axis=1)
        dropped = tuple((one, None) for one, drop in zip(clicks.clicks, inside, strict=True) if drop)
        clicks = clicks.apply(Edit(dropped))
    store_clicks(segmentation_node, segment_id, clicks)


def _labels_in(image: slicer.vtkOrientedImageData) -> frozenset[int]:
    """Return the labels of a labelmap; looks closely only at voxels that differ from the one before."""
    voxels, _start = array_of(image)
    found: set[int] = set()
    for k in range(voxels.shape[2]):
        plane = voxels[:, :, k].T
        found.update(np.unique(plane[:, 1:][plane[:, 1:] != plane[:, :-1]]).tolist())
        found.update(np.unique(plane[:, 0]).tolist())
    return frozenset(found)
