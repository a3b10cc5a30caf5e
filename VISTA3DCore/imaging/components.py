"""Connected components of 3-D masks: all of them at once, or only the one that holds a voxel.

SimpleITK labels (run lengths, union-find, several threads); Documentation/decisions/0004-connected-components.md has
the measurements. It knows neighbours by faces (6) and by faces, edges and corners (26).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import Box, box_between

CONNECTIVITIES = (6, 26)
# Half the side, in voxels, of the box in which the search for one component begins: labelling it takes a millisecond.
_FIRST_HALF_SIDE = 24


def label_components(mask: np.ndarray, connectivity: int = 26) -> tuple[np.ndarray, int]:
    """Number the connected components of a mask.

    Time grows with the mask's bounding box. Any memory layout is as fast as C order.

    :param mask: bool [i, j, k].
    :param connectivity: 6 or 26 neighbours.
    :return: labels int32 [i, j, k] (0 = background) and their number n. Labels are 1..n, in the order in which the
        components' first voxels lie in memory.
    :raises InputError: if the connectivity is another, or the mask not three-dimensional.
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 3:
        raise InputError(f"Components are searched in three dimensions; the mask has {mask.ndim}.")
    if connectivity not in CONNECTIVITIES:
        raise InputError(f"A connectivity of {connectivity} is not possible; use 6 or 26 neighbors.")
    order = memory_order(mask)
    in_memory_order = mask.transpose(order)
    labels = np.zeros(in_memory_order.shape, dtype=np.int32)
    box = bounding_box(in_memory_order)
    count = 0 if box is None else _label(in_memory_order[box], connectivity, labels[box])
    return labels.transpose(np.argsort(order)), count


def large_pieces(mask: np.ndarray, share: float, connectivity: int = 6) -> np.ndarray:
    """Return a mask, bool [i, j, k], without the components smaller than a share of the largest one."""
    labels, count = label_components(mask, connectivity)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= share * sizes.max(initial=0))[labels] & mask


def memory_order(array: np.ndarray) -> tuple[int, ...]:
    """Return the axes of an array from the one with the largest steps in memory to the one with the smallest."""
    return tuple(np.argsort([-abs(stride) for stride in array.strides], kind="stable").tolist())


def bounding_box(mask: np.ndarray) -> Box | None:
    """Return the smallest box that holds the True voxels of a bool array [i, j, k], or None if there are none."""
    order = memory_order(mask)
    slowest_first = mask.transpose(order)
    rows = np.flatnonzero(slowest_first.any(axis=(1, 2)))
    if not rows.size:
        return None
    first = slice(int(rows[0]), int(rows[-1]) + 1)
    plane = slowest_first[first].any(axis=0)
    others = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
    found = (first, *(slice(int(one[0]), int(one[-1]) + 1) for one in others))
    i, j, k = (found[order.index(axis)] for axis in range(3))
    return i, j, k


def bounding_boxes(labels: np.ndarray) -> dict[int, Box]:
    """Return, by label, the smallest box that holds its voxels; in one pass over a label map, uint [i, j, k]."""
    order = memory_order(labels)
    slowest_first = labels.transpose(order)
    count = int(labels.max(initial=0)) + 1
    # Whether a label occurs in a layer, by axis: [label, layer].
    layers, rows, columns = (np.zeros((count, size), dtype=bool) for size in slowest_first.shape)
    for number, plane in enumerate(slowest_first):
        row, column = np.nonzero(plane)
        values = plane[row, column]
        in_plane = np.zeros_like(rows)
        in_plane[values, row] = columns[values, column] = True
        layers[:, number] = in_plane.any(axis=1)
        rows |= in_plane
    boxes: dict[int, Box] = {}
    for label in np.flatnonzero(layers.any(axis=1)).tolist():
        ends = [np.flatnonzero(seen[label])[[0, -1]].tolist() for seen in (layers, rows, columns)]
        first, last = np.transpose([ends[order.index(axis)] for axis in range(3)])
        boxes[label] = box_between(first, last + 1)
    return boxes


@dataclass(frozen=True, eq=False)
class Component:
    """One component: ``mask`` (bool) within ``box``, a part of the array that was searched."""

    box: Box
    mask: np.ndarray

    def holds(self, voxel: Sequence[int]) -> bool:
        """Return whether a voxel [3] of the whole array belongs to it."""
        place = tuple(int(index) - part.start for index, part in zip(voxel, self.box, strict=True))
        return all(0 <= at < size for at, size in zip(place, self.mask.shape, strict=True)) and bool(self.mask[place])

    def holds_each(self, voxels: np.ndarray) -> np.ndarray:
        """Return for each of the voxels [n, 3] of the whole array whether it belongs to it, bool [n]."""
        places = voxels - [part.start for part in self.box]
        inside = np.all((places >= 0) & (places < self.mask.shape), axis=1)
        inside[inside] = self.mask[tuple(places[inside].T)]
        return inside

    def voxel_count(self) -> int:
        """Return its number of voxels."""
        return int(np.count_nonzero(self.mask))


@dataclass(eq=False)
class ComponentsOnDemand:
    """The components of a mask, each found when first asked for, in a box that grows until it holds the component.

    When the boxes add up to a quarter of the array, the rest is found in one go: no mask costs much more than labelling
    all of it once.

    :param mask: bool [i, j, k]; must not change.
    :param connectivity: 6 or 26.
    """

    mask: np.ndarray
    connectivity: int = 26
    _found: list[Component] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._voxels_left = self.mask.size // 4

    def at(self, voxel: Sequence[int]) -> Component:
        """Return the component of a voxel [3] in which the mask is True.

        :raises InputError: as :func:`label_components`.
        """
        for component in self._found:
            if component.holds(voxel):
                return component
        at = np.asarray(voxel)
        self._found.append(self._found_nearby(at) or self._found_in_all(at))
        return self._found[-1]

    def of_each(self, voxels: np.ndarray) -> list[Component]:
        """Return the components of some voxels [n, 3] in which the mask is True, each component once.

        :raises InputError: as :func:`label_components`.
        """
        components = []
        while len(voxels):
            components.append(self.at(voxels[0]))
            voxels = voxels[~components[-1].holds_each(voxels)]
        return components

    def _found_nearby(self, voxel: np.ndarray) -> Component | None:
        low = np.maximum(voxel - _FIRST_HALF_SIDE, 0)
        high = np.minimum(voxel + _FIRST_HALF_SIDE + 1, self.mask.shape)
        while np.prod(high - low) <= self._voxels_left:
            self._voxels_left -= np.prod(high - low)
            box = box_between(low, high)
            labels, _ = label_components(self.mask[box], self.connectivity)
            component = labels == labels[tuple(voxel - low)]
            at_start, at_stop = _touched_sides(component)
            grows = (at_start & (low > 0), at_stop & (high < self.mask.shape))
            if not np.any(grows):
                return Component(box, component)
            side = high - low
            low, high = np.maximum(low - side * grows[0], 0), np.minimum(high + side * grows[1], self.mask.shape)
        return None

    def _found_in_all(self, voxel: np.ndarray) -> Component:
        component = self._labels == self._labels[tuple(voxel)]
        box = bounding_box(component)
        assert box is not None  # it holds the voxel
        return Component(box, component[box])

    @cached_property
    def _labels(self) -> np.ndarray:
        return label_components(self.mask, self.connectivity)[0]


def _label(mask: np.ndarray, connectivity: int, result: np.ndarray) -> int:
    """Write the labels of a mask into ``result``; return their number."""
    labeller = sitk.ConnectedComponentImageFilter()
    labeller.SetFullyConnected(connectivity == 26)
    labels = labeller.Execute(sitk.GetImageFromArray(np.ascontiguousarray(mask).view(np.uint8)))
    result[...] = sitk.GetArrayViewFromImage(labels)
    return labeller.GetObjectCount()


def _touched_sides(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each axis whether a mask has voxels in the first, and in the last layer: two bool [3]."""
    views = [np.moveaxis(mask, axis, 0) for axis in range(3)]
    first, last = (np.array([view[layer].any() for view in views]) for layer in (0, -1))
    return first, last
