# SPDX-License-Identifier: Apache-2.0
"""What nodes and segments are called in sentences."""

from __future__ import annotations

import slicer

from ..i18n import tr as _


def name_of(named: slicer.vtkMRMLNode | slicer.vtkSegment) -> str:
    """Return the name of a node or a segment, or words for one without a name."""
    return named.GetName() or _("(unnamed)")
