"""Where the next click would help most: the places at which the network is least sure, or disagrees with the mask."""

from __future__ import annotations

import numpy as np

from VISTA3DCore.imaging.components import label_components
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.imaging.morphology import box_mean, depth, surface
from VISTA3DCore.inference.clicks.results import Suggestion
from VISTA3DCore.inference.clicks.scores import ScoreMap

__all__ = ["CLEARANCE_MM", "Suggestion", "suggestions", "uncertainty_of"]

# A new click closer than this to an earlier one tells the network little (paper section on clicks: tens of voxels).
CLEARANCE_MM = 10.0
_DOUBTFUL = 0.5
_SMALLEST = 4


def uncertainty_of(scores: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return 4 p (1 - p) of the probability p: 1 where the score is 0, towards 0 where it is sure or nothing is known.

    :param scores: logits, any shape.
    """
    probability = 1.0 / (1.0 + np.exp(-np.clip(scores, -60.0, 60.0)))
    return np.where(known, 4.0 * probability * (1.0 - probability), 0.0).astype(np.float32)


def suggestions(
    score_map: ScoreMap, mask: np.ndarray, affine: np.ndarray, earlier: np.ndarray, count: int
) -> tuple[Suggestion, ...]:
    """Return the most useful places for the next clicks, the best first.

    Doubtful are the voxels at the surface of the mask whose scores are near zero, and those in which network and mask
    disagree. A doubtful voxel's score is the mean doubt around it times the cube root of the share that its connected
    region has of the largest one.

    :param score_map: the network's answer.
    :param mask: bool [x, y, z] of the score map's box, what the user sees.
    :param affine: 4x4, voxel index of these arrays -> RAS mm.
    :param earlier: [n, 3] positions of earlier clicks in RAS mm; nothing is suggested within :data:`CLEARANCE_MM`.
    """
    doubt = _doubt(score_map, mask)
    labels, found = label_components(doubt > _DOUBTFUL)
    if not found:
        return ()
    voxels = np.argwhere(labels)
    numbers = labels[tuple(voxels.T)]
    sizes = np.bincount(numbers)
    # The depth decides between equally doubtful voxels: the middle of a region, not its first voxel in memory.
    deep = depth(labels > 0)
    around = 0.99 * box_mean(doubt) + 0.01 * deep / deep.max()
    scores = around[tuple(voxels.T)] * np.cbrt(sizes / sizes.max())[numbers]
    positions = apply_affine(affine, voxels)
    rows = _apart(positions, np.where(sizes[numbers] >= min(_SMALLEST, sizes.max()), scores, 0.0), earlier, count)
    inside = score_map.scores[tuple(voxels[rows].T)] > 0
    return tuple(
        Suggestion(tuple(positions[row].tolist()), float(scores[row]), bool(positive))
        for row, positive in zip(rows, inside, strict=True)
    )


def _doubt(score_map: ScoreMap, mask: np.ndarray) -> np.ndarray:
    """Return the doubt [x, y, z] in 0..1."""
    uncertainty = uncertainty_of(score_map.scores, score_map.known)
    doubt = np.where(surface(mask), uncertainty, np.float32(0))
    doubt[score_map.known & ((score_map.scores > 0) != mask)] = 1.0
    return doubt


def _apart(positions: np.ndarray, scores: np.ndarray, earlier: np.ndarray, count: int) -> list[int]:
    """Return the rows of the highest scores above 0 that keep their distance from earlier clicks and each other."""
    free = scores > 0
    for place in earlier:
        free &= _far(positions, place)
    rows: list[int] = []
    while len(rows) < count and free.any():
        rows.append(int(np.argmax(np.where(free, scores, -1.0))))
        free &= _far(positions, positions[rows[-1]])
    return rows


def _far(positions: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.linalg.norm(positions - place, axis=1) >= CLEARANCE_MM
