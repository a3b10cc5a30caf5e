"""Validation during a run: Dice on fixed patches of held-out cases, the best one, and when to stop."""

from __future__ import annotations

from typing import Any

import numpy as np

from VISTA3DCore.training.objective import Objective
from VISTA3DCore.training.processes import Processes
from VISTA3DCore.training.recipe import ValidationRecipe
from VISTA3DCore.training.samples import Samples

BRANCHES = ("automatic", "click")


class Judge:
    """Judges a network now and then.

    :param samples: of held-out cases; None: there is nothing to judge by.
    """

    def __init__(
        self, objective: Objective, samples: Samples | None, processes: Processes, recipe: ValidationRecipe
    ) -> None:
        self._objective, self._samples, self._processes, self._recipe = objective, samples, processes, recipe
        self.best: float | None = None
        """The highest mean Dice; None while nothing could be measured, or nothing above 0."""
        self.scored = False
        """Whether anything could be measured."""
        self._failures = 0

    @property
    def patient_no_more(self) -> bool:
        """Whether the last validations were no better than one before."""
        return self._recipe.patience is not None and self._failures >= self._recipe.patience

    def judge(self) -> tuple[dict[str, float], bool]:
        """Return the mean Dice of each branch, and whether their mean is the best so far.

        A Dice of 0 is never the best, and a validation counts as a failure only after a better one.
        """
        sums = np.zeros((len(BRANCHES), 2))
        for number in range(self._processes.rank, len(self._samples), self._processes.count):
            for name, values in self._objective.dice(self._samples[number]).items():
                sums[BRANCHES.index(name)] += np.sum(values), len(values)
        totals = np.reshape(self._processes.summed(sums.ravel().tolist()), sums.shape)
        scores = {name: float(row[0] / row[1]) for name, row in zip(BRANCHES, totals, strict=True) if row[1]}
        score = float(np.mean(list(scores.values()))) if scores else 0.0
        better = score > (self.best or 0.0)
        if better:
            self.best, self._failures = score, 0
        elif scores and self.best is not None:
            self._failures += 1
        self.scored = self.scored or bool(scores)
        return scores, better

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"best": self.best, "failures": self._failures, "scored": self.scored}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.best, self._failures = state["best"] or None, state["failures"]
        self.scored = state.get("scored", self.best is not None)
