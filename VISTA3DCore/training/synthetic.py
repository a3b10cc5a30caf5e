"""CTs of people who do not exist: anatomies deformed from labelled CTs, painted in any contrast phase, with lesions.

The idea of SynthSeg (Billot et al. 2023), with the texture of the CT that the anatomy comes from instead of white
noise where there is no reason to change it. Made on the fly from a seed; stands in for the paper's MAISI in stage 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from VISTA3DCore.errors import InputError
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, LoadedCase, PatchData
from VISTA3DCore.training.deformation import DeformationConfig, interpolated, nearest_voxels, sample_points
from VISTA3DCore.training.hu_statistics import HuStatistics, hu_statistics
from VISTA3DCore.training.lesions import LESIONS, add_lesions
from VISTA3DCore.training.sampling import class_voxels

GAS, FAT, SOFT, DENSE, CONTRAST = range(5)
"""What a voxel consists of. CONTRAST are vessels that nobody labelled, in a CT with contrast medium."""

_TISSUES = 5
_EDGES_HU = (-300.0, -20.0, 130.0)
_GAS_HU = -200.0
_BRIGHTEST_VESSEL_HU = 700.0
_ENHANCED_HU = 150.0
_AORTA = 6
_FAT_HU, _MARROW_HU = -100.0, 100.0
_BORDER_VOXELS = 0.5
_MOST_CENTRES = 2000


@dataclass(frozen=True)
class SyntheticConfig:
    """How synthetic CTs vary.

    :param lesions: how many are tried in a patch: a Poisson mean.
    :param texture: range of the share of real texture; the rest is smooth random texture.
    :param noise_hu: standard deviation of the scanner's noise at 1.5 mm voxels; less in larger ones.
    :param blur: range of the point spread's standard deviation in voxels.
    :param thick_slices: how often slices are thicker than their distance.
    :param absent_lesions: the sources are known to be free of lesions, so that their absence can be asked for.
    """

    deformation: DeformationConfig = field(default_factory=DeformationConfig)
    lesions: float = 1.2
    texture: tuple[float, float] = (0.3, 1.0)
    noise_hu: tuple[float, float] = (2.0, 22.0)
    blur: tuple[float, float] = (0.25, 0.7)
    thick_slices: float = 0.25
    absent_lesions: bool = False


@dataclass(frozen=True, eq=False)
class _Source:
    """One labelled CT, taken apart.

    :param image: float32 [i, j, k], HU.
    :param label: uint8 [i, j, k].
    :param place: uint16 [i * j * k]: label * tissues + tissue.
    :param mean: mean HU by place, float32 [256 * tissues].
    :param centres: voxels to centre patches on, by label.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    place: np.ndarray
    mean: np.ndarray
    centres: list[np.ndarray]
    unions: tuple[tuple[int, ...], ...]


class SyntheticAnatomy:
    """A source of synthetic patches. A patch depends on its seed alone; safe to hand to worker processes.

    :param cases: completely annotated CTs on the model grid; others are left out.
    :param model: gives window, spacing and intensity range.
    :raises InputError: if no case is completely annotated.
    """

    def __init__(
        self,
        cases: Sequence[LoadedCase],
        model: ModelConfig,
        config: SyntheticConfig | None = None,
        statistics: HuStatistics | None = None,
    ) -> None:
        self.model, self.config = model, config or SyntheticConfig()
        self.statistics = statistics or hu_statistics()
        self._sources = [_taken_apart(case, model, self.statistics) for case in cases if case.case.complete]
        if not self._sources:
            raise InputError("Synthetic CTs need at least one completely annotated case; there is none.")

    def patch(self, seed: int | Sequence[int], shape: Sequence[int] | None = None) -> PatchData:
        """Return the patch of a seed.

        :param shape: its sides in voxels; the model's window by default.
        """
        rng = np.random.default_rng(seed)
        source = self._sources[rng.integers(len(self._sources))]
        shape = tuple(shape or self.model.window)
        centre = _centre(source, shape, rng)
        points = sample_points(centre, shape, self.model.spacing, self.config.deformation, rng)
        nearest, inside = nearest_voxels(points, source.label.shape)
        image = self._painted(source, points, nearest, rng)
        label = np.where(inside, source.label.ravel()[nearest], np.uint8(IGNORE))
        grown = add_lesions(image, label, self.model.spacing, int(rng.poisson(self.config.lesions)), rng)
        image = self._scanned(image, rng)
        lesions = [kind.index for kind in LESIONS] if self.config.absent_lesions else grown
        meaning = _meaning(source, lesions)
        return PatchData(_scaled(image, self.model), label, meaning, name=f"synthetic of {source.name}")

    def _painted(
        self, source: _Source, points: np.ndarray, nearest: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return HU of the deformed anatomy in a random contrast phase.

        :param nearest: flat index of the source's voxel for each of the patch.
        """
        place, image = source.place[nearest], interpolated(source.image, points)
        old, (new, gain) = source.mean, self._means(source, rng)
        rest = (image - old[place]) * gain[place]
        painted = new[place] + self._texture(rest, place % _TISSUES == SOFT, rng)
        # The border of what was painted is as soft as the scanner made it.
        return image + ndimage.gaussian_filter(painted - image, _BORDER_VOXELS)

    def _texture(self, rest: np.ndarray, soft: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Replace a part of the real texture of soft tissue by smooth random texture of the same strength."""
        share = rng.uniform(*self.config.texture)
        noise = ndimage.gaussian_filter(rng.standard_normal(rest.shape, np.float32), rng.uniform(0.6, 1.6))
        noise *= np.float32(rng.uniform(4.0, 14.0) / max(float(noise.std()), 1e-6))
        mixed = share * rest + np.sqrt(1 - share**2) * noise
        return np.where(soft, mixed, rest)

    def _means(self, source: _Source, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return mean HU, and gain of texture, of each tissue of each label in an imaginary patient, [256 * tissues].

        Where contrast goes, the difference to surrounding fat shrinks alike, or borders would stay bright or dark.
        """
        old = source.mean.reshape(-1, _TISSUES)
        new, gain = old.copy(), np.ones_like(old)
        phase, known = self.statistics.draw(rng), self.statistics.known
        new[:, FAT] += rng.normal(0, 8.0)
        new[:, SOFT] += rng.normal(0, 5.0) + rng.normal(0, 4.0, len(new))
        gain[:, DENSE] = rng.uniform(0.75, 1.25)
        new[:, DENSE] = (new[:, DENSE] - _MARROW_HU) * gain[:, DENSE] + _MARROW_HU
        new[known, SOFT], new[:, CONTRAST] = phase[known], phase[_AORTA]
        for place in ((known, SOFT), (slice(None), CONTRAST)):
            gain[place] = np.clip((new[place] - _FAT_HU) / np.maximum(old[place] - _FAT_HU, 1.0), 0.1, 1.3)
        return new.astype(np.float32).ravel(), gain.astype(np.float32).ravel()

    def _scanned(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Blur by a point spread and add the scanner's noise, correlated over a voxel or so."""
        sigma = np.full(3, rng.uniform(*self.config.blur))
        if rng.random() < self.config.thick_slices:
            sigma[2] = rng.uniform(0.8, 1.4)
        noise = ndimage.gaussian_filter(rng.standard_normal(image.shape, np.float32), rng.uniform(0.35, 0.8))
        strength = rng.uniform(*self.config.noise_hu) * min(1.0, 1.5 / float(np.mean(self.model.spacing)))
        noise *= np.float32(strength / max(float(noise.std()), 1e-6))
        return ndimage.gaussian_filter(image, sigma) + noise


def _taken_apart(case: LoadedCase, model: ModelConfig, statistics: HuStatistics) -> _Source:
    low, high = model.intensity_range
    image = case.image[0] * np.float32(high - low) + np.float32(low)
    label = case.label[0]
    tissue = _tissues(image, label, statistics.known)
    place = (label.astype(np.uint16) * _TISSUES + tissue).ravel()
    size = (IGNORE + 1) * _TISSUES
    mean = np.bincount(place, image.ravel(), size) / np.maximum(np.bincount(place, minlength=size), 1)
    centres = class_voxels(label, _MOST_CENTRES)
    return _Source(case.case.name, image, label, place, mean.astype(np.float32), centres, case.unions)


def _tissues(image: np.ndarray, label: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return what each voxel consists of, uint8 [i, j, k].

    Structures whose HU are listed are soft, but for gas in them; all else goes by its HU.
    """
    tissue = np.digitize(image, _EDGES_HU).astype(np.uint8)
    listed = known[label]
    tissue[listed] = np.where(image[listed] < _GAS_HU, GAS, SOFT)
    aorta = image[label == _AORTA]
    if aorta.size and np.median(aorta) > _ENHANCED_HU:
        tissue[(label == 0) & (tissue == DENSE) & (image < _BRIGHTEST_VESSEL_HU)] = CONTRAST
    return tissue


def _centre(source: _Source, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a voxel to centre a patch on, each label as likely as any other; patches stay in the volume."""
    present = [code for code, voxels in enumerate(source.centres) if len(voxels) and code < FIRST_UNION]
    voxels = source.centres[present[rng.integers(len(present))]]
    centre = np.array(np.unravel_index(voxels[rng.integers(len(voxels))], source.label.shape), float)
    half, last = np.array(shape) / 2, np.array(source.label.shape) - 1.0
    low, high = np.minimum(half, last / 2), np.maximum(last - half, last / 2)
    return np.clip(centre, low, high)


def _scaled(image: np.ndarray, model: ModelConfig) -> np.ndarray:
    low, high = model.intensity_range
    return np.clip((image - low) / (high - low), 0.0, 1.0).astype(np.float32)


def _meaning(source: _Source, lesions: Sequence[int]) -> LabelMeaning:
    classes = np.flatnonzero([len(voxels) > 0 for voxels in source.centres[:FIRST_UNION]])
    return LabelMeaning(source.unions, tuple(sorted({*classes[classes > 0].tolist(), *lesions})), complete=True)
