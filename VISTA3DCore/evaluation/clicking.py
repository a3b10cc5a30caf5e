"""Protocols that measure what clicks do: Dice against the number of clicks.

``honest`` is what a user experiences. The two others are the paper's, which look at the reference to decide which
result to keep; their names say so.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.simulation import center_click, largest_errors, next_click, random_click
from VISTA3DCore.evaluation.statistics import dice
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import ras_orientation
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Structure

#: Trials of the paper's auto+point evaluation (``build_vista3d_eval_only.py``, ``n_trials``).
TRIAL_COUNT = 3


class Clickable(Protocol):
    """What a protocol needs of a :class:`VISTA3DCore.inference.session.Session`."""

    def click(
        self, structure: str | int | Structure | None, clicks: Sequence[Click], base: np.ndarray | None = None
    ) -> Any:
        """Return an object whose ``mask`` is the result, bool [i, j, k] on the input grid."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Dice against the number of clicks, for one structure of one case.

    :param dice: ``dice[n]`` after n clicks (after n trials in ``oracle_trials``); ``dice[0]`` is the start's. Where
        nothing was left to click, the last value is repeated.
    :param clicks: the clicks that were set, in order; fewer than asked for where nothing was left to click.
    :param seconds: time of each call of ``session.click``; the first ones may encode windows.
    :param mask: bool [i, j, k], the result whose Dice is the last one.
    """

    dice: tuple[float, ...]
    clicks: tuple[Click, ...]
    seconds: tuple[float, ...]
    mask: np.ndarray


def honest(
    session: Clickable,
    structure: str | int | Structure | None,
    target: np.ndarray,
    affine: np.ndarray,
    base: np.ndarray | None = None,
    clicks: int = 5,
    seed: int = 0,  # noqa: ARG001 - nothing is random here
    progress: Progress | None = None,
) -> Curve:
    """Click on the largest error of the mask shown, again and again, and keep every result, better or worse.

    The first click from nothing lies in the middle of the target, every other one at the deepest voxel of the largest
    error (:func:`next_click`). Each call carries the full list of clicks and the one base, as the interface does.

    :param structure: what the model is told; None for a new object (zero-shot).
    :param target: bool [i, j, k], the reference on the input grid.
    :param affine: 4x4, voxel index -> RAS mm.
    :param base: bool [i, j, k], the automatic result; None to start from nothing.
    :param clicks: how many to set at most.
    :raises InputError: if the target is empty.
    """
    run = _Run(session, structure, target, base, clicks, progress)
    return run.curve(_one_after_another(run, target, affine))


def oracle_best_so_far(
    session: Clickable,
    structure: str | int | Structure | None,
    target: np.ndarray,
    affine: np.ndarray,
    base: np.ndarray | None = None,
    clicks: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Curve:
    """Report after j clicks the best Dice over clicks 1 to j: an upper bound that needs the reference.

    The paper's zero-shot evaluation (``val_multigpu_point_iterative.py``): the first click in the middle of the
    target, then one at a random voxel of the largest error; axial slices without reference are blanked before
    errors and Dice are taken (``remove_out``). The paper starts from nothing and sets up to 80 clicks.

    Parameters and errors as of :func:`honest`; ``seed`` fixes the random voxels.
    """
    run = _Run(session, structure, target, base, clicks, progress, annotated_slices(target, affine), best_from=1)
    placed = _one_after_another(run, target, affine, np.random.default_rng(seed))
    return run.curve(placed)


def oracle_trials(
    session: Clickable,
    structure: str | int | Structure | None,
    target: np.ndarray,
    affine: np.ndarray,
    base: np.ndarray | None = None,
    clicks: int = TRIAL_COUNT,
    seed: int = 0,
    progress: Progress | None = None,
) -> Curve:
    """Try clicks on the automatic result and keep one only if Dice rises: an upper bound that needs the reference.

    The paper's auto+point evaluation (``build_vista3d_eval_only.py``). The first trial clicks a random voxel of the
    target; every further one a random voxel of the largest miss or, where the largest spill is at least as large, of
    that spill and of the target. Each trial starts from the automatic result with clicks of its own.

    What differs from the paper: there trials are made and kept in each window and here in the whole volume, so one
    click has to serve all of it; there a trial starts from the logits that the one before edited in place, which is
    a defect; and more than three trials can be asked for (``clicks``).

    Parameters and errors as of :func:`honest`; ``base`` is needed.

    :raises InputError: if there is no base.
    """
    if base is None:
        raise InputError("The protocol 'oracle_trials' starts from the automatic result; choose another protocol.")
    run = _Run(session, structure, target, base, clicks, progress, best_from=0)
    rng, placed = np.random.default_rng(seed), []
    for trial in range(clicks):
        own = trial_clicks(target, run.shown, affine, rng, first=trial == 0)
        run.score(own)
        placed += own
    return run.curve(placed)


class _Run:
    """Call the session and measure time and Dice for one protocol.

    :param calls: how often the session will be called at most.
    :param best_from: number of the first Dice from which on the best result so far counts; None: each counts itself.
    :param scored: bool, broadcasts to [i, j, k]: where results count; elsewhere they are blanked. None: everywhere.
    """

    def __init__(
        self,
        session: Clickable,
        structure: str | int | Structure | None,
        target: np.ndarray,
        base: np.ndarray | None,
        calls: int,
        progress: Progress | None,
        scored: np.ndarray | None = None,
        best_from: int | None = None,
    ) -> None:
        if base is not None and base.shape != target.shape:
            raise InputError(f"The grids differ: {base.shape} and {target.shape} voxels.")
        if not target.any():
            raise InputError("The reference mask is empty; there is nothing to click.")
        self.calls = calls
        self._session, self._structure, self._target, self._base = session, structure, target, base
        self._progress, self._scored, self._best_from = Progress.of(progress), scored, best_from
        self._seconds: list[float] = []
        self.shown = self._blanked(np.zeros(target.shape, dtype=bool) if base is None else base.astype(bool))
        self._scores = [dice(self.shown, target) or 0.0]
        self._last = self._best = self.shown
        # An automatic result without a voxel is nothing to correct, and no base for a session.
        self._met = base if base is not None and base.any() else None

    def score(self, clicks: Sequence[Click]) -> np.ndarray:
        """Return the mask, bool [i, j, k], after these clicks on the base; its Dice joins the scores."""
        done = len(self._seconds)
        self._progress.update(done / self.calls, "Clicking", f"{self._label}, click {done + 1} of {self.calls}")
        started = time.perf_counter()
        result = self._session.click(self._structure, list(clicks), self._met)
        self._seconds.append(time.perf_counter() - started)
        mask = self._blanked(result.mask)
        self._scores.append(dice(mask, self._target) or 0.0)
        self._last = mask
        if self._best_from is not None and self._scores[-1] > max(self._scores[1:-1], default=-1.0):
            self._best = mask
        return mask

    def curve(self, clicks: Sequence[Click]) -> Curve:
        """Return what was measured; the last Dice stands for the calls that were not needed."""
        scores, mask = self._scores, self._last
        if self._best_from is not None:
            scores[self._best_from :] = itertools.accumulate(scores[self._best_from :], max)
            mask = self.shown if scores[-1] == scores[0] else self._best
        dices = scores + scores[-1:] * (self.calls + 1 - len(scores))
        return Curve(tuple(dices), tuple(clicks), tuple(self._seconds), mask)

    @property
    def _label(self) -> str:
        return "new object" if self._structure is None else str(getattr(self._structure, "name", self._structure))

    def _blanked(self, mask: np.ndarray) -> np.ndarray:
        return mask if self._scored is None else mask & self._scored


def _one_after_another(
    run: _Run, target: np.ndarray, affine: np.ndarray, rng: np.random.Generator | None = None
) -> list[Click]:
    """Click on the largest error of the mask shown until nothing is wrong; from nothing, first in the middle."""
    shown = run.shown
    placed: list[Click] = []
    for _ in range(run.calls):
        first = not placed and not shown.any()
        click = center_click(target, affine) if first else next_click(target, shown, affine, earlier=placed, rng=rng)
        if click is None:
            break
        placed.append(click)
        shown = run.score(placed)
    return placed


def trial_clicks(
    target: np.ndarray, base: np.ndarray, affine: np.ndarray, rng: np.random.Generator, first: bool
) -> list[Click]:
    """Return the clicks of one trial (upstream ``get_next_points_auto_point``).

    The first one clicks a random voxel of the target; every further one a random voxel of the largest miss or, where
    the largest spill is at least as large, of that spill and of the target.

    :param target: bool [i, j, k], not empty.
    :param base: bool [i, j, k], the automatic result.
    """
    missed, spilled = (None, None) if first else largest_errors(target, base, affine)
    if missed is not None and (spilled is None or missed.voxel_count() > spilled.voxel_count()):
        return [random_click(missed, affine, rng)]
    negative = [] if spilled is None else [random_click(spilled, affine, rng, positive=False)]
    return [random_click(target, affine, rng), *negative]


def annotated_slices(target: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return a bool array that broadcasts to [i, j, k]: the axial slices that hold some reference."""
    axial = ras_orientation(affine)[0][2]
    return np.any(target, axis=tuple(axis for axis in range(3) if axis != axial), keepdims=True)
