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
from VISTA3DCore.imaging.components import label_components
from VISTA3DCore.imaging.geometry import apply_affine
from VISTA3DCore.imaging.volume import Volume
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
    places = _Places.of(labels)
    for index in sorted(set(agreement) - set(dropped)):
        reason = _doubt(places, index, volume.affine, catalogue, reliability)
        dropped |= {index: reason} if reason else {}
        if not reason:
            _drop_small_pieces(labels[places.box(index)], index, reliability.piece)
    if dropped:
        unknown = np.zeros(IGNORE + 1, dtype=bool)
        unknown[list(dropped)] = True
        for view in views:
            for plane in range(view.shape[2]):
                labels[:, :, plane][unknown[view[:, :, plane]]] = IGNORE
    return PseudoLabel(labels, agreement, dropped)


def _seen(segmenter: Segmenter, volume: Volume, scale: float, preset: str, progress: Progress) -> np.ndarray:
    """Return the label map of a CT whose body is shown larger or smaller."""
    affine = volume.affine @ np.diag([scale, scale, scale, 1.0])
    with segmenter.open(Volume(volume.array, affine, volume.name)) as session:
        options = {"progress": progress, "streaming": True, "cleanup": False}
        return session.segment("everything", preset, "smooth", **options).labels


def _agreement(views: Sequence[np.ndarray]) -> dict[int, float]:
    """Return the mean Dice between the label maps for each index that occurs."""
    tables, present, size = [], set[int](), IGNORE + 1
    for first, second in combinations(views, 2):
        joint = np.zeros(size * size, dtype=np.int64)
        for plane in range(first.shape[2]):
            pairs = first[:, :, plane].astype(np.intp) * size + second[:, :, plane]
            joint += np.bincount(pairs.ravel(), minlength=size * size)
        joint = joint.reshape(size, size)
        sums = joint.sum(axis=0) + joint.sum(axis=1)
        present |= set(np.flatnonzero(sums).tolist())
        tables.append(2 * np.diag(joint) / np.maximum(sums, 1))
    mean = np.mean(tables, axis=0)
    return {index: float(mean[index]) for index in sorted(present - {0, IGNORE})}


@dataclass(frozen=True, eq=False)
class _Places:
    """Where each label of a map is: one pass over the map, a plane at a time, instead of a list of its voxels.

    :param profiles: for each axis, how many voxels of each label have each index: int64 [index, label].
    """

    profiles: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, labels: np.ndarray) -> _Places:
        """:param labels: uint8 [i, j, k]."""
        size = IGNORE + 1
        profiles = tuple(np.zeros((length, size), dtype=np.int64) for length in labels.shape)
        rows, columns = (size * np.arange(length) for length in labels.shape[:2])
        for number in range(labels.shape[2]):
            plane = labels[:, :, number]
            for axis, keys in enumerate((rows[:, None], columns)):
                counts = np.bincount((plane + keys).ravel(), minlength=profiles[axis].size)
                profiles[axis][...] += counts.reshape(-1, size)
            profiles[2][number] = np.bincount(plane.ravel(), minlength=size)
        return cls(profiles)

    def count(self, index: int) -> int:
        """Return how many voxels have a label."""
        return int(self.profiles[2][:, index].sum())

    def center(self, indices: int | slice) -> np.ndarray:
        """Return the mean voxel index [3] of one label, or of several together; there must be a voxel."""
        weights = [profile[:, indices].reshape(len(profile), -1).sum(axis=1) for profile in self.profiles]
        return np.array([np.average(np.arange(len(weight)), weights=weight) for weight in weights])

    def box(self, index: int) -> tuple[slice, slice, slice]:
        """Return the box around a label that occurs."""
        lines = (np.flatnonzero(profile[:, index]) for profile in self.profiles)
        return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)


def _doubt(places: _Places, index: int, affine: np.ndarray, catalogue: Catalogue, reliability: Reliability) -> str:
    """Return why a structure that the predictions agree upon is not relied on all the same, or nothing."""
    count = places.count(index)
    if not count or count * abs(np.linalg.det(affine[:3, :3])) / 1000 < reliability.smallest_ml:
        return TOO_SMALL
    side = catalogue[index].laterality
    if side is None:
        return ""
    everything = places.center(slice(1, IGNORE))
    right = apply_affine(affine, np.stack([places.center(index), everything]))[:, 0]
    return "" if (right[0] > right[1]) == (side == "right") else WRONG_SIDE


def _drop_small_pieces(labels: np.ndarray, index: int, share: float) -> None:
    pieces, count = label_components(labels == index)
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    small = np.flatnonzero(sizes < share * sizes.max()) + 1
    labels[np.isin(pieces, small)] = IGNORE
