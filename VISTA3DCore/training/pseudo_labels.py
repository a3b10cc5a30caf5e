"""Labels for CTs that nobody annotated: a model's predictions, as far as they can be relied on.

The paper learns from predictions on unlabelled CTs (its supervoxel stage needs to know where the background is). A
prediction is asked for several times, of the CT as it is and of the same CT a little larger and smaller: what a network
has understood stays what it is. The rest becomes unknown, which no loss ever sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from VISTA3DCore.anatomy.catalogue import Catalogue
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.components import label_components
from VISTA3DCore.inference.session import Segmenter
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.datasets import IGNORE

TOO_SMALL, UNSTEADY, WRONG_SIDE = "too small", "its predictions disagree", "on the wrong side"


@dataclass(frozen=True)
class Reliability:
    """What a prediction must fulfil to be learned from.

    :param scales: sizes of the body that the network is shown; 1 is the true one.
    :param agreement: smallest mean Dice between a structure's predictions.
    :param smallest_ml: smaller structures are not relied on.
    :param piece: a piece is unknown if it is smaller than this part of the structure's largest one.
    """

    scales: tuple[float, ...] = (0.93, 1.0, 1.07)
    agreement: float = 0.8
    smallest_ml: float = 1.0
    piece: float = 0.1


@dataclass(frozen=True, eq=False)
class PseudoLabel:
    """What can be relied on.

    :param labels: uint8 [i, j, k] of the CT's grid: class indices, 0 for none of them, 255 for unknown.
    :param agreement: mean Dice between the predictions of each structure that was predicted, by index.
    :param dropped: why the structures that are not relied on are not, by index.
    """

    labels: np.ndarray
    agreement: Mapping[int, float]
    dropped: Mapping[int, str]


def pseudo_label(
    segmenter: Segmenter,
    volume: Volume,
    reliability: Reliability | None = None,
    preset: str = "paper",
    progress: Progress | None = None,
) -> PseudoLabel:
    """Predict the structures of a CT that compete with each other, and keep what is reliable.

    :param preset: as for :meth:`Session.segment`.
    :raises InputError: if there are fewer than two scales, or the volume cannot be segmented by this model.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    reliability, progress = reliability or Reliability(), Progress.of(progress)
    count = len(reliability.scales)
    if count < 2:
        raise InputError("Predictions are compared with each other; give at least two scales.")
    views = [
        _seen(segmenter, volume, scale, preset, progress.part(number / count, (number + 1) / count))
        for number, scale in enumerate(reliability.scales)
    ]
    return relied_on(views, volume, segmenter.catalogue, reliability)


def relied_on(
    views: Sequence[np.ndarray], volume: Volume, catalogue: Catalogue, reliability: Reliability
) -> PseudoLabel:
    """Return what several predictions agree upon.

    :param views: label maps [i, j, k] of class indices on the grid of ``volume``, which gives the size of a voxel.
    """
    agreement = _agreement(views)
    labels = views[0].astype(np.uint8)
    for view in views[1:]:
        labels[view != views[0]] = IGNORE
    dropped = {index: UNSTEADY for index, dice in agreement.items() if dice < reliability.agreement}
    for index in sorted(set(agreement) - set(dropped)):
        reason = _doubt(labels, index, volume, catalogue, reliability)
        dropped |= {index: reason} if reason else {}
        if not reason:
            _drop_small_pieces(labels, index, reliability.piece)
    if dropped:
        for view in views:
            labels[np.isin(view, list(dropped))] = IGNORE
    return PseudoLabel(labels, agreement, dropped)


def _seen(segmenter: Segmenter, volume: Volume, scale: float, preset: str, progress: Progress) -> np.ndarray:
    """Return the label map of a CT whose body is shown larger or smaller."""
    affine = volume.affine @ np.diag([scale, scale, scale, 1.0])
    with segmenter.open(Volume(volume.array, affine, volume.name)) as session:
        options = {"progress": progress, "streaming": True, "cleanup": False}
        return session.segment("everything", preset, "smooth", **options).labels


def _agreement(views: Sequence[np.ndarray]) -> dict[int, float]:
    """Return the mean Dice between the label maps for each index that occurs."""
    tables = []
    for first, second in combinations(views, 2):
        joint = np.bincount(first.ravel().astype(np.int32) * (IGNORE + 1) + second.ravel(), minlength=(IGNORE + 1) ** 2)
        joint = joint.reshape(IGNORE + 1, IGNORE + 1)
        tables.append(2 * np.diag(joint) / np.maximum(joint.sum(axis=0) + joint.sum(axis=1), 1))
    mean = np.mean(tables, axis=0)
    present = {int(index) for view in views for index in np.unique(view)} - {0, IGNORE}
    return {index: float(mean[index]) for index in sorted(present)}


def _doubt(labels: np.ndarray, index: int, volume: Volume, catalogue: Catalogue, reliability: Reliability) -> str:
    """Return why a structure that the predictions agree upon is not relied on all the same, or nothing."""
    places = np.argwhere(labels == index)
    ml = len(places) * abs(np.linalg.det(volume.affine[:3, :3])) / 1000
    if not len(places) or ml < reliability.smallest_ml:
        return TOO_SMALL
    side = catalogue[index].laterality
    if side is None:
        return ""
    everything = np.argwhere((labels > 0) & (labels < IGNORE))
    right = apply_affine(volume.affine, np.stack([places.mean(axis=0), everything.mean(axis=0)]))[:, 0]
    return "" if (right[0] > right[1]) == (side == "right") else WRONG_SIDE


def _drop_small_pieces(labels: np.ndarray, index: int, share: float) -> None:
    pieces, count = label_components(labels == index)
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < share * sizes.max()) + 1
    labels[np.isin(pieces, small)] = IGNORE
