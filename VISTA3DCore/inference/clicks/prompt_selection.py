"""Which of many clicks the network is told: those that say something new, about as many as it was trained for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from VISTA3DCore.imaging.clicks import Click, positions_of

# Clicks of one polarity closer than this (a voxel of the small model, three of the released one) say the same.
APART_MM = 5.0
# Networks are trained with about ten clicks on an object; the paper's evaluation goes to eighty.
MOST_CLICKS = 80


def thinned(clicks: Sequence[Click]) -> tuple[Click, ...]:
    """Return the clicks that the network is told, in their order.

    The last click is always told. Of the earlier ones, going from the first on, a click is left out if one of its
    polarity that is told lies closer than :data:`APART_MM`. While more than :data:`MOST_CLICKS` remain, the distance is
    doubled. So the choice depends on the list alone, and a short list with clicks apart is told as it is.
    """
    distance = APART_MM
    chosen = _apart(clicks, distance)
    while len(chosen) > MOST_CLICKS:
        distance *= 2
        chosen = _apart(clicks, distance)
    return tuple(chosen)


def _apart(clicks: Sequence[Click], distance: float) -> list[Click]:
    positions, polarities = positions_of(clicks), np.array([click.positive for click in clicks], dtype=bool)
    told = np.zeros(len(clicks), dtype=bool)
    for number, position in enumerate(positions):
        rivals = positions[told & (polarities == polarities[number])]
        last = number == len(clicks) - 1
        told[number] = last or bool(np.all(np.linalg.norm(rivals - position, axis=1) >= distance))
    return [click for click, one in zip(clicks, told, strict=True) if one]
