"""Which case comes next, and which voxel of it a patch is centred on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.training.cases import Case
from VISTA3DCore.training.datasets import IGNORE, LoadedCase

BY_CASE, BY_DATASET = "case", "dataset"
WEIGHTINGS = (BY_CASE, BY_DATASET)

_MOST_VOXELS = 20_000
"""Voxels of one class that are kept as possible centres; more would only cost memory."""


def sampling_weights(cases: Sequence[Case], weighting: str = BY_CASE) -> np.ndarray:
    """Return the probability with which each case is drawn, float64 [n], sum 1.

    :param weighting: ``case``: by the weights of the cases alone; ``dataset``: these times 100 / number of its
        dataset's cases, so that each dataset is drawn equally often (``dataset_weights.yaml`` of the reference,
        stages 2 and 4).
    :raises InputError: if no case may be drawn, or a weight is negative.
    """
    if weighting not in WEIGHTINGS:
        raise InputError(f"There is no weighting '{weighting}'; choose one of {', '.join(WEIGHTINGS)}.")
    weights = np.array([case.weight for case in cases], float)
    if weighting == BY_DATASET:
        counts = Counter(case.dataset for case in cases)
        weights *= [100.0 / counts[case.dataset] for case in cases]
    if not np.all(weights >= 0) or not weights.sum() > 0 or not np.isfinite(weights).all():
        raise InputError("The weights of the training cases must be positive numbers; check 'weight' in the data list.")
    return weights / weights.sum()


def crop_map(case: LoadedCase) -> np.ndarray:
    """Return the map whose codes crops are balanced over, [1, i, j, k]: the pseudo-label where there is one.

    Upstream balances over pseudo-labels always; where there are none, over the labels.
    """
    return case.label if case.pseudo_label is None else case.pseudo_label


def class_voxels(label: np.ndarray, most: int = _MOST_VOXELS, seed: int = 0) -> list[np.ndarray]:
    """Return possible centres for each code below ``IGNORE``: flat voxel indices, of large ones a random choice.

    The list is what MONAI's ``RandCropByLabelClassesd`` takes as ``indices_key``; with equal ratios it draws a code
    that is there, then one of its voxels, so that an adrenal gland is as often in the middle as a liver.

    :param label: uint8, any shape.
    """
    flat = label.reshape(-1)
    order = np.argsort(flat, kind="stable")
    edges = np.searchsorted(flat[order], np.arange(IGNORE + 1))
    rng = np.random.default_rng(seed)
    found = [order[start:stop] for start, stop in pairwise(edges)]
    return [one if len(one) <= most else np.sort(rng.choice(one, most, replace=False)) for one in found]
