"""The second half of the demonstration: a few clicks correct an automatic result, or find what is not claimed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.evaluation.clicking import honest
from VISTA3DCore.evaluation.statistics import StructureStatistics

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure
    from VISTA3DCore.evaluation.clicking import Curve
    from VISTA3DCore.imaging.clicks import Click
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.inference.session import Session
    from VISTA3DCore.progress import Progress

CLICKS = 3
#: So many claimed structures are tried, those with the lowest Dice, and so many that are not claimed, the largest;
#: smaller ones (ml in the reference) are not.
TRIED, LEAST_ML = 4, 10.0


@dataclass(frozen=True, eq=False)
class Correction:
    """What clicks made of one structure.

    :param structure: the automatic result's figures; without voxels where the model does not claim the structure.
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
        index, structures = self.structure.index, segmentation.structures
        if index not in {structure.index for structure in structures}:
            structures = (*structures, catalogue()[index])
        labels = np.where(segmentation.labels == index, 0, segmentation.labels)
        labels[self.mask] = index
        clicks = f"{len(self.clicks)} simulated, on {self.structure.structure}"
        provenance = {**segmentation.provenance, "clicks": clicks}
        return replace(segmentation, labels=labels, masks={}, structures=structures, provenance=provenance)


def correct_one(
    session: Session,
    segmentation: Segmentation,
    rows: Sequence[StructureStatistics],
    unclaimed: Sequence[Structure],
    reference: np.ndarray,
    reference_ml: dict[int, float],
    progress: Progress,
) -> Correction | None:
    """Correct the claimed structures with the lowest Dice by simulated clicks, find the largest unclaimed ones, and
    return the one that gains most.

    Each click is at the deepest voxel of the largest error, and its result is kept, better or worse
    (:func:`VISTA3DCore.evaluation.clicking.honest`).

    :param rows: figures of the automatic result. :param unclaimed: what the reference has beyond it.
    :param reference: label map [i, j, k] of catalogue indices.
    :param reference_ml: volume of each structure in the reference.
    :return: None if no structure is large enough and wrong somewhere.
    """
    large = [row for row in rows if reference_ml.get(row.index, 0.0) >= LEAST_ML]
    missing = [one for one in unclaimed if reference_ml[one.index] >= LEAST_ML]
    missing = sorted(missing, key=lambda one: -reference_ml[one.index])[:TRIED]
    tried = sorted(large, key=lambda row: row.dice or 0.0)[:TRIED]
    tried += [StructureStatistics(one.name, one.display_name, one.index, 0, 0.0, None, None, 0.0) for one in missing]
    found = {row.index for row in rows}
    curves: list[Curve] = []
    for number, row in enumerate(tried):
        part = progress.part(number / len(tried), (number + 1) / len(tried))
        target, base = reference == row.index, segmentation[row.index] if row.index in found else None
        curves.append(honest(session, row.index, target, segmentation.affine, base, CLICKS, progress=part))
    pairs = [(row, curve) for row, curve in zip(tried, curves, strict=True) if curve.clicks]
    if not pairs:
        return None
    (row, curve), *others = sorted(pairs, key=lambda pair: pair[1].dice[0] - pair[1].dice[-1])
    return Correction(
        structure=row,
        clicks=curve.clicks,
        dice=curve.dice[: len(curve.clicks) + 1],
        mask=curve.mask,
        others=tuple((other.display_name, clicked.dice[0], clicked.dice[-1]) for other, clicked in others),
    )
