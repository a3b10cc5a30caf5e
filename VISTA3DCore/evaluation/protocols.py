"""Protocols: how a model is asked for the structures of one case, and which masks count.

Each of the four has two variants. ``honest`` is what a user gets: the reference decides where a simulated user clicks,
never which result is kept. ``paper`` is what the published numbers of VISTA3D were measured with; there, but in
``auto``, the reference takes part in the result (:mod:`VISTA3DCore.evaluation.windowed`).

| | honest | paper |
|---|---|---|
| ``auto`` | as ``vista3d segment``: the structures compete | each structure for itself: its score is positive |
| ``point`` | one click in the middle of the structure | one click in every window that holds a part of it |
| ``auto+point`` | clicks on the largest error, one after another | in every window three trials, the best is kept |
| ``zero-shot`` | the same from nothing, class unknown | the best result so far, slices without reference blanked |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.clicking import Clickable, Curve, annotated_slices, honest, oracle_best_so_far
from VISTA3DCore.evaluation.metrics import TOLERANCE_MM
from VISTA3DCore.evaluation.references import Reference, Target
from VISTA3DCore.evaluation.simulation import centre_click
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Structure
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.inference.session import Session

HONEST, PAPER = "honest", "paper"
ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Settings:
    """What an evaluation measures.

    :param protocols: keys of :data:`PROTOCOLS`.
    :param variants: ``honest``, ``paper``.
    :param classes: names, synonyms, indices, groups; ``everything`` stands for all that a reference holds.
    :param clicks: how many the honest ``auto+point`` and both ``zero-shot`` set at most.
    :param tolerance_mm: of the surface Dice.
    :param preset: of the honest automatic result; the paper's variants always use ``paper``.
    :param restoration: of the honest automatic result.
    :param seed: of clicks at random places.
    :raises InputError: if a name is unknown or a number of clicks is none.
    """

    protocols: tuple[str, ...] = ("auto",)
    variants: tuple[str, ...] = (HONEST,)
    classes: tuple[str, ...] = ("everything",)
    clicks: int = 5
    tolerance_mm: float = TOLERANCE_MM
    preset: str = "paper"
    restoration: str = "smooth"
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, given, known in (("protocol", self.protocols, PROTOCOLS), ("variant", self.variants, VARIANTS)):
            for name in given:
                if name not in known:
                    raise InputError(f"There is no {kind} '{name}'; use one of: {', '.join(known)}.")
        if self.clicks < 1:
            raise InputError(f"At least one click is needed, not {self.clicks}.")
        if not self.tolerance_mm >= 0:
            raise InputError(f"The tolerance is a length in mm, 0 or more, not {self.tolerance_mm}.")


@dataclass(frozen=True, eq=False)
class Result:
    """What a protocol made of one structure.

    :param mask: bool [i, j, k] on the input grid.
    :param clicks: how many were set.
    :param seconds: of computing.
    :param curve: Dice after each click, where they were set one after another.
    """

    target: Target
    mask: np.ndarray
    clicks: int = 0
    seconds: float = 0.0
    curve: tuple[float, ...] = ()


@dataclass(eq=False)
class OpenCase:
    """One image and its reference; the image is opened when a protocol first asks for its session.

    :param volume: the image.
    :param targets: structures that the reference holds and the model knows.
    :param missing: structures that the dataset labels and the model knows, but this reference does not hold; their
        automatic result is measured, too.
    :param objects: everything that the reference holds, as objects of which the model is told nothing.
    """

    segmenter: Segmenter
    volume: Volume
    reference: Reference
    targets: Sequence[Target]
    missing: Sequence[Target]
    objects: Sequence[Target]
    settings: Settings

    @property
    def affine(self) -> np.ndarray:
        """4x4, voxel index -> RAS mm."""
        return self.volume.affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the input grid."""
        return self.volume.shape

    @cached_property
    def session(self) -> Session:
        """The opened image."""
        return self.segmenter.open(self.volume)

    def close(self) -> None:
        """Free what was opened."""
        if "session" in self.__dict__:
            self.session.close()

    def mask(self, target: Target) -> np.ndarray:
        """Return a target's voxels in the reference, bool [i, j, k]."""
        return self.reference.mask(target) if target.values else np.zeros(self.shape, dtype=bool)

    @cached_property
    def automatic(self) -> tuple[Segmentation, float]:
        """The automatic result for all targets, as a user gets it, and the seconds that it took."""
        started = time.perf_counter()
        structures = [target.structure for target in (*self.targets, *self.missing)]
        settings = self.settings
        result = self.session.segment(structures, settings.preset, settings.restoration, streaming=True)
        return result, time.perf_counter() - started


Protocol = Callable[[OpenCase, Progress], Iterator[Result]]


def _automatic(case: OpenCase, progress: Progress) -> Iterator[Result]:
    wanted = (*case.targets, *case.missing)
    if not wanted:
        return
    progress.update(0.0, "Segmenting")
    segmentation, seconds = case.automatic
    for target in wanted:
        yield Result(target, segmentation[target.structure], seconds=seconds / len(wanted))


def _point(case: OpenCase, progress: Progress) -> Iterator[Result]:
    for part, target in _each(case.targets, progress):
        part.update(0.0, "Clicking", target.name)
        started = time.perf_counter()
        click = centre_click(case.mask(target), case.affine)
        mask = case.session.click(target.structure, [click]).mask
        yield Result(target, mask, 1, time.perf_counter() - started)


def _corrected(case: OpenCase, progress: Progress) -> Iterator[Result]:
    for part, target in _each(case.targets, progress):
        base = case.automatic[0][target.structure]
        recorder = _Recorder(case.session, base)
        curve = honest(
            recorder, target.structure, case.mask(target), case.affine, base, case.settings.clicks, progress=part
        )
        yield _result(target, recorder.mask(len(curve.clicks)), curve)


def _new_object(case: OpenCase, progress: Progress) -> Iterator[Result]:
    for part, target in _each(case.objects, progress):
        recorder = _Recorder(case.session, np.zeros(case.shape, dtype=bool))
        curve = honest(recorder, None, case.mask(target), case.affine, None, case.settings.clicks, progress=part)
        yield _result(target, recorder.mask(len(curve.clicks)), curve)


def _new_object_of_the_paper(case: OpenCase, progress: Progress) -> Iterator[Result]:
    settings = case.settings
    for part, target in _each(case.objects, progress):
        recorder, mask = _Recorder(case.session, np.zeros(case.shape, dtype=bool)), case.mask(target)
        curve = oracle_best_so_far(
            recorder, None, mask, case.affine, None, settings.clicks, settings.seed, progress=part
        )
        best = curve.dice.index(curve.dice[-1])
        yield _result(target, recorder.mask(best) & annotated_slices(mask, case.affine), curve)


def _of_the_paper(name: str) -> Protocol:
    """Return a protocol that goes window by window; what it needs is imported when it is used."""

    def run(case: OpenCase, progress: Progress) -> Iterator[Result]:
        from VISTA3DCore.evaluation import windowed

        yield from getattr(windowed, name)(case, progress)

    return run


PROTOCOLS: dict[str, dict[str, Protocol]] = {
    "auto": {HONEST: _automatic, PAPER: _of_the_paper("automatic")},
    "point": {HONEST: _point, PAPER: _of_the_paper("point")},
    "auto+point": {HONEST: _corrected, PAPER: _of_the_paper("automatic_and_point")},
    ZERO_SHOT: {HONEST: _new_object, PAPER: _new_object_of_the_paper},
}
VARIANTS = (HONEST, PAPER)


class _Recorder:
    """A session that remembers what it answered: boxes and patches, not whole masks.

    :param base: bool [i, j, k], the mask from before the first click.
    """

    def __init__(self, session: Clickable, base: np.ndarray) -> None:
        self._session, self._base = session, base
        self._answers: list[tuple[tuple[slice, ...], np.ndarray]] = []

    def click(
        self, structure: str | int | Structure | None, clicks: Sequence[Click], base: np.ndarray | None = None
    ) -> Any:
        """As of the session."""
        result = self._session.click(structure, clicks, base)
        self._answers.append((result.box, result.patch))
        return result

    def mask(self, number: int) -> np.ndarray:
        """Return the mask after the n-th answer, bool [i, j, k]; the base for 0."""
        mask = self._base.copy()
        if number:
            box, patch = self._answers[number - 1]
            mask[box] = patch
        return mask


def _result(target: Target, mask: np.ndarray, curve: Curve) -> Result:
    return Result(target, mask, len(curve.clicks), sum(curve.seconds), curve.dice)


def _each(targets: Sequence[Target], progress: Progress) -> Iterator[tuple[Progress, Target]]:
    """Hand out the targets, each with its part of the progress."""
    for done, target in enumerate(targets):
        yield progress.part(done / len(targets), (done + 1) / len(targets)), target
