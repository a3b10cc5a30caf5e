"""A click: where the user pointed, and whether that place belongs to the object. Needs numpy alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from VISTA3DCore.errors import InputError


@dataclass(frozen=True)
class Click:
    """One click.

    :param position: RAS millimetres.
    :param positive: True if the place belongs to the object, False if it does not.
    :raises InputError: if the position is not three finite numbers.
    """

    position: tuple[float, float, float]
    positive: bool = True

    def __post_init__(self) -> None:
        try:
            position = tuple(float(value) for value in self.position)
        except (TypeError, ValueError):
            position = ()
        if len(position) != 3 or not all(map(math.isfinite, position)):
            raise InputError(f"A click needs a position of three finite numbers in RAS mm, not {self.position}.")
        object.__setattr__(self, "position", position)
        object.__setattr__(self, "positive", bool(self.positive))


def positions_of(clicks: Iterable[Click]) -> np.ndarray:
    """Return the positions [n, 3] of clicks in RAS mm, float64."""
    return np.array([click.position for click in clicks], dtype=np.float64).reshape(-1, 3)
