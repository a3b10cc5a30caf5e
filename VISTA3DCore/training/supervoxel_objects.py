"""Objects that no catalogue knows, cut out of supervoxels: what teaches the interactive branch to follow any click.

The four kinds of ``Point_sampler`` in the reference (vista3d/scripts/utils/sample_utils.py), as pure functions. Each
returns None where the patch has nothing suitable, and the caller then clicks the organ as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from VISTA3DCore.evaluation.simulation import eroded, largest_component
from VISTA3DCore.imaging.components import bounding_box, label_components
from VISTA3DCore.training.click_sampling import Clicks, added, clickable, joined, random_voxels

REGULAR, ORGAN_SUB, ORGAN_ADD = "regular", "organ_sub", "organ_add"
ZERO_SHOT_UNSEEN, ZERO_SHOT_RANDOM = "zeroshot_unseen", "zeroshot_random"
KINDS = (REGULAR, ORGAN_SUB, ORGAN_ADD, ZERO_SHOT_UNSEEN, ZERO_SHOT_RANDOM)

# Parts of an organ that are taken away, as a share of it.
_SMALLEST_PART, _LARGEST_PART = 0.1, 0.9
# An organ joins a supervoxel that holds more than this share of it; a supervoxel joins an organ if it is larger.
_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Parts:
    """What objects are cut from.

    :param supervoxel: int32 [i, j, k], 0 = none.
    :param label: uint8 [i, j, k], complete: what is 0 in it is no organ.
    :param background: bool [i, j, k]: label 0 and not part of another object yet.
    :param prompted: codes that are asked for already.
    :param points: positive clicks for each object.
    :param margin: voxels of the patch's border in which nothing is clicked.
    :param smallest: voxels that an object in the background has at least.
    :param zero_shot: how often an organ with something added or taken away is presented as an unknown object.
    """

    supervoxel: np.ndarray
    label: np.ndarray
    background: np.ndarray
    prompted: frozenset[int]
    points: int
    margin: int
    smallest: int
    zero_shot: float


@dataclass(frozen=True, eq=False)
class PartObject:
    """An object that was cut.

    :param target: bool [i, j, k].
    :param clicks: the first ones.
    :param zero_shot: it is presented as an unknown object, not as the organ that it was made of.
    """

    target: np.ndarray
    clicks: Clicks
    zero_shot: bool


def organ_sub(parts: Parts, organ: np.ndarray, rng: np.random.Generator) -> PartObject | None:
    """Return an organ without one of its supervoxels, or (as often) that supervoxel alone as an unknown object.

    One click at least on either side of the cut.

    :param organ: bool [i, j, k].
    """
    size, alone = np.count_nonzero(organ), bool(rng.random() < 0.5)
    for number in _numbers(parts.supervoxel, organ, _SMALLEST_PART * size, rng):
        part = opened_largest((parts.supervoxel == number) & organ)
        if not _SMALLEST_PART * size <= np.count_nonzero(part) <= _LARGEST_PART * size:
            continue
        target, rest = (part, organ & ~part) if alone else (organ & ~part, part)
        positive = random_voxels(clickable(target, parts.margin), parts.points, rng)
        negative = random_voxels(clickable(rest, parts.margin), 1, rng)
        if len(positive) and len(negative):
            zero_shot = alone or bool(rng.random() < parts.zero_shot)
            return PartObject(target, joined(positive, negative), zero_shot)
    return None


def organ_add(parts: Parts, organ: np.ndarray, rng: np.random.Generator) -> PartObject | None:
    """Return an organ and the part of a supervoxel that goes on beyond it, with clicks on both.

    :param organ: bool [i, j, k].
    """
    size, box = np.count_nonzero(organ), bounding_box(organ)
    near = dilated(organ, 5)
    for number in _numbers(parts.supervoxel, organ, 1, rng):
        part = _largest_near((parts.supervoxel == number) & parts.background, near)
        if np.count_nonzero(part) < _SHARE * size:
            continue
        beyond = random_voxels(clickable(part, parts.margin, box), parts.points, rng)
        inner = clickable(organ, parts.margin)
        within = random_voxels(inner if inner.any() else organ, parts.points, rng)
        if len(beyond):
            clicks = joined(np.concatenate([beyond, within]), beyond[:0])
            return PartObject(organ | part, clicks, bool(rng.random() < parts.zero_shot))
    return None


def zero_shot_unseen(parts: Parts, organ: np.ndarray | None, rng: np.random.Generator) -> PartObject | None:  # noqa: ARG001
    """Return a supervoxel of the background as an unknown object.

    :param organ: not used; all kinds have one signature.
    """
    for number in _numbers(parts.supervoxel, parts.background, parts.smallest, rng):
        part = opened_largest((parts.supervoxel == number) & parts.background)
        if np.count_nonzero(part) < parts.smallest:
            continue
        positive = random_voxels(clickable(part, parts.margin), parts.points, rng)
        if len(positive):
            return PartObject(part, joined(positive, positive[:0]), zero_shot=True)
    return None


def zero_shot_random(parts: Parts, organ: np.ndarray | None, rng: np.random.Generator) -> PartObject | None:  # noqa: ARG001
    """Return a supervoxel with the organs that it holds more than a tenth of, as one unknown object.

    :param organ: not used; all kinds have one signature.
    """
    for number in _numbers(parts.supervoxel, parts.background, 1, rng):
        part = opened_largest(parts.supervoxel == number)
        codes = np.unique(parts.label[part])
        if np.count_nonzero(part) < parts.smallest or not parts.prompted.isdisjoint(codes.tolist()):
            continue
        target, clicks = _with_organs(parts, part, rng.permutation(codes[codes > 0]).tolist(), rng)
        own = random_voxels(clickable(part & parts.background, parts.margin), parts.points, rng)
        if len(own):
            return PartObject(target, added(clicks, joined(own, own[:0])), zero_shot=True)
    return None


MAKERS: dict[str, Callable[[Parts, np.ndarray, np.random.Generator], PartObject | None]] = {
    ORGAN_SUB: organ_sub,
    ORGAN_ADD: organ_add,
    ZERO_SHOT_UNSEEN: zero_shot_unseen,
    ZERO_SHOT_RANDOM: zero_shot_random,
}


def _with_organs(
    parts: Parts, part: np.ndarray, codes: list[int], rng: np.random.Generator
) -> tuple[np.ndarray, Clicks]:
    """Return a supervoxel joined with organs, and a click in what each of them shares with it."""
    target, points = part.copy(), [np.zeros((0, 3), np.int64)]
    for code in codes:
        organ = parts.label == code
        shared = organ & part
        if np.count_nonzero(shared) > _SHARE * np.count_nonzero(organ):
            target |= organ
            points.append(random_voxels(clickable(shared, parts.margin), 1, rng))
    return target, joined(np.concatenate(points), points[0])


def _numbers(supervoxel: np.ndarray, region: np.ndarray, least: float, rng: np.random.Generator) -> Iterator[int]:
    """Yield the supervoxels that have at least ``least`` voxels in a region, in random order."""
    numbers, counts = np.unique(supervoxel[region], return_counts=True)
    fitting = numbers[(numbers > 0) & (counts >= least)]
    yield from rng.permutation(fitting).tolist()


def opened_largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest 26-connected component of an eroded mask, dilated within the mask: no bridges, no crumbs."""
    core = largest_component(eroded(mask))
    result = np.zeros_like(mask)
    if core is not None:
        result[core.box] = core.mask
        result = dilated(result, 3) & mask
    return result


def _largest_near(mask: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the largest component of an eroded mask that reaches ``near``, dilated by 5 x 5 x 5 within the mask."""
    labels, count = label_components(eroded(mask))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    touching = np.unique(labels[near])
    touching = touching[touching > 0]
    if not len(touching):
        return np.zeros_like(mask)
    return dilated(labels == touching[sizes[touching].argmax()], 5) & mask


def dilated(mask: np.ndarray, side: int) -> np.ndarray:
    """Dilate a bool array by a cube of ``side`` voxels."""
    box = bounding_box(mask)
    result = np.zeros_like(mask)
    if box is not None:
        reach = side // 2
        box = tuple(slice(max(one.start - reach, 0), one.stop + reach) for one in box)
        result[box] = ndimage.maximum_filter(mask[box].view(np.uint8), side, mode="constant").view(bool)
    return result
