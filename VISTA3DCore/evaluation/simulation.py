"""Simulated clicks: where somebody who knows the reference would point. Pure functions of masks and an affine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click, positions_of
from VISTA3DCore.imaging.components import Component, bounding_box, label_components
from VISTA3DCore.imaging.geometry import apply_affine, spacing_of

# The components of prompts and errors are 26-connected upstream (get_largest_connected_component_mask with skimage's
# default, full connectivity).
_CONNECTIVITY = 26
# Depths (mm) closer than this are a plateau, such as the axis of a vessel.
_PLATEAU_MM = 1e-3


def center_click(target: np.ndarray, affine: np.ndarray) -> Click:
    """Return the first click that the paper's protocols set: the middle of the target.

    The target is eroded by 3 x 3 x 3 voxels, its largest component (26-connected) taken, and the voxel nearest to the
    centroid chosen (MONAI, ``sample_points_from_label`` with ``use_center``). If erosion leaves nothing, the largest
    component of the target itself counts. Distances are in mm; ties go to the lowest R, then A, then S.

    :param target: bool [i, j, k].
    :param affine: 4x4, voxel index -> RAS mm.
    :return: a positive click at a voxel's center.
    :raises InputError: if the target is empty.
    """
    component = largest_component(eroded(target)) or largest_component(target)
    if component is None:
        raise InputError("The reference mask is empty; there is nothing to click.")
    positions = apply_affine(affine, _voxels(component))
    return Click(_nearest(positions, positions.mean(axis=0)))


def next_click(
    target: np.ndarray,
    current: np.ndarray,
    affine: np.ndarray,
    *,
    earlier: Sequence[Click] = (),
    rng: np.random.Generator | None = None,
) -> Click | None:
    """Return a click on the largest error, as :func:`largest_errors` finds it.

    Without ``rng`` it lies at the deepest voxel, the one farthest in mm from the outside of the error; of several
    (the axis of a vessel) at the one nearest to the error's centroid, then at the lowest R, A, S. With ``rng`` it is
    any voxel of the error, as in the reference (``get_next_points_val``).

    :param target: bool [i, j, k], what is right.
    :param current: bool [i, j, k], what is shown.
    :param affine: 4x4, voxel index -> RAS mm.
    :param earlier: clicks set before; an error that is still there is clicked at another place.
    :return: positive on a miss, negative on a spill; None where nothing (unclicked) is wrong.
    """
    missed, spilled = largest_errors(target, current, affine, earlier)
    positive = spilled is None or (missed is not None and missed.voxel_count() >= spilled.voxel_count())
    error = missed if positive else spilled
    if error is None:
        return None
    return random_click(error, affine, rng, positive) if rng else Click(_deepest(error, affine), positive)


def largest_errors(
    target: np.ndarray, current: np.ndarray, affine: np.ndarray, earlier: Sequence[Click] = ()
) -> tuple[Component | None, Component | None]:
    """Return the largest component of what is missed, and of what is spilled, after erosion by 3 x 3 x 3 voxels.

    If erosion leaves nothing of either, the errors count as they are. None stands for no error of that kind. Voxels
    under ``earlier`` clicks are left out.
    """
    missed, spilled = target & ~current, current & ~target
    for error in (missed, spilled):
        _clear(error, affine, earlier)
    thick = largest_component(eroded(missed)), largest_component(eroded(spilled))
    return thick if any(thick) else (largest_component(missed), largest_component(spilled))


def random_click(
    region: Component | np.ndarray, affine: np.ndarray, rng: np.random.Generator, positive: bool = True
) -> Click:
    """Return a click at a random voxel of a component or a bool array.

    :raises InputError: if there is no voxel.
    """
    voxels = _voxels(region) if isinstance(region, Component) else np.argwhere(region)
    if not len(voxels):
        raise InputError("The mask is empty; there is nothing to click.")
    return Click(tuple(apply_affine(affine, voxels[rng.integers(len(voxels))])), positive)


def eroded(mask: np.ndarray) -> np.ndarray:
    """Erode a bool array by 3 x 3 x 3 voxels; beyond the volume's border the object continues (MONAI's ``erode``)."""
    result = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is not None:
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        part = np.pad(mask[around], 1, constant_values=True)
        for axis in range(3):
            first, middle, last = (_shifted(part, axis, start) for start in range(3))
            part = first & middle & last
        result[around] = part
    return result


def largest_component(mask: np.ndarray) -> Component | None:
    """Return the largest 26-connected component of a bool array, or None if it is empty."""
    box = bounding_box(mask)
    if box is None:
        return None
    labels, _ = label_components(mask[box], _CONNECTIVITY)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    component = labels == sizes.argmax()
    inner = bounding_box(component)
    assert inner is not None
    i, j, k = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
    return Component((i, j, k), component[inner])


def _deepest(component: Component, affine: np.ndarray) -> tuple[float, float, float]:
    """Return the position (RAS mm) of the component's deepest voxel."""
    inside = component.mask
    outside = np.pad(~inside, 1, constant_values=True).astype(np.uint8)
    image = sitk.GetImageFromArray(outside)
    image.SetSpacing(spacing_of(affine)[::-1].tolist())  # ITK counts the axes from the last one
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    depth = sitk.GetArrayViewFromImage(distance)[1:-1, 1:-1, 1:-1]
    deepest = np.argwhere(inside & (depth >= depth[inside].max() - _PLATEAU_MM)) + _origin(component)
    centroid = apply_affine(affine, _voxels(component).mean(axis=0))
    return _nearest(apply_affine(affine, deepest), centroid)


def _nearest(positions: np.ndarray, center: np.ndarray) -> tuple[float, float, float]:
    """Return the position nearest to a center; of equally near ones the lowest R, then A, then S, rounded to 1 um."""
    distances = np.linalg.norm(positions - center, axis=1)
    tied = positions[distances <= distances.min() + _PLATEAU_MM]
    order = np.lexsort(np.round(tied, 3).T[::-1])
    return tuple(tied[order[0]])


def _clear(error: np.ndarray, affine: np.ndarray, clicks: Sequence[Click]) -> None:
    """Take the voxels under clicks out of an error, in place."""
    if not clicks:
        return
    voxels = np.rint(apply_affine(np.linalg.inv(affine), positions_of(clicks))).astype(int)
    inside = np.all((voxels >= 0) & (voxels < error.shape), axis=1)
    error[tuple(voxels[inside].T)] = False


def _shifted(array: np.ndarray, axis: int, start: int) -> np.ndarray:
    cut = [slice(None)] * 3
    cut[axis] = slice(start, start + array.shape[axis] - 2)
    return array[tuple(cut)]


def _voxels(component: Component) -> np.ndarray:
    """Return the indices [n, 3] of its voxels in the whole array."""
    return np.argwhere(component.mask) + _origin(component)


def _origin(component: Component) -> tuple[int, ...]:
    return tuple(side.start for side in component.box)
