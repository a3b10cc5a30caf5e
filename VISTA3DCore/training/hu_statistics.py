"""Mean HU of structures in the phases of contrast."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.training.datasets import IGNORE

_FILE = Path(__file__).with_name("hu_statistics.json")


@dataclass(frozen=True, eq=False)
class HuStatistics:
    """What structures measure.

    :param phases: names, the native one first.
    :param mean: float [phases, 256], HU by class; NaN where nothing is known (bones, lungs: they hardly take contrast).
    :param spread: the same shape, standard deviation between patients.
    """

    phases: tuple[str, ...]
    mean: np.ndarray
    spread: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Whether a class is listed, bool [256]."""
        return np.isfinite(self.mean[0])

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return the mean HU of each class in one imaginary patient, [256]; NaN where nothing is known.

        Half of the patients are in one of the phases, the others somewhere between two of them.
        """
        first, second = rng.integers(len(self.phases), size=2)
        share = 0.0 if rng.random() < 0.5 else rng.random()
        mean, spread = ((1 - share) * table[first] + share * table[second] for table in (self.mean, self.spread))
        return np.maximum(mean + spread * rng.normal(size=mean.shape).clip(-2, 2), -20.0)


@cache
def hu_statistics(path: Path = _FILE) -> HuStatistics:
    """Read statistics from a JSON file, by default the packaged ones.

    :raises InputError: if the file is not of that form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        phases, known = tuple(content["phases"]), catalogue()
        tables = np.full((2, len(phases), IGNORE + 1), np.nan)
        for entry in content["structures"]:
            for name in entry["names"]:
                tables[:, :, known[name].index] = np.array([entry[phase] for phase in phases], float).T
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' holds no HU statistics ({error}).") from error
    return HuStatistics(phases, *tables)
