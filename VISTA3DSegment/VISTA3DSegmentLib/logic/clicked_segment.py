# SPDX-License-Identifier: Apache-2.0
"""The segment that clicks go to: what its clicks and its mask are now, and how an answer changes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import slicer

from VISTA3DCore.anatomy.catalogue import Catalogue, catalogue
from VISTA3DCore.errors import InputError, VistaError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine

from ..i18n import tr as _
from ..mrml.boxes import Ranges, Shape, box_of, intersection, slices, union
from ..mrml.clicks import (
    EDITED,
    LOST,
    TOO_LARGE,
    ClickList,
    Position,
    StoredClick,
    store_clicks,
    stored_text,
)
from ..mrml.fingerprints import Fingerprint
from ..mrml.labelmaps import lattice_of, oriented_image, reference_lattice, shift_between
from ..mrml.matrices import node_to_world
from ..mrml.neighbors import Exchange, Neighbors
from ..mrml.segments import has_segment, mask_box, read_mask, structure_of, voxels_to_node
from ..mrml.stored_bases import TAG as BASE_TAG
from ..mrml.stored_bases import StoredBase, TooLargeError, name_of, read_base, store_base
from ..mrml.tags import get_tag, segment_of
from ..mrml.volumes import volume_shape, why_unusable
from ..mrml.writing import SegmentWriter, write_box
from .bases import Bases, Grid


@dataclass(frozen=True)
class State:
    """A mask, its clicks and its place at one moment; equal ones are the same in every voxel."""

    clicks: ClickList
    mask: Fingerprint
    grid: tuple[Shape, bytes]


class ClickedSegment:
    """One segment, the volume that it is seen in, and the masks from before its clicks.

    :param label_set: the catalogue that the model's structures belong to.
    """

    def __init__(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        segment_id: str,
        volume_node: slicer.vtkMRMLScalarVolumeNode,
        label_set: Catalogue,
        bases: Bases,
    ) -> None:
        self.segmentation_node, self.segment_id, self.volume_node = segmentation_node, segment_id, volume_node
        self.label_set = label_set
        self._bases = bases
        self._known: tuple[tuple, Fingerprint] | None = None
        self._read: tuple[tuple[str, str], ClickList] | None = None

    def is_same(self, segmentation_node: object, segment_id: str, volume_node: object, label_set: Catalogue) -> bool:
        """Whether it was made of these."""
        nodes = self.segmentation_node is segmentation_node and self.volume_node is volume_node
        return nodes and self.segment_id == segment_id and self.label_set is label_set

    def problem(self) -> str | None:
        """Return a sentence that says why nothing can be clicked here, or None."""
        if self.segmentation_node.GetScene() is None:
            return _("The segmentation was removed; choose another one.")
        if not has_segment(self.segmentation_node, self.segment_id):
            return _("The segment was deleted; choose another one.")
        if self.volume_node.GetScene() is None:
            return _("The volume was removed; choose another one.")
        return why_unusable(self.volume_node)

    @property
    def is_there(self) -> bool:
        """Whether the segment exists."""
        return self.segmentation_node.GetScene() is not None and has_segment(self.segmentation_node, self.segment_id)

    @property
    def name(self) -> str:
        """What the user calls it."""
        return segment_of(self.segmentation_node, self.segment_id).GetName() or ""

    def clicks(self) -> ClickList:
        """Return the stored clicks, with the structure in the present label set.

        :raises InputError: if they are damaged.
        """
        text = stored_text(self.segmentation_node, self.segment_id)
        key = text, get_tag(self.segmentation_node, self.segment_id, BASE_TAG) or ""
        if self._read is None or self._read[0] != key:
            stored = self._translated(ClickList.from_json(text) if text else ClickList())
            self._read = key, self._settled_if_lost(stored)
        return self._read[1]

    def _settled_if_lost(self, click_list: ClickList) -> ClickList:
        """Return a click list whose clicks are settled if the mask from before them cannot be had any more."""
        is_known = self._bases.knows(click_list.base) and self._bases.exchange(click_list.exchange) is not None
        if is_known or click_list.settled == len(click_list.clicks):
            return click_list
        try:
            stored = read_base(self.segmentation_node, self.segment_id)
        except TooLargeError:
            return click_list.all_settled(TOO_LARGE)
        return click_list.all_settled(LOST) if stored is None else click_list

    def readable_clicks(self) -> ClickList:
        """Return the stored clicks; an empty list where they are damaged or the segment is gone."""
        try:
            return self.clicks() if self.is_there else ClickList()
        except InputError:
            return ClickList()

    def named_structure(self) -> int | None:
        """Return the index of the structure that the segment stands for, by its tag, name or terminology; or None."""
        found = structure_of(self.segmentation_node, self.segment_id, self.label_set)
        return None if found is None else found.index

    def _translated(self, click_list: ClickList) -> ClickList:
        """Return a click list whose structure is one of the present label set, by its name."""
        if click_list.label_set == self.label_set.name:
            return click_list
        try:
            name = catalogue(click_list.label_set)[click_list.structure].name
            structure = self.label_set[name].index
        except VistaError:
            structure = None
        return replace(click_list, structure=structure, label_set=self.label_set.name)

    def state(self) -> State:
        """Return what an answer of the engine is good for.

        :raises VistaError: if the mask cannot be brought onto the volume's grid.
        """
        grid = self._grid()
        return State(self.readable_clicks(), self._fingerprint(), (grid.shape, grid.placing.tobytes()))

    def rebased(self) -> ClickList:
        """Return the clicks with a base that the present mask came from.

        If another tool changed the mask, or the base is lost, the present mask is the base and the clicks are settled.

        :raises VistaError: if the mask cannot be brought onto the volume's grid.
        """
        click_list, grid, found = self.readable_clicks(), self._grid(), self._fingerprint()
        if click_list and str(found) == click_list.mask:
            if self._recall(click_list, grid):
                return click_list
            click_list = click_list.all_settled(LOST)
        if not self._bases.holds(str(found), grid):
            self._bases.keep(str(found), self._read_mask(), grid)
        name, settled = str(found), click_list.all_settled(EDITED) if click_list else click_list
        return replace(settled, base=name, base_empty=not found.count, mask=name, box=None, exchange="")

    def _recall(self, click_list: ClickList, grid: Grid) -> bool:
        """Return whether a list's base is known, from the segment's tag if need be; its mask is the present one."""
        is_known = self._bases.holds(click_list.base, grid) and self._bases.exchange(click_list.exchange) is not None
        if is_known or click_list.settled == len(click_list.clicks):
            return is_known
        try:
            stored = read_base(self.segmentation_node, self.segment_id)
        except TooLargeError:
            return False
        if stored is None or stored.base != click_list.base or name_of(stored.exchange) != click_list.exchange:
            return False
        mask, whole = self._read_mask(), tuple((0, size) for size in grid.shape)
        if stored.box is not None:
            if intersection(stored.box, whole) != stored.box:
                return False
            mask[slices(stored.box)] = stored.voxels
        if str(Fingerprint.of(mask)) != stored.base:
            return False
        self._bases.keep(stored.base, mask, grid)
        self._bases.keep_exchange(click_list.exchange, stored.exchange)
        return True

    def world_clicks(self, click_list: ClickList) -> tuple[Click, ...]:
        """Return the clicks as the engine takes them, world RAS mm."""
        return tuple(Click(self.world_position(one), one.positive) for one in click_list.clicks)

    def stored_click(self, world: Position, positive: bool) -> StoredClick:
        """Return a click at a place in world RAS mm.

        :raises InputError: if the segmentation's transform is not linear, or the place is no place.
        """
        to_node = np.linalg.inv(node_to_world(self.segmentation_node))
        return StoredClick(tuple(apply_affine(to_node, Click(world).position).tolist()), positive)

    def world_position(self, click: StoredClick) -> Position:
        """Return where a click is, world RAS mm."""
        return tuple(apply_affine(node_to_world(self.segmentation_node), click.position).tolist())

    def write(self, writer: SegmentWriter, click_list: ClickList, box: Ranges | None, patch: np.ndarray | None) -> None:
        """Change mask and clicks in one undo step.

        :param click_list: to be stored, with the base that the answer belongs to.
        :param box: where the result differs from the base; None: nowhere.
        :param patch: bool [i, j, k], the result there.
        :raises VistaError: if the segment cannot be written.
        """
        found, before_list = self._fingerprint(), self.readable_clicks()
        touched = union(box, before_list.box if before_list.base == click_list.base else None)
        before = None if touched is None else self._read_box(touched)
        exchange = self._bases.exchange(click_list.exchange) or Exchange()
        writer.save_state()
        if touched is not None:
            wanted = self._bases.patch(click_list.base, touched)
            if box is not None:
                wanted[slices(box, touched)] = patch
            placing, first = self._grid().placing, tuple(start for start, _ in touched)
            neighbors = Neighbors(*self._place[:2], placing, touched, exchange)
            base = oriented_image(self._bases.patch(click_list.base, touched), placing, first)
            found, touched = self._write_box(writer, click_list.base, touched, before, wanted)
            exchange = neighbors.settle(base)
        self._store(replace(click_list, mask=str(found), box=touched, exchange=name_of(exchange)), exchange)
        self._known = self._stamp(), found

    def _store(self, click_list: ClickList, exchange: Exchange) -> None:
        """Store clicks and what was before them with the segment."""
        self._bases.keep_exchange(click_list.exchange, exchange)
        base = None
        if click_list.settled < len(click_list.clicks):
            box = click_list.box
            voxels = {} if box is None else {"voxels": self._bases.patch(click_list.base, box)}
            base = StoredBase(click_list.base, box, **voxels, exchange=exchange)
        store_clicks(*self._place[:2], click_list)
        store_base(*self._place[:2], base)

    def _write_box(
        self, writer: SegmentWriter, base: str, box: Ranges, before: np.ndarray, wanted: np.ndarray
    ) -> tuple[Fingerprint, Ranges | None]:
        """Write a box as far as masking allows; return the mask's fingerprint, and where it differs from its base."""
        shape, known = self._grid().shape, self._fingerprint()
        write_box(writer, *self._place, before, wanted, box)
        if self._lattices_coincide():
            after = self._read_box(box)
            found = known.after(before, after, box)
        else:  # a voxel of the segmentation may reach out of the box
            box = tuple((0, size) for size in shape)
            after = self._read_box(box)
            found = Fingerprint.of(after)
        return found, box_of(after != self._bases.patch(base, box), tuple(start for start, _ in box))

    def _lattices_coincide(self) -> bool:
        """Whether voxels of the segment and of the volume are the same."""
        grid, labelmap = self._grid(), self._labelmap()
        lattices = [reference_lattice(self.segmentation_node), None if labelmap is None else lattice_of(labelmap)]
        box = tuple((0, size) for size in grid.shape)
        return all(
            lattice is not None and shift_between(grid.placing, lattice, box) is not None for lattice in lattices
        )

    @property
    def _place(self) -> tuple:
        return self.segmentation_node, self.segment_id, self.volume_node

    def _read_mask(self) -> np.ndarray:
        return read_mask(*self._place)

    def _read_box(self, box: Ranges) -> np.ndarray:
        return mask_box(*self._place, box)

    def _fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the present mask; computed only if somebody touched the mask."""
        stamp = self._stamp()
        if self._known is None or self._known[0] != stamp:
            self._known = stamp, Fingerprint.of(self._read_mask())
        return self._known[1]

    def _grid(self) -> Grid:
        return Grid(volume_shape(self.volume_node), voxels_to_node(self.volume_node, self.segmentation_node))

    def _labelmap(self) -> slicer.vtkOrientedImageData | None:
        name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
        return segment_of(self.segmentation_node, self.segment_id).GetRepresentation(name)

    def _stamp(self) -> tuple:
        """Return what changes whenever somebody touches the mask or moves it against the volume."""
        grid, labelmap = self._grid(), self._labelmap()
        label = segment_of(self.segmentation_node, self.segment_id).GetLabelValue()
        return None if labelmap is None else labelmap.GetMTime(), label, grid.shape, grid.placing.tobytes()
