"""Algorithm 1 of VISTA3D: what clicks change in a mask that exists already, as a pure function of arrays.

In the paper's notation: A is the mask from before the clicks, Q the mask that the clicks gave, P+ and P- the positive
and negative clicks. ADD are the connected components of Q \\ A, REMOVE those of A \\ Q. The result is

    A  union  { c in ADD : a click of P+ touches c }  minus  { c in REMOVE : a click of P- touches c }.

A positive click looks for the nearest voxel of Q, a negative one for the nearest voxel outside of Q: any distance
within that voxel, otherwise at most a tolerance, from the click to the voxel's centre in mm. If A agrees with Q there,
the click is served already; otherwise it touches the component of that voxel. Equidistant components: the one with more
voxels, then the one whose nearest voxel comes first by R, then A, then S. So the result depends on places alone, not on
the order of clicks or on how the array lies in memory; A and Q may be cropped to any box that holds the components and
the clicks' surroundings; and refining a result again with the same clicks changes nothing. A session refines with one
click after the other, each with an answer of its own, so there the order counts
(:mod:`VISTA3DCore.inference.clicks.fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.components import Component, ComponentsOnDemand, label_components
from VISTA3DCore.imaging.geometry import apply_affine

# The reference looks 2 voxels of its 1.5 mm grid around a click (MONAI, keep_merge_components_with_points, margins=3).
TOLERANCE_MM = 3.0
_REFERENCE_MARGINS = (0, 1, 2)
# Distances and places that differ by less are equal: above the rounding of affines in float32, below anything visible.
_SAME_MM = 1e-4
_SAME_INDEX = 1e-6


@dataclass(frozen=True, eq=False)
class Refinement:
    """What the clicks made of a mask.

    :param mask: bool [i, j, k], the result.
    :param added: bool [i, j, k], voxels of the result that the base lacks.
    :param removed: bool [i, j, k], voxels of the base that the result lacks.
    :param touched: for each click, whether it selected a component.
    """

    mask: np.ndarray
    added: np.ndarray
    removed: np.ndarray
    touched: tuple[bool, ...]


def refine(
    base: np.ndarray,
    interactive: np.ndarray,
    clicks: Sequence[Click],
    affine: np.ndarray,
    *,
    variant: str = "paper",
    connectivity: int = 26,
    tolerance: float = TOLERANCE_MM,
) -> Refinement:
    """Change ``base`` to ``interactive`` in the components that clicks touch, and nowhere else (Algorithm 1).

    The module's docstring has the definition. One object at a time. The inputs stay as they are. A click outside the
    box touches only what lies within the tolerance.

    Variants: ``"paper"``. ``"permissive"``: a positive click inside A takes the component of Q, not of Q \\ A, so that
    it can reach through what was segmented already; each click for itself (refined again, it may reach further).
    ``"reference"``: what MONAI's
    ``connected_components_combine`` does to masks, defects included, for comparisons; it ignores the tolerance.

    :param base: A, bool [i, j, k].
    :param interactive: Q, bool [i, j, k].
    :param clicks: P+ and P- in any order, RAS mm.
    :param affine: 4x4, voxel index of these arrays -> RAS mm.
    :param connectivity: 6 or 26 neighbours.
    :param tolerance: mm.
    :raises InputError: if the arrays do not fit together, or an option is unknown.
    """
    if variant not in VARIANTS:
        raise InputError(f"There is no variant '{variant}' of the refinement; use one of {', '.join(VARIANTS)}.")
    if not tolerance >= 0:
        raise InputError(f"The tolerance of clicks is a length in mm, 0 or more, not {tolerance}.")
    masks = _Masks(_as_mask(base), _as_mask(interactive), np.asarray(affine, np.float64), connectivity, tolerance)
    if masks.base.shape != masks.interactive.shape:
        raise InputError(f"The masks differ in shape: {masks.base.shape} and {masks.interactive.shape} voxels.")
    return _apply(masks.base, clicks, VARIANTS[variant](masks, clicks))


def _as_mask(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype != bool or array.ndim != 3:
        raise InputError(f"A mask is a bool array of three dimensions, not {array.dtype} of {array.ndim}.")
    return array


def _apply(base: np.ndarray, clicks: Sequence[Click], selected: Sequence[Component | None]) -> Refinement:
    added, removed = np.zeros_like(base), np.zeros_like(base)
    chosen = {(click.positive, id(component)): component for click, component in zip(clicks, selected, strict=True)}
    for (positive, _), component in chosen.items():
        if component is not None:
            (added if positive else removed)[component.box] |= component.mask
    np.greater(added, base, out=added)
    touched = tuple(component is not None for component in selected)
    return Refinement(np.greater(base | added, removed), added, removed, touched)


@dataclass(eq=False)
class _Masks:
    """A (``base``) and Q (``interactive``), and their components; nothing is computed before it is needed."""

    base: np.ndarray
    interactive: np.ndarray
    affine: np.ndarray
    connectivity: int
    tolerance: float

    @cached_property
    def add(self) -> ComponentsOnDemand:
        return ComponentsOnDemand(np.greater(self.interactive, self.base), self.connectivity)

    @cached_property
    def remove(self) -> ComponentsOnDemand:
        return ComponentsOnDemand(np.greater(self.base, self.interactive), self.connectivity)

    @cached_property
    def proposed(self) -> ComponentsOnDemand:
        return ComponentsOnDemand(self.interactive, self.connectivity)

    def index_of(self, click: Click) -> np.ndarray:
        """Return the fractional voxel index [3] of a click."""
        return apply_affine(np.linalg.inv(self.affine), np.array(click.position))

    def nearest_voxels(self, mask: np.ndarray, click: Click, tolerance: float, value: bool = True) -> np.ndarray:
        """Return the voxels of a mask that are nearest to a click, [n, 3] by R, then A, then S; n = 0: none near.

        :param value: look for voxels in which the mask has this value.
        """
        index = self.index_of(click)
        reach = np.maximum(tolerance * np.linalg.norm(np.linalg.inv(self.affine)[:3, :3], axis=1), 0.5) + _SAME_INDEX
        low = np.clip(np.ceil(index - reach), 0, mask.shape).astype(int)
        high = np.clip(np.floor(index + reach) + 1, low, mask.shape).astype(int)
        voxels = low + np.argwhere(mask[tuple(map(slice, low, high))] == value)
        offsets = apply_affine(self.affine, voxels) - click.position
        distances = np.linalg.norm(offsets, axis=1)
        inside = np.all(np.abs(voxels - index) <= 0.5 + _SAME_INDEX, axis=1)
        distances[~inside & (distances > tolerance + _SAME_MM)] = np.inf
        nearest = np.isfinite(distances) & (distances <= distances.min(initial=np.inf) + _SAME_MM)
        order = np.lexsort(np.round(offsets[nearest] / _SAME_MM).T[::-1])
        return voxels[nearest][order]

    def touched(self, click: Click) -> Component | None:
        """Return the component to add (or, for a negative click, to remove) that a click touches, or None."""
        components = self.add if click.positive else self.remove
        nearest = self.nearest_voxels(self.interactive, click, self.tolerance, value=click.positive)
        if not len(nearest) or not components.mask[tuple(nearest.T)].all():
            return None
        return _largest([components.at(voxel) for voxel in nearest])


def _largest(candidates: Sequence[Component]) -> Component:
    """Return the component with the most voxels, the first of equals."""
    return candidates[0] if len(candidates) == 1 else max(candidates, key=Component.voxel_count)


def _paper(masks: _Masks, clicks: Sequence[Click]) -> list[Component | None]:
    return [masks.touched(click) for click in clicks]


def _permissive(masks: _Masks, clicks: Sequence[Click]) -> list[Component | None]:
    def component_for(click: Click) -> Component | None:
        if not click.positive or not len(masks.nearest_voxels(masks.base, click, 0.0)):
            return masks.touched(click)
        nearest = masks.nearest_voxels(masks.interactive, click, masks.tolerance)
        return _largest([masks.proposed.at(voxel) for voxel in nearest]) if len(nearest) else None

    return [component_for(click) for click in clicks]


def _reference(masks: _Masks, clicks: Sequence[Click]) -> list[Component | None]:
    voxels = [_rounded(masks.index_of(click), masks.base.shape) for click in clicks]
    switched = any(_labels_around(masks.base, voxel, 0).any() for voxel in voxels)
    polarities = {True: masks.interactive if switched else masks.add.mask, False: masks.remove.mask}
    # Largest numbers win, so they must not depend on the layout in memory: the reference counts in C order.
    labels = {
        positive: label_components(np.ascontiguousarray(mask), masks.connectivity)[0]
        for positive, mask in polarities.items()
    }
    return [_largest_number(labels[click.positive], voxel) for click, voxel in zip(clicks, voxels, strict=True)]


def _rounded(index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the voxel [3] of a fractional index; up to a voxel beyond the centres of the border, the border's voxel.

    The reference fails there (an IndexError above the last voxel, a wrong voxel below the first).
    """
    last, voxel = np.array(shape) - 1, np.round(index).astype(int)
    return np.clip(voxel, 0, last) if np.all((index >= -1.0) & (index <= last + 1.0)) else voxel


def _labels_around(labels: np.ndarray, voxel: np.ndarray, margin: int) -> np.ndarray:
    return labels[tuple(slice(max(index - margin, 0), max(index + margin + 1, 0)) for index in voxel)]


def _largest_number(labels: np.ndarray, voxel: np.ndarray) -> Component | None:
    for margin in _REFERENCE_MARGINS:
        number = int(_labels_around(labels, voxel, margin).max(initial=0))
        if number:
            return Component(tuple(slice(0, size) for size in labels.shape), labels == number)
    return None


VARIANTS: dict[str, Callable[[_Masks, Sequence[Click]], list[Component | None]]] = {
    "paper": _paper,
    "permissive": _permissive,
    "reference": _reference,
}
