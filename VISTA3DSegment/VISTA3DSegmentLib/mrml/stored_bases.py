# SPDX-License-Identifier: Apache-2.0
"""The mask from before clicks as a tag of the segment, so that single clicks can be taken back in a loaded scene.

Outside of the changed box, the mask from before is the present one. So the tag holds what the segment was in that box,
and what the clicks moved between it and other segments, eight voxels in a byte, compressed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer

from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from .boxes import Ranges, Shape, shape_of
from .neighbors import Exchange, Parts, Voxels
from .tags import TAG_PREFIX, get_tag, segment_of, set_tag

TAG = TAG_PREFIX + "ClickBase"
#: Characters that the tags of all segments of a segmentation may have together.
MAX_TOGETHER = 256 * 1024

_VERSION = 1
# Higher levels make it 10 % smaller and take 50 times as long.
_LEVEL = 6
# Larger ones do not come from a click; so that no file can ask for all memory.
_MAX_VOXELS = 1 << 30


@dataclass(frozen=True, eq=False)
class StoredBase:
    """What a segment and its neighbors were before clicks.

    :param base: name of the segment's mask from before, see :class:`ClickList`.
    :param box: of the volume's grid, outside of which it is the present one; None: it is so everywhere.
    :param voxels: bool [i, j, k], the mask from before in the box.
    :param exchange: what clicks moved between the segment and others.
    """

    base: str
    box: Ranges | None = None
    voxels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    exchange: Exchange = field(default_factory=Exchange)


class TooLargeError(InputError):
    """A base was too large to be stored."""


def store_base(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str, stored: StoredBase | None) -> None:
    """Store a base in a segment's tag; None: there is none. Of one that is too large, only this fact is stored.

    :raises InputError: if there is no such segment.
    """
    if stored is None:
        forget_base(segment_of(segmentation_node, segment_id))
        return
    box = None if stored.box is None else [*map(list, stored.box)]
    content = {"version": _VERSION, "base": stored.base, "box": box, "voxels": _packed(stored.voxels)}
    text = _written(content | _described(stored.exchange))
    if len(text) > MAX_TOGETHER - _used_by_others(segmentation_node, segment_id):
        text = _written({"version": _VERSION, "base": stored.base, "too_large": len(text)})
    set_tag(segmentation_node, segment_id, TAG, text)


def forget_base(segment: slicer.vtkSegment) -> None:
    """Remove a stored base from a segment."""
    segment.RemoveTag(TAG)


def read_base(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> StoredBase | None:
    """Return the base that is stored with a segment; None if there is none, or none that can be read.

    :raises TooLargeError: if it was not stored, because it was too large.
    """
    text = get_tag(segmentation_node, segment_id, TAG)
    try:
        content = json.loads(text or "null")
        if not isinstance(content, dict) or content["version"] != _VERSION:
            return None
        if "too_large" in content:
            raise TooLargeError(_("The mask from before the clicks is too large to be stored with the scene."))
        return _read(content)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError, zlib.error):
        return None


def name_of(exchange: Exchange) -> str:
    """Return a name for what was moved between segments; empty for nothing. Equal ones have the same name."""
    if not exchange:
        return ""
    return hashlib.blake2b(_written(_described(exchange)).encode(), digest_size=12).hexdigest()


def _used_by_others(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> int:
    ids = segmentation_node.GetSegmentation().GetSegmentIDs()
    return sum(len(get_tag(segmentation_node, one, TAG) or "") for one in ids if one != segment_id)


def _written(content: Mapping[str, Any]) -> str:
    """Return JSON without ``|``, which would end a tag in a file."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True).replace("|", r"\u007c")


def _described(exchange: Exchange) -> dict[str, Any]:
    return {"taken": _described_parts(exchange.taken), "given": _described_parts(exchange.given)}


def _described_parts(parts: Parts) -> dict[str, Any]:
    return {
        segment_id: {
            "lattice": one.lattice.ravel().tolist(),
            "box": [*map(list, one.box)],
            "voxels": _packed(one.mask),
            "shared": _packed(one.shared) if one.shared.any() else "",
        }
        for segment_id, one in parts.items()
    }


def _read(content: Mapping[str, Any]) -> StoredBase:
    """:raises KeyError, TypeError, ValueError: if it is none."""
    box = None if content["box"] is None else _box(content["box"])
    voxels = _unpacked(content["voxels"], (0, 0, 0) if box is None else shape_of(box))
    taken, given = (
        {segment_id: _read_voxels(one) for segment_id, one in content[name].items()} for name in ("taken", "given")
    )
    return StoredBase(str(content["base"]), box, voxels, Exchange(taken, given))


def _read_voxels(content: Mapping[str, Any]) -> Voxels:
    box, lattice = _box(content["box"]), np.array(content["lattice"], dtype=np.float64).reshape(4, 4)
    if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-12:
        raise ValueError("no lattice")
    voxels, shape = _unpacked(content["voxels"], shape_of(box)), shape_of(box)
    shared = _unpacked(content["shared"], shape) if content["shared"] else np.zeros(shape, dtype=bool, order="F")
    return Voxels(lattice, box, voxels, shared)


def _box(ranges: Any) -> Ranges:
    box = tuple((start, stop) for start, stop in ranges)
    if len(box) != 3 or any(type(one) is not int for ends in box for one in ends) or min(shape_of(box)) < 0:
        raise ValueError("no box")
    return box


def _packed(mask: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.packbits(mask.T).tobytes(), _LEVEL)).decode("ascii")


def _unpacked(text: str, shape: Shape) -> np.ndarray:
    """:raises ValueError: if it does not hold a mask of this shape."""
    count = math.prod(shape)
    if count > _MAX_VOXELS:
        raise ValueError("too many voxels")
    size = -(-count // 8)
    bits = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(bits) != size:
        raise ValueError("another number of voxels")
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).view(bool).reshape(shape[::-1]).T
