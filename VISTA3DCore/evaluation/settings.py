"""Choose what an evaluation measures: protocols, variants, structures, and how results are made.

A protocol says how the model is asked. In the variant ``honest`` it is asked as a user asks it: the reference decides
where a simulated user clicks, never which result is kept. ``paper`` is what the published numbers of VISTA3D were
measured with; there, but in ``auto``, the reference takes part in the result (:mod:`VISTA3DCore.evaluation.windowed`).

| | honest | paper |
|---|---|---|
| ``auto`` | as ``vista3d segment``: the structures compete | each structure for itself: its score is positive |
| ``point`` | one click in the middle of the structure | one click in every window that holds a part of it |
| ``auto+point`` | clicks on the largest error, one after another | in every window three trials, the best is kept |
| ``zero-shot`` | the same from nothing, class unknown | the best result so far, slices without reference blanked |

``clicks``, ``clicks-from-nothing`` and ``clicks-zero-shot`` measure Dice after each click alone, from the automatic
result, from nothing, and for an object of which the model is told no class. Their variants are ``honest`` and the two
oracles of :mod:`VISTA3DCore.evaluation.clicking`.
"""

from __future__ import annotations

from dataclasses import dataclass

from VISTA3DCore.errors import InputError

HONEST, PAPER = "honest", "paper"
BEST_SO_FAR, TRIALS = "oracle_best_so_far", "oracle_trials"
AUTO, POINT, AUTO_POINT, ZERO_SHOT = "auto", "point", "auto+point", "zero-shot"
CLICKS, CLICKS_FROM_NOTHING, CLICKS_ZERO_SHOT = "clicks", "clicks-from-nothing", "clicks-zero-shot"

#: The variants of each protocol.
PROTOCOL_VARIANTS = {
    **dict.fromkeys((AUTO, POINT, AUTO_POINT, ZERO_SHOT), (HONEST, PAPER)),
    CLICKS: (HONEST, BEST_SO_FAR, TRIALS),
    CLICKS_FROM_NOTHING: (HONEST, BEST_SO_FAR),
    CLICKS_ZERO_SHOT: (HONEST, BEST_SO_FAR),
}
#: Protocols that measure Dice after each click alone.
CLICK_PROTOCOLS = frozenset({CLICKS, CLICKS_FROM_NOTHING, CLICKS_ZERO_SHOT})
#: Protocols that tell the model no class.
ZERO_SHOT_PROTOCOLS = frozenset({ZERO_SHOT, CLICKS_ZERO_SHOT})
#: Deviation in mm that counts as none; TotalSegmentator's evaluation (https://doi.org/10.1148/ryai.230024) uses 3 mm.
TOLERANCE_MM = 3.0


@dataclass(frozen=True)
class Settings:
    """What an evaluation measures.

    :param protocols: keys of :data:`PROTOCOL_VARIANTS`.
    :param variants: measured of every protocol.
    :param classes: names, synonyms, indices, groups; ``everything`` stands for all that a reference holds.
    :param clicks: the largest number of clicks of protocols that set them one after another.
    :param tolerance_mm: of the surface Dice; None to measure no surfaces.
    :param preset: of the honest automatic result; the paper's variants always use ``paper``.
    :param restoration: of the honest automatic result.
    :param seed: of clicks at random places.
    :raises InputError: if a name is unknown or a number makes no sense.
    """

    protocols: tuple[str, ...] = (AUTO,)
    variants: tuple[str, ...] = (HONEST,)
    classes: tuple[str, ...] = ("everything",)
    clicks: int = 5
    tolerance_mm: float | None = TOLERANCE_MM
    preset: str = "paper"
    restoration: str = "smooth"
    seed: int = 0

    def __post_init__(self) -> None:
        for protocol in self.protocols:
            if protocol not in PROTOCOL_VARIANTS:
                known = ", ".join(PROTOCOL_VARIANTS)
                raise InputError(f"There is no protocol '{protocol}'; use one of: {known}.")
            for variant in self.variants:
                if variant not in (known_variants := PROTOCOL_VARIANTS[protocol]):
                    known = ", ".join(known_variants)
                    raise InputError(f"There is no variant '{variant}' of '{protocol}'; use one of: {known}.")
        if self.clicks < 1:
            raise InputError(f"At least one click is needed, not {self.clicks}.")
        if self.tolerance_mm is not None and not self.tolerance_mm >= 0:
            raise InputError(f"The tolerance is a length in mm, 0 or more, not {self.tolerance_mm}.")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Protocols with their variants, in order."""
        return [(protocol, variant) for protocol in self.protocols for variant in self.variants]

    def unused_by(self, protocol: str, variant: str) -> list[str]:
        """Return the settings that do not change what a protocol measures."""
        curves = CLICK_PROTOCOLS | {ZERO_SHOT}
        counted = protocol in curves or (protocol == AUTO_POINT and variant == HONEST)
        random = variant != HONEST and protocol in curves | {AUTO_POINT}
        automatic = (variant == HONEST and protocol.startswith(AUTO)) or protocol == CLICKS
        used = {"clicks": counted, "seed": random, "preset": automatic, "restoration": automatic}
        return [name for name, is_used in used.items() if not is_used]
