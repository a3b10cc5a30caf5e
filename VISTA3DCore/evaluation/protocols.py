"""Ask a model for the structures of one case, as each protocol of :mod:`VISTA3DCore.evaluation.settings` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from VISTA3DCore.evaluation.cases import OpenCase, Result
from VISTA3DCore.evaluation.clicking import honest, oracle_best_so_far, oracle_trials
from VISTA3DCore.evaluation.references import Target
from VISTA3DCore.evaluation.settings import (
    AUTO,
    AUTO_POINT,
    BEST_SO_FAR,
    CLICKS,
    CLICKS_FROM_NOTHING,
    CLICKS_ZERO_SHOT,
    HONEST,
    PAPER,
    POINT,
    TRIALS,
    ZERO_SHOT,
)
from VISTA3DCore.evaluation.simulation import center_click
from VISTA3DCore.progress import Progress

Protocol = Callable[[OpenCase, Progress], Iterator[Result]]
_SIMULATIONS = {HONEST: honest, BEST_SO_FAR: oracle_best_so_far, TRIALS: oracle_trials}


def _automatic(case: OpenCase, progress: Progress) -> Iterator[Result]:
    wanted = (*case.targets, *case.missing)
    if not wanted:
        return
    progress.update(0.0, "Segmenting")
    segmentation, seconds = case.automatic
    for target in wanted:
        yield Result(target, segmentation[target.known], seconds=seconds / len(wanted))


def _point(case: OpenCase, progress: Progress) -> Iterator[Result]:
    for part, target in _each(case.targets, progress):
        part.update(0.0, "Clicking", target.name)
        started = time.perf_counter()
        click = center_click(case.mask(target), case.affine)
        mask = case.session.click(target.structure, [click]).mask
        yield Result(target, mask, 1, time.perf_counter() - started)


def _clicks(variant: str, *, automatic: bool = False, zero_shot: bool = False) -> Protocol:
    """Return a protocol that sets clicks one after another.

    :param variant: key of :data:`_SIMULATIONS`.
    :param automatic: start from the automatic result, not from nothing.
    :param zero_shot: tell the model no class.
    """

    def run(case: OpenCase, progress: Progress) -> Iterator[Result]:
        settings = case.settings
        for part, target in _each(case.objects if zero_shot else case.targets, progress):
            base = case.automatic[0][target.known] if automatic else None
            curve = _SIMULATIONS[variant](
                case.session,
                target.structure,
                case.mask(target),
                case.affine,
                base,
                settings.clicks,
                settings.seed,
                part,
            )
            seconds = sum(curve.seconds)
            yield Result(target, curve.mask, len(curve.clicks), seconds, curve.dice, curve.clicks, curve.seconds)

    return run


def _windowed(name: str) -> Protocol:
    """Return a protocol of the paper that goes window by window; its module loads torch only when it is used."""

    def run(case: OpenCase, progress: Progress) -> Iterator[Result]:
        from VISTA3DCore.evaluation import windowed

        yield from getattr(windowed, name)(case, progress)

    return run


PROTOCOLS: dict[str, dict[str, Protocol]] = {
    AUTO: {HONEST: _automatic, PAPER: _windowed("automatic")},
    POINT: {HONEST: _point, PAPER: _windowed("point")},
    AUTO_POINT: {HONEST: _clicks(HONEST, automatic=True), PAPER: _windowed("automatic_and_point")},
    ZERO_SHOT: {HONEST: _clicks(HONEST, zero_shot=True), PAPER: _clicks(BEST_SO_FAR, zero_shot=True)},
    CLICKS: {name: _clicks(name, automatic=True) for name in (HONEST, BEST_SO_FAR, TRIALS)},
    CLICKS_FROM_NOTHING: {name: _clicks(name) for name in (HONEST, BEST_SO_FAR)},
    CLICKS_ZERO_SHOT: {name: _clicks(name, zero_shot=True) for name in (HONEST, BEST_SO_FAR)},
}


def _each(targets: Sequence[Target], progress: Progress) -> Iterator[tuple[Progress, Target]]:
    """Hand out the targets, each with its part of the progress."""
    for done, target in enumerate(targets):
        yield progress.part(done / len(targets), (done + 1) / len(targets)), target
