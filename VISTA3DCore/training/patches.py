"""Training patches: drawn by weight, cut by class, varied; everything that prompts are sampled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from VISTA3DCore.errors import InputError
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.augmentation import FEW_CASES, MAPS, PAPER, patch_transform, seed_transform
from VISTA3DCore.training.caching import CaseStore
from VISTA3DCore.training.cases import Case
from VISTA3DCore.training.datasets import LoadedCase, PatchData
from VISTA3DCore.training.sampling import BY_CASE, class_voxels, crop_map, sampling_weights
from VISTA3DCore.training.synthetic import SyntheticAnatomy


@dataclass(frozen=True)
class PatchConfig:
    """How patches are drawn.

    :param augmentation: a recipe of :func:`patch_transform`.
    :param crop: side of what is cut before it is deformed (``few-cases``); a quarter more than the window by default.
    :param weighting: see :func:`sampling_weights`.
    :param synthetic: share of patches that are synthetic.
    :param in_memory: cases that each process keeps in memory, with the voxels of their classes.
    """

    seed: int = 0
    augmentation: str = PAPER
    crop: int | None = None
    weighting: str = BY_CASE
    synthetic: float = 0.0
    in_memory: int = 8


class PatchSource(Dataset):
    """The patches of a run. Number ``n`` depends on the seed and ``n`` alone, however many processes draw them.

    :param cases: loaded ones, or the store that loads them, padded to at least :func:`crop_side`.
    :param model: gives the window.
    :param length: how many patches there are.
    :param synthetic: where synthetic patches come from.
    :raises InputError: if there is no case, a share of synthetic patches without a source, or an unknown setting.
    """

    def __init__(
        self,
        cases: CaseStore | Sequence[LoadedCase],
        model: ModelConfig,
        length: int,
        config: PatchConfig | None = None,
        synthetic: SyntheticAnatomy | None = None,
    ) -> None:
        self.config = config or PatchConfig()
        if not len(cases):
            raise InputError("There is no labelled case to train on.")
        if self.config.synthetic and synthetic is None:
            raise InputError("Synthetic patches were asked for, but there is no source of them.")
        self.cases, self.synthetic, self._length = cases, synthetic, length
        self.weights = sampling_weights(_described(cases), self.config.weighting)
        crop = self.config.crop or crop_side(model, self.config.augmentation)
        self._transform = patch_transform(model, crop, self.config.augmentation)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> PatchData:
        """Return a patch.

        :raises InputError: if a case's files cannot be used.
        """
        if not 0 <= number < self._length:
            raise IndexError(number)
        rng = np.random.default_rng((self.config.seed, number))
        if rng.random() < self.config.synthetic:
            return self.synthetic.patch((self.config.seed, number, 1))
        case, arrays = self._prepared(int(rng.choice(len(self.weights), p=self.weights)))
        seed_transform(self._transform, int(rng.integers(2**31)))
        return _patch(self._transform(dict(arrays))[0], case)

    def _prepared(self, index: int) -> tuple[LoadedCase, dict[str, Any]]:
        if not hasattr(self, "_kept"):
            self._kept = lru_cache(self.config.in_memory)(self._load)
        return self._kept(index)

    def _load(self, index: int) -> tuple[LoadedCase, dict[str, Any]]:
        case = self.cases[index]
        arrays = {key: torch.as_tensor(getattr(case, key)) for key in MAPS if getattr(case, key) is not None}
        return case, {**arrays, "label_cls_indices": class_voxels(crop_map(case))}

    def __getstate__(self) -> dict[str, Any]:
        """What another process gets: not what this one holds in memory."""
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def crop_side(model: ModelConfig, recipe: str) -> int:
    """Return the side that volumes need at least and that is cut first: the window, or room to deform around it."""
    return round(1.25 * max(model.window)) if recipe == FEW_CASES else max(model.window)


def _described(cases: CaseStore | Sequence[LoadedCase]) -> Sequence[Case]:
    return cases.cases if isinstance(cases, CaseStore) else [one.case for one in cases]


def _patch(arrays: dict[str, torch.Tensor], case: LoadedCase) -> PatchData:
    found = {key: np.asarray(arrays[key])[0] for key in MAPS if key in arrays}
    types = {"image": np.float32, "supervoxel": np.int32}
    maps = {key: np.ascontiguousarray(array, types.get(key, np.uint8)) for key, array in found.items()}
    return PatchData(meaning=case.meaning, name=case.case.name, **maps)
