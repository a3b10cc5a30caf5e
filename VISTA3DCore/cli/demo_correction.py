"""The second half of the demonstration: a few clicks correct one of the automatic results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.evaluation.clicking import honest
from VISTA3DCore.evaluation.statistics import StructureStatistics

if TYPE_CHECKING:
    from VISTA3DCore.evaluation.clicking import Curve
    from VISTA3DCore.imaging.clicks import Click
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.inference.session import Session
    from VISTA3DCore.progress import Progress

CLICKS = 3
#: So many structures are tried, those with the lowest Dice; smaller ones (ml in the reference) are not.
TRIED, LEAST_ML = 4, 10.0


@dataclass(frozen=True, eq=False)
class Correction:
    """What clicks made of one structure.

    :param structure: the automatic result's figures.
    :param clicks: in the order of placement.
    :param dice: before the first click, then after each click.
    :param mask: the structure after the last click, bool [i, j, k].
    :param others: the structures that were tried, too: display name, Dice before and after the last click.
    """

    structure: StructureStatistics
    clicks: tuple[Click, ...]
    dice: tuple[float, ...]
    mask: np.ndarray
    others: tuple[tuple[str, float, float], ...]

    @property
    def gain(self) -> float:
        return self.dice[-1] - self.dice[0]

    def applied(self, segmentation: Segmentation) -> Segmentation:
        """Return the segmentation with the corrected structure; its voxels are taken from other structures."""
        index = self.structure.index
        labels = np.where(segmentation.labels == index, 0, segmentation.labels)
        labels[self.mask] = index
        clicks = f"{len(self.clicks)} simulated, on {self.structure.structure}"
        provenance = {**segmentation.provenance, "clicks": clicks}
        return replace(segmentation, labels=labels, masks={}, provenance=provenance)


def correct_one(
    session: Session,
    segmentation: Segmentation,
    rows: Sequence[StructureStatistics],
    reference: np.ndarray,
    reference_ml: dict[int, float],
    progress: Progress,
) -> Correction | None:
    """Correct the structures with the lowest Dice by simulated clicks, and return the one that gains most.

    Each click is at the deepest voxel of the largest error, and its result is kept, better or worse
    (:func:`VISTA3DCore.evaluation.clicking.honest`).

    :param rows: figures of the automatic result. :param reference: label map [i, j, k] of catalogue indices.
    :param reference_ml: volume of each structure in the reference.
    :return: None if no structure is large enough and wrong somewhere.
    """
    large = [row for row in rows if reference_ml.get(row.index, 0.0) >= LEAST_ML]
    tried = sorted(large, key=lambda row: row.dice)[:TRIED]
    curves: list[Curve] = []
    for number, row in enumerate(tried):
        part = progress.part(number / len(tried), (number + 1) / len(tried))
        target, base = reference == row.index, segmentation[row.index]
        curves.append(honest(session, row.index, target, segmentation.affine, base, CLICKS, progress=part))
    pairs = [(row, curve) for row, curve in zip(tried, curves, strict=True) if curve.clicks]
    if not pairs:
        return None
    (row, curve), *others = sorted(pairs, key=lambda pair: pair[1].dice[0] - pair[1].dice[-1])
    base = segmentation[row.index]
    mask = session.click(row.index, curve.clicks, base if base.any() else None).mask
    return Correction(
        structure=row,
        clicks=curve.clicks,
        dice=curve.dice[: len(curve.clicks) + 1],
        mask=mask,
        others=tuple((other.display_name, found.dice[0], found.dice[-1]) for other, found in others),
    )
