# SPDX-License-Identifier: Apache-2.0
"""Where a segment came from (model, revision, hash, license, preset, version), as tags that travel in its file."""

from __future__ import annotations

from collections.abc import Mapping

import slicer

from .tags import TAG_PREFIX, get_tag, segment_of, tag_value

#: What is told of a segment, in the order in which people want to read it.
KEYS = (
    "model", "revision", "hash", "licence", "preset", "restoration", "cleanup", "body_crop", "localize", "runtime",
    "precision", "version",
)  # fmt: skip


def store_provenance(
    segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, provenance: Mapping[str, str]
) -> None:
    """Store facts about the model with a segment; those of an earlier result go.

    :raises InputError: if there is no such segment.
    """
    tag_provenance(segment_of(segmentation_node, segment_id), provenance)


def read_provenance(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> dict[str, str]:
    """Return the facts that are stored with a segment; nothing for one that is not ours."""
    values = {key: get_tag(segmentation_node, segment_id, TAG_PREFIX + key) for key in KEYS}
    return {key: value for key, value in values.items() if value}


def tag_provenance(segment: slicer.vtkSegment, provenance: Mapping[str, str]) -> None:
    """Store facts about the model with a segment that may not be in a segmentation yet."""
    for key in KEYS:
        if not provenance.get(key):
            segment.RemoveTag(TAG_PREFIX + key)
    for key, value in provenance.items():
        if value:
            segment.SetTag(TAG_PREFIX + key, tag_value(value))
