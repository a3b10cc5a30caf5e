# SPDX-License-Identifier: Apache-2.0
"""Which segments a run must not replace without being asked: those that somebody clicked on or edited.

A run leaves the fingerprint of what it wrote in a tag of each segment. The tag travels with the file, so a segment that
was corrected is known as such next week, too.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable

import slicer

from .clicks import stored_text
from .fingerprints import Fingerprint, label_fingerprints
from .labelmaps import array_of
from .layers import drained
from .segments import labelmap_of
from .tags import TAG_PREFIX, get_tag

#: Holds the fingerprint of the mask that a run has written.
RESULT_TAG = TAG_PREFIX + "Result"


def corrected_segments(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> list[str]:
    """Return which of some segments are not as a run has left them; see :func:`find_corrected`."""
    return drained(find_corrected(segmentation_node, segment_ids))


def find_corrected(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]
) -> Generator[None, None, list[str]]:
    """Return, in steps, which of some segments are not as a run has left them.

    They have clicks or other voxels than a run wrote, or no run wrote them and they are not empty.

    :raises InputError: if one of them is missing.
    """
    ids = list(segment_ids)
    prints = yield from segment_fingerprints(segmentation_node, ids)
    return [one for one in ids if _is_corrected(segmentation_node, one, prints[one])]


def segment_fingerprints(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]
) -> Generator[None, None, dict[str, Fingerprint]]:
    """Return, in steps, the fingerprint of each segment, wherever it is; each labelmap is looked through once.

    :raises InputError: if one of them is missing.
    """
    held = {one: labelmap_of(segmentation_node, one) for one in segment_ids}
    known = {}
    for image, _label in held.values():
        if id(image) not in known:
            known[id(image)] = yield from label_fingerprints(array_of(image)[0])
    return {one: known[id(image)].get(label, Fingerprint()) for one, (image, label) in held.items()}


def _is_corrected(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, found: Fingerprint) -> bool:
    if stored_text(segmentation_node, segment_id):
        return True
    written = get_tag(segmentation_node, segment_id, RESULT_TAG)
    return str(found) != written if written else bool(found.count)
