"""Random patches: class-balanced crops, deformation, noise, and contrast phases painted through the labels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    MapTransform,
    Rand3DElasticd,
    RandAffined,
    RandCropByLabelClassesd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    Randomizable,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
    RandZoomd,
)

from VISTA3DCore.errors import InputError
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.datasets import IGNORE

ARTERIES = (6, 58, 59, 109, 112, 113, 123, 124, 115, 108)
VEINS = (7, 17, 60, 61, 110, 111, 119, 125)
CONTRAST_HU = {
    ARTERIES: (25.0, 400.0),
    VEINS: (25.0, 250.0),
    (5, 14): (15.0, 220.0),
    (3,): (30.0, 180.0),
    (1,): (30.0, 130.0),
    (4,): (10.0, 120.0),
    (12, 13, 19, 62): (-20.0, 120.0),
    (15,): (-10.0, 60.0),
    (126,): (40.0, 200.0),
}
"""Mean HU that structures take between a native scan and an arterial or venous phase (ranges seen in clinical CT)."""


PAPER, FEW_CASES = "paper", "few-cases"
"""Recipes of augmentation."""

MAPS = ("image", "label", "pseudo_label", "supervoxel")
"""Keys of a case's arrays."""

_LUNG = 0.3
"""Scaled intensity between lung and soft tissue, about -360 HU."""


class RandContrastPhased(Randomizable, MapTransform):
    """Move labelled organs and vessels to a random contrast phase, keeping their texture.

    :param keys: the image, scaled to [0, 1]; ``label_key`` holds class indices.
    :param config: gives the intensity range that [0, 1] stands for.
    """

    def __init__(self, keys: KeysCollection, label_key: str, config: ModelConfig, prob: float = 0.6) -> None:
        super().__init__(keys)
        self._label_key, self._prob = label_key, prob
        self._low, self._width = config.intensity_range[0], config.intensity_range[1] - config.intensity_range[0]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        if self.R.rand() >= self._prob:
            return result
        for key in self.key_iterator(result):
            result[key] = self._painted(result[key], result[self._label_key])
        return result

    def _painted(self, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        change = torch.zeros_like(image)
        for indices, (lowest, highest) in CONTRAST_HU.items():
            target = (self.R.uniform(lowest, highest) - self._low) / self._width
            gain = self.R.uniform(0.5, 1.2)
            for index in indices:
                inside = label == index
                if inside.any():
                    values = image[inside]
                    change[inside] = (values - values.mean()) * (gain - 1) + target - values.mean()
        return (image + _blurred(change)).clamp(0, 1)


class RandTissueContrastd(Randomizable, MapTransform):
    """Vary density and texture of every labelled structure and of the tissue around, each by itself.

    Few patients show few scanners, kernels and bone densities; this keeps a network from learning those by heart and
    leaves it shape and place (the idea of SynthSeg, Billot et al. 2023, on real texture).

    Lung and air stay as they are.

    :param keys: the image, scaled to [0, 1]; ``label_key`` holds class indices.
    """

    def __init__(self, keys: KeysCollection, label_key: str, prob: float = 0.6) -> None:
        super().__init__(keys)
        self._label_key, self._prob = label_key, prob

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        if self.R.rand() >= self._prob:
            return result
        label = result[self._label_key].long()
        gain, shift = self.R.uniform(0.6, 1.3, 256), self.R.uniform(-0.02, 0.02, 256)
        gain, shift = (torch.as_tensor(values, dtype=torch.float32)[label] for values in (gain, shift))
        for key in self.key_iterator(result):
            image = result[key]
            tissue = image > _LUNG
            change = (gain - 1) * (image - self._means(image[tissue], label[tissue])[label]) + shift
            result[key] = (image + _blurred(change * tissue)).clamp(0, 1)
        return result

    @staticmethod
    def _means(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean of the values [n] of each label [n]; air must not be among them."""
        sums = torch.zeros(256).index_add_(0, labels, torch.as_tensor(values))
        return sums / labels.bincount(minlength=256).clamp(min=1)


def _blurred(change: torch.Tensor) -> torch.Tensor:
    """Organs do not end at a voxel's edge: a change fades over one voxel, as a scanner would blur it."""
    return torch.nn.functional.avg_pool3d(change[None], 3, stride=1, padding=1)[0]


class RandAirBesided(Randomizable, MapTransform):
    """Replace a part of the patch beside, before or behind the body by air, which is background.

    Cropped CTs hardly contain air, whole ones do; instance statistics of a window depend on its share. Without this a
    network that learned an organ from cropped CTs misses it in whole ones.

    :param keys: the image, scaled to [0, 1], and its maps.
    :param most: largest share of a side that is replaced.
    """

    def __init__(
        self, keys: KeysCollection, prob: float = 0.5, most: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self._prob, self._most = prob, most

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        if self.R.rand() >= self._prob:
            return result
        for key in self.key_iterator(result):
            result[key] = result[key].clone()
        for axis in self.R.permutation((1, 2))[: self.R.randint(1, 3)].tolist():
            size = result[self.keys[0]].shape[axis]
            depth = int(self.R.uniform(0, self._most) * size)
            start = self.R.choice((0, size - depth))
            for key in self.key_iterator(result):
                result[key].narrow(axis, int(start), depth).zero_()
        return result


def patch_transform(config: ModelConfig, crop: int, recipe: str = FEW_CASES) -> Compose:
    """Return the transform that cuts and varies one training patch.

    Input: ``image`` [1, i, j, k] scaled to [0, 1], ``label``, where the case has them ``pseudo_label`` and
    ``supervoxel`` of the same shape, and ``label_cls_indices`` (:func:`sampling.class_voxels`). Output: a list of one
    such dictionary. No flips, because left and right are classes of their own.

    :param crop: side of the region that is deformed before its centre, one window, is kept; the paper's recipe cuts
        windows.
    :param recipe: ``paper``: what the reference does, exactly; ``few-cases``: strong deformation, contrast phases
        painted through the labels, air; for training on a handful of CTs.
    :raises InputError: if there is no such recipe.
    """
    if recipe not in RECIPES:
        raise InputError(f"There is no augmentation '{recipe}'; choose one of {', '.join(RECIPES)}.")
    return RECIPES[recipe](config, crop)


def _balanced_crop(size: tuple[int, ...]) -> RandCropByLabelClassesd:
    """Cut around a voxel of a class that is there, each class as often as any other."""
    return RandCropByLabelClassesd(
        MAPS,
        "label",
        size,
        num_classes=IGNORE,
        indices_key="label_cls_indices",
        num_samples=1,
        warn=False,
        allow_missing_keys=True,
    )


def _paper(config: ModelConfig, crop: int) -> Compose:  # noqa: ARG001 - recipes have one signature
    """Return ``training_transform`` of the reference (vista3d/data/jsons, the same for all of its datasets).

    The same numbers, also for noise: a standard deviation of up to 0.2, which is 400 HU.
    """
    modes = ("trilinear", "nearest", "nearest", "nearest")
    return Compose(
        [
            _balanced_crop(config.window),
            RandZoomd(MAPS, min_zoom=0.8, max_zoom=1.2, mode=modes, prob=0.2, allow_missing_keys=True),
            RandSimulateLowResolutiond("image", zoom_range=(0.3, 1.0), prob=0.2),
            RandGaussianSmoothd("image", (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), prob=0.2),
            RandScaleIntensityd("image", factors=0.1, prob=0.2),
            RandShiftIntensityd("image", offsets=0.1, prob=0.2),
            RandGaussianNoised("image", prob=0.2, mean=0.0, std=0.2),
        ]
    )


def _few_cases(config: ModelConfig, crop: int) -> Compose:
    """Return strong variation of shape and contrast.

    Other changes of intensity are small, because HU are calibrated: 0.01 is 20 HU.
    """
    window = config.window
    spatial = {
        "rotate_range": (0.2, 0.2, 0.2),
        "scale_range": ((-0.25, 0.3),) * 3,
        "mode": ("bilinear", "nearest", "nearest", "nearest"),
        "padding_mode": "border",
        "allow_missing_keys": True,
    }
    return Compose(
        [
            _balanced_crop((crop,) * 3),
            RandContrastPhased("image", "label", config),
            RandTissueContrastd("image", "label"),
            Rand3DElasticd(MAPS, (6, 8), (60, 160), prob=0.1, **spatial),
            RandAffined(MAPS, prob=0.8, shear_range=(0.1,) * 6, **spatial),
            CenterSpatialCropd(MAPS, window, allow_missing_keys=True),
            RandAirBesided(MAPS, allow_missing_keys=True),
            RandSimulateLowResolutiond("image", prob=0.15, zoom_range=(0.4, 1.0)),
            RandGaussianSmoothd("image", (0.4, 1.1), (0.4, 1.1), (0.4, 1.1), prob=0.4),
            RandScaleIntensityd("image", 0.04, prob=0.4),
            RandShiftIntensityd("image", 0.01, prob=0.4),
            RandGaussianNoised("image", prob=0.4, std=0.02),
        ]
    )


RECIPES = {PAPER: _paper, FEW_CASES: _few_cases}


def seed_transform(transform: Compose, seed: int) -> None:
    """Make the next call depend on ``seed`` alone, so that a resumed run draws the same patches."""
    transform.set_random_state(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # some MONAI transforms draw from the global state
