"""A study of clicking: protocols over structures, starts and cases."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.clicking import AUTOMATIC, NOTHING, PROTOCOLS, Curve
from VISTA3DCore.evaluation.references import Reference, ReferenceCase, Target, read_reference, unique
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.inference.session import Session

# Share of a case's progress that reading, opening and the automatic run take.
_PREPARATION = 0.15


@dataclass(frozen=True)
class Plan:
    """What is measured.

    :param classes: names, synonyms, indices, groups; ``everything`` stands for all that the reference holds.
    :param protocols: keys of :data:`PROTOCOLS`.
    :param starts: ``automatic``, ``nothing``.
    :param clicks: how many to set.
    :param zero_shot: tell the model no class, as for a structure that it never saw.
    :param preset: of the automatic result.
    :param restoration: of the automatic result.
    :param seed: of the protocols that click at random.
    :raises InputError: if these do not fit together.
    """

    classes: tuple[str, ...] = ("everything",)
    protocols: tuple[str, ...] = ("honest",)
    starts: tuple[str, ...] = (AUTOMATIC,)
    clicks: int = 5
    zero_shot: bool = False
    preset: str = "paper"
    restoration: str = "smooth"
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("protocol", self.protocols, tuple(PROTOCOLS)),
            ("start", self.starts, (AUTOMATIC, NOTHING)),
        ):
            for name in given:
                if name not in known:
                    raise InputError(f"There is no {kind} '{name}'; use one of: {', '.join(known)}.")
        if self.clicks < 1:
            raise InputError(f"At least one click is needed, not {self.clicks}.")
        if self.zero_shot and AUTOMATIC in self.starts:
            raise InputError("A new object (zero-shot) has no automatic result; start from 'nothing'.")
        if "oracle_trials" in self.protocols and NOTHING in self.starts:
            raise InputError(
                "The protocol 'oracle_trials' starts from the automatic result; use the start 'automatic'."
            )


def evaluate_cases(
    segmenter: Segmenter, cases: Sequence[ReferenceCase], plan: Plan, progress: Progress | None = None
) -> list[Curve]:
    """Measure several cases; structures that a case's reference does not hold are passed over.

    :raises InputError: if no case holds anything that was asked for, or a case cannot be read.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    progress = Progress.of(progress)
    curves: list[Curve] = []
    for done, case in enumerate(cases):
        part = progress.part(done / len(cases), (done + 1) / len(cases))
        curves += _evaluate(segmenter, case, plan, part, strict=False)
    if not curves:
        asked = ", ".join(plan.classes)
        raise InputError(f"None of the {len(cases)} cases holds a structure to measure ({asked}); ask for others.")
    return curves


def evaluate_case(
    segmenter: Segmenter, case: ReferenceCase, plan: Plan, progress: Progress | None = None
) -> list[Curve]:
    """Measure one case.

    :raises InputError: if the reference does not hold what was asked for or does not lie on the image's grid.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    return _evaluate(segmenter, case, plan, Progress.of(progress), strict=True)


def _evaluate(segmenter: Segmenter, case: ReferenceCase, plan: Plan, progress: Progress, strict: bool) -> list[Curve]:
    progress.update(0.0, "Reading", case.name)
    volume = Volume.read(case.image)
    reference = read_reference(case, volume, segmenter.catalogue)
    targets = _targets(reference, segmenter, plan, strict)
    if not targets:
        return []
    with segmenter.open(volume, progress=progress.part(0.0, 0.05)) as session:
        automatic = _automatic(session, targets, plan, progress.part(0.05, _PREPARATION))
        runs = list(itertools.product(targets, plan.protocols, plan.starts))
        curves = []
        for done, (target, protocol, start) in enumerate(runs):
            base = automatic[target.structure] if automatic is not None and start == AUTOMATIC else None
            part = progress.part(*(_PREPARATION + (1.0 - _PREPARATION) * n / len(runs) for n in (done, done + 1)))
            mask = reference.mask(target)
            curve = PROTOCOLS[protocol](
                session, target.structure, mask, volume.affine, base, plan.clicks, plan.seed, part
            )
            curves.append(replace(curve, case=case.name, structure=target.name))
    return curves


def _targets(reference: Reference, segmenter: Segmenter, plan: Plan, strict: bool) -> list[Target]:
    """Return what is measured in one case; where strict, each request must be there."""
    found: dict[str, Target] = {}
    for request in plan.classes:
        some = reference.objects([request]) if plan.zero_shot else reference.targets([request], segmenter.available)
        if strict and not some:
            held = ", ".join(unique(reference.names)[:12]) or "nothing known"
            raise InputError(f"The reference does not hold '{request}' for this model; it holds: {held}.")
        found.update((target.name, target) for target in some)
    return list(found.values())


def _automatic(session: Session, targets: Sequence[Target], plan: Plan, progress: Progress) -> Segmentation | None:
    """Return the automatic result, of one network pass for all targets; None where no run starts from it."""
    if AUTOMATIC not in plan.starts:
        return None
    return session.segment(
        [target.structure for target in targets if target.structure is not None],
        preset=plan.preset,
        restoration=plan.restoration,
        progress=progress,
        streaming=True,
    )
