# SPDX-License-Identifier: Apache-2.0
"""What a result makes of the segments that are there: replaced, kept, or replaced in a region only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import Structure

from .boxes import Shape
from .clicks import stored_text
from .corrections import find_corrected
from .fingerprints import Fingerprint, label_fingerprints
from .labelmaps import array_of, move_to, resampled, shift_between
from .layers import Inside, Steps, Stored, composed, drained
from .segments import find_segments, labelmap_name, labelmap_of
from .tags import segment_of


@dataclass
class Plan:
    """What is to be written; all mappings are by the index of a structure.

    :param stored: where the new voxels are, except for what is kept.
    :param prints: fingerprints of the new masks.
    :param replaced: ids of segments that get new voxels.
    :param kept: ids of segments that stay as they are.
    :param mixed: structures of which a part is somebody's correction.
    """

    stored: dict[int, Stored]
    prints: dict[int, Fingerprint] = field(default_factory=dict)
    replaced: dict[int, str] = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)
    mixed: frozenset[int] = frozenset()

    def has_segment(self, index: int) -> bool:
        """Whether a structure has voxels, or a segment that is there already."""
        return index in self.kept or index in self.replaced or bool(self.prints[index].count)

    def bring(self, source: np.ndarray, target: np.ndarray, shape: Shape) -> None:
        """Bring the voxels from one lattice to another one, see :func:`bring`."""
        if bring(self.stored, source, target, shape):
            self.prints = drained(_prints(self.stored))


def plan_for(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    structures: Sequence[Structure],
    stored: Mapping[int, Stored],
    lattice: np.ndarray,
    inside: Inside | None,
    keep_corrected: bool,
) -> Generator[None, None, Plan]:
    """Return, in steps, what to write; it fits to the segments as they are when it is returned.

    :param stored: where the voxels of the result are.
    :param lattice: that these voxels are on.
    :param inside: what of the segments is replaced; None: everything.
    """
    while True:
        found = find_segments(segmentation_node, structures)
        stamps = _stamps(segmentation_node, found)
        plan = yield from _plan(segmentation_node, found, dict(stored), lattice, inside, keep_corrected)
        if stamps == _stamps(segmentation_node, find_segments(segmentation_node, structures)):
            return plan


def bring(stored: Mapping[int, Stored], source: np.ndarray, target: np.ndarray, shape: Shape) -> bool:
    """Move or resample labelmaps, in place, from a volume's lattice to the one on which Slicer's tools edit.

    :param shape: of the volume.
    :return: whether they had to be resampled.
    """
    shift = shift_between(source, target, tuple((0, size) for size in shape))
    for image in {id(one.image): one.image for one in stored.values()}.values():
        if shift is None:
            image.ShallowCopy(resampled(image, target))
        elif not image.IsEmpty():
            move_to(image, target, shift)
    return shift is None


def _plan(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    found: Mapping[int, str],
    stored: dict[int, Stored],
    lattice: np.ndarray,
    inside: Inside | None,
    keep_corrected: bool,
) -> Generator[None, None, Plan]:
    corrected: frozenset[str] = frozenset()
    if keep_corrected or inside is not None:
        corrected = frozenset((yield from find_corrected(segmentation_node, found.values())))
    kept = {index: one for index, one in found.items() if keep_corrected and one in corrected}
    replaced = {index: one for index, one in found.items() if index not in kept}
    merged = {} if inside is None else (yield from _merged(segmentation_node, replaced, stored, lattice, inside))
    rest = yield from _reduced(stored, [one for one in stored if one not in kept and one not in merged], lattice)
    final = {**rest, **merged}
    mixed = frozenset(index for index, one in replaced.items() if one in corrected and inside is not None)
    return Plan(final, (yield from _prints(final)), replaced, kept, mixed)


def _reduced(stored: Mapping[int, Stored], indices: Sequence[int], lattice: np.ndarray) -> Steps:
    """Return where the voxels of some structures are; nothing else is left in their labelmaps."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, one in stored.items():
        members[id(one.image)].append(index)
    result = {}
    for group in members.values():
        wanted = [index for index in group if index in indices]
        image = stored[group[0]].image
        if wanted and len(wanted) < len(group):
            labels = {stored[index].label: stored[index].label for index in wanted}
            image = yield from composed(image, labels, lattice)
        result |= {index: Stored(image, stored[index].label) for index in wanted}
    return result


def _merged(
    segmentation_node: slicer.vtkMRMLSegmentationNode,
    replaced: Mapping[int, str],
    stored: Mapping[int, Stored],
    lattice: np.ndarray,
    inside: Inside,
) -> Steps:
    """Return where voxels are of what is new in a region and was there outside of it.

    What shared a labelmap shares one afterwards: it excludes each other on both sides.
    """
    held = {index: Stored(*labelmap_of(segmentation_node, one)) for index, one in replaced.items()}
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, old in held.items():
        groups[id(old.image), id(stored[index].image)].append(index)
    result = {}
    for group in groups.values():
        labels = {stored[index].label: stored[index].label for index in group}
        old_labels = {held[index].label: stored[index].label for index in group}
        new, old = stored[group[0]].image, held[group[0]].image
        image = yield from composed(new, labels, lattice, old, old_labels, inside)
        result |= {index: Stored(image, stored[index].label) for index in group}
    return result


def _prints(stored: Mapping[int, Stored]) -> Generator[None, None, dict[int, Fingerprint]]:
    known = {}
    for one in stored.values():
        if id(one.image) not in known:
            known[id(one.image)] = yield from label_fingerprints(array_of(one.image)[0])
    return {index: known[id(one.image)].get(one.label, Fingerprint()) for index, one in stored.items()}


def _stamps(segmentation_node: slicer.vtkMRMLSegmentationNode, found: Mapping[int, str]) -> dict[int, tuple]:
    """Return what changes whenever somebody edits, clicks on or replaces one of the segments."""
    return {index: _stamp(segmentation_node, one) for index, one in found.items()}


def _stamp(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> tuple:
    segment = segment_of(segmentation_node, segment_id)
    image = segment.GetRepresentation(labelmap_name())
    changed = None if image is None else image.GetMTime()
    return segment_id, changed, segment.GetLabelValue(), stored_text(segmentation_node, segment_id)
