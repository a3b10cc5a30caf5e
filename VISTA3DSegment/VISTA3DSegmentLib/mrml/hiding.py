# SPDX-License-Identifier: Apache-2.0
"""What a result does not show, because somebody has hidden its segmentation or its segments."""

from __future__ import annotations

from collections.abc import Iterable

import slicer

from ..i18n import tr as _
from .names import name_of

# So many segments are named in a sentence.
_MOST = 6


def hidden_note(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> str | None:
    """Return a sentence if segments cannot be seen, with what to do; None if all of them can."""
    display, ids = segmentation_node.GetDisplayNode(), list(segment_ids)
    if display is None or not ids:
        return None
    if not display.GetVisibility() or not (display.GetVisibility2D() or display.GetVisibility3D()):
        sentence = _("'{name}' is hidden; click its eye in the Data module to see the result.")
        return sentence.format(name=name_of(segmentation_node))
    hidden = [one for one in ids if not display.GetSegmentVisibility(one)]
    if not hidden:
        return None
    names = [name_of(segmentation_node.GetSegmentation().GetSegment(one)) for one in hidden[:_MOST]]
    more = _(" and {count} more").format(count=len(hidden) - _MOST) if len(hidden) > _MOST else ""
    sentence = _("Hidden segments: {names}; click their eyes in the Segment Editor to see them.")
    return sentence.format(names=", ".join(names) + more)
