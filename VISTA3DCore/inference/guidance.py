"""Where the next click would help most: the places at which the network is least sure, or disagrees with the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.inference.click_scores import ScoreMap
from VISTA3DCore.inference.components import label_components

# A new click closer than this to an earlier one tells the network little (paper section on clicks: tens of voxels).
CLEARANCE_MM = 10.0
_DOUBTFUL = 0.5
_SMALLEST = 4


@dataclass(frozen=True)
class Suggestion:
    """A place to look at next.

    :param position: RAS mm, the centre of a voxel of the model grid.
    :param score: 0 (no doubt) to 1 (a large region of doubt); comparable within one answer.
    :param positive: what the network would say: True if it thinks that the place belongs to the object.
    """

    position: tuple[float, float, float]
    score: float
    positive: bool


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

    Doubtful are the voxels at the surface of the mask whose scores are near zero, and the regions in which network and
    mask disagree (whose components no click has touched yet). Each connected region of doubt gives one place; its score
    is its mean doubt times the cube root of its share of the largest region.

    :param score_map: the network's answer.
    :param mask: bool [x, y, z] of the score map's box, what the user sees.
    :param affine: 4x4, voxel index of these arrays -> RAS mm.
    :param earlier: [n, 3] positions of earlier clicks in RAS mm; nothing is suggested within :data:`CLEARANCE_MM`.
    """
    doubt = _doubt(score_map, mask)
    labels, found = label_components(doubt > _DOUBTFUL)
    if not found:
        return ()
    numbers = np.arange(1, found + 1)
    sizes = np.bincount(labels.ravel(), minlength=found + 1)[1:]
    smooth = ndimage.uniform_filter(doubt, 3)
    places = np.array(ndimage.maximum_position(smooth, labels, numbers))
    scores = ndimage.mean(doubt, labels, numbers) * np.cbrt(sizes / sizes.max())
    order = [row for row in np.lexsort((numbers, -scores)) if sizes[row] >= min(_SMALLEST, sizes.max())]
    chosen = _apart(apply_affine(affine, places[order]), earlier, count)
    return tuple(
        Suggestion(
            tuple(apply_affine(affine, places[order[row]]).tolist()),
            float(min(scores[order[row]], 1.0)),
            bool(score_map.scores[tuple(places[order[row]])] > 0),
        )
        for row in chosen
    )


def _doubt(score_map: ScoreMap, mask: np.ndarray) -> np.ndarray:
    """Return the doubt [x, y, z] in 0..1."""
    surface = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
    doubt = np.where(surface, uncertainty_of(score_map.scores, score_map.known), np.float32(0))
    doubt[score_map.known & ((score_map.scores > 0) != mask)] = 1.0
    return doubt


def _apart(positions: np.ndarray, earlier: np.ndarray, count: int) -> Sequence[int]:
    """Return the first ``count`` rows that keep their distance from earlier clicks and from each other."""
    taken, rows = list(earlier), []
    for row, position in enumerate(positions):
        if len(rows) == count:
            break
        if all(np.linalg.norm(position - other) >= CLEARANCE_MM for other in taken):
            taken.append(position)
            rows.append(row)
    return rows
