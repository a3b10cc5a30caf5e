# SPDX-License-Identifier: Apache-2.0
"""What a run changed in a segmentation, so that exactly this can be undone, whatever the Segment Editor knows.

What was there before is kept as it was: a labelmap that no segment uses any more is not copied, it is only not thrown
away, and packed in the background (label maps of CTs take a fortieth to a hundredth then).
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import slicer

from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from .clicks import stored_text
from .corrections import segment_fingerprints
from .fingerprints import Fingerprint
from .labelmaps import array_of, box_of_image, lattice_of, unfilled_image
from .layers import Stored, drained, erase, parts_of, tell
from .names import name_of
from .segments import labelmap_name, labelmap_of, require_labelmaps
from .tags import has_segment, segment_of

# Label maps are so even that more effort saves little.
_EFFORT = 1


class Kept:
    """A labelmap that belongs to nobody else; it can be packed."""

    def __init__(self, image: slicer.vtkOrientedImageData) -> None:
        self._image: slicer.vtkOrientedImageData | None = image
        self._box, self._lattice, self._type = box_of_image(image), lattice_of(image), array_of(image)[0].dtype
        self._packed: list[bytes] = []

    @property
    def image(self) -> slicer.vtkOrientedImageData:
        """The labelmap; the caller may keep it."""
        if self._image is None:
            self._image = unfilled_image(self._box, self._lattice, self._type)
            voxels = array_of(self._image)[0]
            for planes, packed in zip(parts_of(voxels.shape), self._packed, strict=True):
                part = voxels[:, :, planes.start : planes.stop].T
                part[...] = np.frombuffer(zlib.decompress(packed), self._type).reshape(part.shape)
            self._packed = []
        return self._image

    @property
    def size(self) -> int:
        """Memory that it takes, bytes."""
        return sum(map(len, self._packed)) if self._image is None else array_of(self._image)[0].nbytes

    def pack(self) -> Generator[None, None, None]:
        """Make it smaller, in steps."""
        if self._image is None:
            return
        packed, voxels = [], array_of(self._image)[0]
        for planes in parts_of(voxels.shape):
            packed.append(zlib.compress(voxels[:, :, planes.start : planes.stop].T.tobytes(), _EFFORT))
            yield
        self._packed, self._image = packed, None


@dataclass
class Former:
    """A segment as it was.

    :param described: name, color, terminology and tags; no voxels.
    :param kept: the labelmap that its voxels are in; None for a segment without voxels.
    """

    described: slicer.vtkSegment
    kept: Kept | None
    label: int


@dataclass
class After:
    """A segment as a run has left it."""

    name: str
    clicks: str
    mask: Fingerprint
    lattice: np.ndarray
    stamp: int


@dataclass
class Change:
    """What one run changed.

    :param formers: the segments that were there, by their ids.
    :param added: ids of the segments that were not.
    :param after: all of them, as the run has left them.
    :param made_node: whether the run made the segmentation, too.
    """

    segmentation_node: slicer.vtkMRMLSegmentationNode
    formers: dict[str, Former] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    after: dict[str, After] = field(default_factory=dict)
    made_node: bool = False

    @property
    def is_there(self) -> bool:
        """Whether the segmentation is still in a scene."""
        return self.segmentation_node.GetScene() is not None

    @property
    def size(self) -> int:
        """Memory that is kept, bytes."""
        return sum(one.size for one in self._kept())

    def pack(self) -> Generator[None, None, None]:
        """Make what is kept smaller, in steps."""
        for one in self._kept():
            yield from one.pack()

    def note_written(self, prints: Mapping[str, Fingerprint]) -> None:
        """Remember how the run has left its segments."""
        for segment_id, mask in prints.items():
            node, image = self.segmentation_node, labelmap_of(self.segmentation_node, segment_id)[0]
            name, clicks = name_of(segment_of(node, segment_id)), stored_text(node, segment_id)
            self.after[segment_id] = After(name, clicks, mask, lattice_of(image), image.GetMTime())

    def changed_since(self) -> list[str]:
        """Return the names of segments that somebody has deleted, clicked on or edited since the run."""
        node, looked_at, changed = self.segmentation_node, [], set()
        for segment_id, after in self.after.items():
            if not has_segment(node, segment_id) or stored_text(node, segment_id) != after.clicks:
                changed.add(segment_id)
            elif labelmap_of(node, segment_id)[0].GetMTime() != after.stamp:
                looked_at.append(segment_id)
        prints = drained(segment_fingerprints(node, looked_at))
        for segment_id in looked_at:
            after, image = self.after[segment_id], labelmap_of(node, segment_id)[0]
            if prints[segment_id] != after.mask or (after.mask.count and not _same(lattice_of(image), after.lattice)):
                changed.add(segment_id)
        return [after.name for segment_id, after in self.after.items() if segment_id in changed]

    def undo(self) -> None:
        """Bring back the segments as they were and remove those that the run added; all others stay as they are.

        What somebody has changed in these segments since is undone with them, but a new name or color stays.

        :raises InputError: if the segmentation is gone, or its segments are not stored as labelmaps any more.
        """
        node = self.segmentation_node
        if not self.is_there:
            raise InputError(_("The segmentation was removed; there is nothing to undo."))
        require_labelmaps(node)
        was_modifying = node.StartModify()
        try:
            erase(node, [one for one in (*self.formers, *self.added) if has_segment(node, one)])
            self._remove_added()
            for segment_id, former in self.formers.items():
                _restore(node, segment_id, former)
            tell(node, list(self.formers))
        finally:
            node.EndModify(was_modifying)

    def _kept(self) -> list[Kept]:
        return list({id(one.kept): one.kept for one in self.formers.values() if one.kept is not None}.values())

    def _remove_added(self) -> None:
        segmentation = self.segmentation_node.GetSegmentation()
        for segment_id in self.added:
            if has_segment(self.segmentation_node, segment_id):
                # On its own: Slicer looks twice through a labelmap that is shared before it removes a segment.
                own = slicer.vtkOrientedImageData()
                segmentation.GetSegment(segment_id).AddRepresentation(labelmap_name(), own)
                segmentation.RemoveSegment(segment_id)


def change_of(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_ids: Iterable[str]) -> Change:
    """Take segments out of a segmentation's labelmaps, which the caller then replaces; return what was there."""
    ids = list(segment_ids)
    held = erase(segmentation_node, ids)
    kept: dict[int, Kept] = {}
    change = Change(segmentation_node)
    for segment_id in ids:
        segment, stored = segment_of(segmentation_node, segment_id), held[segment_id]
        described = slicer.vtkSegment()
        described.DeepCopyMetadata(segment)
        change.formers[segment_id] = Former(described, _keep(stored, kept), segment.GetLabelValue())
    return change


def _keep(stored: Stored | None, kept: dict[int, Kept]) -> Kept | None:
    return None if stored is None else kept.setdefault(id(stored.image), Kept(stored.image))


def _restore(node: slicer.vtkMRMLSegmentationNode, segment_id: str, former: Former) -> None:
    present = has_segment(node, segment_id)
    segment = segment_of(node, segment_id) if present else slicer.vtkSegment()
    look = (segment.GetName(), segment.GetColor()) if present else None
    segment.DeepCopyMetadata(former.described)
    if look is not None:
        segment.SetName(look[0])
        segment.SetColor(look[1])
    segment.SetLabelValue(former.label)
    image = slicer.vtkOrientedImageData() if former.kept is None else former.kept.image
    segment.AddRepresentation(labelmap_name(), image)
    segment.Modified()  # its tags are others, too
    if not present:
        node.GetSegmentation().AddSegment(segment, segment_id)


def _same(lattice: np.ndarray, other: np.ndarray) -> bool:
    return np.allclose(lattice, other, atol=1e-4)
