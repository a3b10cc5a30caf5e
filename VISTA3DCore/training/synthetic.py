"""Synthetic CTs: anatomies deformed from labeled CTs, repainted in any contrast phase, with lesions.

The idea of SynthSeg (Billot et al. 2023), with the texture of the CT that the anatomy comes from instead of white
noise where there is no reason to change it. Label maps without a CT are painted altogether (:mod:`painting`). Made on
the fly from a seed; stands in for the paper's MAISI in stage 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from VISTA3DCore.errors import InputError
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning, LoadedCase, PatchData
from VISTA3DCore.training.deformation import DeformationConfig, interpolated, nearest_voxels, sample_points
from VISTA3DCore.training.hu_statistics import HuStatistics, hu_statistics
from VISTA3DCore.training.lesions import LESIONS, add_lesions
from VISTA3DCore.training.painting import AIR_HU, Anatomy, anatomy_of, painted
from VISTA3DCore.training.sampling import class_voxels, sampling_weights

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
_ANYWHERE = 0.25
"""Share of patches that are centered on any voxel instead of one of a structure."""

_JITTER = 0.25
"""Largest distance of a patch's center from the chosen voxel, as a part of the patch's side."""

_OVERHANG = 0.2
"""Largest part of a patch's side that may lie beyond the volume, where the volume is larger than the patch."""


_NARROW_MM = (110.0, 260.0)
"""Sides of a small field of view, as CTs of a spine or a heart have it."""

_ROUND = 0.3
"""Share of small fields of view that are cylinders, as scanners reconstruct them, instead of boxes."""

_SHORT = 0.5
"""Share of small fields of view that are short along the body, too."""


@dataclass(frozen=True)
class SyntheticConfig:
    """How synthetic CTs vary.

    :param lesions: how many are tried in a patch: a Poisson mean.
    :param texture: range of the share of real texture; the rest is smooth random texture.
    :param noise_hu: standard deviation of the scanner's noise at 1.5 mm voxels; less in larger ones.
    :param blur: range of the point spread's standard deviation in voxels; a CT is blurred already.
    :param painted_blur: the same for what is painted from a label map alone.
    :param thick_slices: how often slices are thicker than their distance.
    :param untouched: how often a CT keeps its own contrast phase and texture.
    :param narrow: how often a patch shows a small field of view: beyond it is nothing, as beyond a volume.
    :param absent_lesions: the sources are known to be free of lesions, so that their absence can be asked for.
    """

    deformation: DeformationConfig = field(default_factory=DeformationConfig)
    lesions: float = 1.2
    texture: tuple[float, float] = (0.3, 1.0)
    noise_hu: tuple[float, float] = (2.0, 22.0)
    blur: tuple[float, float] = (0.0, 0.6)
    painted_blur: tuple[float, float] = (0.45, 0.95)
    thick_slices: float = 0.25
    untouched: float = 0.3
    narrow: float = 0.25
    absent_lesions: bool = False


@dataclass(frozen=True, eq=False)
class _Source:
    """One labeled CT, taken apart, or a label map.

    :param image: float32 [i, j, k], HU.
    :param label: uint8 [i, j, k].
    :param pseudo: uint8 [i, j, k], predictions, or None.
    :param place: uint16 [i * j * k]: label * tissues + tissue.
    :param mean: mean HU by place, float32 [256 * tissues].
    :param centers: voxels to center patches on, by label.
    :param anatomy: what a label map without a CT is painted from, else None.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    pseudo: np.ndarray | None
    place: np.ndarray
    mean: np.ndarray
    centers: list[np.ndarray]
    meaning: LabelMeaning
    anatomy: Anatomy | None


class SyntheticAnatomy:
    """A source of synthetic patches. A patch depends on its seed alone; safe to hand to worker processes.

    :param cases: annotated CTs and label maps on the model grid, drawn by their weights.
    :param model: gives window, spacing and intensity range.
    :raises InputError: if there is no case.
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
        if not cases:
            raise InputError("Synthetic CTs need at least one completely annotated case; there is none.")
        self._weights = sampling_weights([one.case for one in cases])
        self._sources = [_taken_apart(case, model, self.statistics) for case in cases]

    def patch(self, seed: int | Sequence[int], shape: Sequence[int] | None = None) -> PatchData:
        """Return the patch of a seed.

        :param shape: its sides in voxels; the model's window by default.
        """
        rng = np.random.default_rng(seed)
        source = self._sources[int(rng.choice(len(self._sources), p=self._weights))]
        shape = tuple(shape or self.model.window)
        points = sample_points(_center(source, shape, rng), shape, self.model.spacing, self.config.deformation, rng)
        nearest, inside = nearest_voxels(points, source.label.shape)
        if rng.random() < self.config.narrow:
            inside &= _small_view(shape, np.asarray(self.model.spacing), rng)
        label = np.where(inside, source.label.ravel()[nearest], np.uint8(IGNORE))
        pseudo = None
        if source.pseudo is not None:
            pseudo = np.where(inside, source.pseudo.ravel()[nearest], np.uint8(IGNORE))
        image = self._image(source, points, nearest, label, rng)
        image[~inside] = AIR_HU
        count = int(rng.poisson(self.config.lesions)) if source.meaning.complete else 0
        grown = add_lesions(image, label, self.model.spacing, count, rng)
        image = self._scanned(image, self.config.blur if source.anatomy is None else self.config.painted_blur, rng)
        image[~inside] = AIR_HU  # without noise, as the engine pads volumes that are smaller than the window
        lesions = [kind.index for kind in LESIONS] if self.config.absent_lesions else grown
        meaning = replace(source.meaning, annotated=tuple(sorted({*source.meaning.annotated, *lesions})))
        return PatchData(_scaled(image, self.model), label, meaning, pseudo, name=f"synthetic of {source.name}")

    def whole(self, number: int, seed: int | Sequence[int]) -> PatchData:
        """Return a whole case as it is, neither deformed nor with lesions; a label map is painted.

        :param number: of the case, as they were given.
        """
        rng, source = np.random.default_rng(seed), self._sources[number]
        points = np.indices(source.label.shape, np.float32)
        nearest, _ = nearest_voxels(points, source.label.shape)
        image = source.image
        if source.anatomy is not None:
            image = self._image(source, points, nearest, source.label, rng)
            image = self._scanned(image, self.config.painted_blur, rng)
        return PatchData(_scaled(image, self.model), source.label, source.meaning, source.pseudo, name=source.name)

    def _image(
        self, source: _Source, points: np.ndarray, nearest: np.ndarray, label: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        if source.anatomy is not None:
            known = np.where(label == IGNORE, np.uint8(0), label)
            return painted(source.anatomy, known, points, np.asarray(self.model.spacing), self.statistics, rng)
        if rng.random() < self.config.untouched:
            return interpolated(source.image, points)
        return self._painted(source, points, nearest, rng)

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

    def _scanned(self, image: np.ndarray, blur: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
        """Blur by a point spread and add the scanner's noise, correlated over a voxel or so."""
        sigma = np.full(3, rng.uniform(*blur))
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
    pseudo = None if case.pseudo_label is None else case.pseudo_label[0]
    shown = label if pseudo is None else pseudo
    tissue = _tissues(image, shown, statistics.known)
    place = (shown.astype(np.uint16) * _TISSUES + tissue).ravel()
    size = (IGNORE + 1) * _TISSUES
    mean = np.bincount(place, image.ravel(), size) / np.maximum(np.bincount(place, minlength=size), 1)
    anatomy = anatomy_of(label, np.asarray(model.spacing)) if case.case.image is None else None
    centers = class_voxels(shown, _MOST_CENTRES)
    meaning = case.meaning
    if meaning.complete:
        seen = [code for code in range(1, FIRST_UNION) if len(centers[code])]
        meaning = replace(meaning, annotated=tuple(seen))
    return _Source(case.case.name, image, label, pseudo, place, mean.astype(np.float32), centers, meaning, anatomy)


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


def _center(source: _Source, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return the point to center a patch on, near a voxel of a structure, each as likely as any other, or anywhere."""
    size, sides = np.array(source.label.shape), np.array(shape)
    present = [code for code, voxels in enumerate(source.centers) if len(voxels) and code not in (0, IGNORE)]
    if not present or rng.random() < _ANYWHERE:
        center = rng.uniform(0, size)
    else:
        voxels = source.centers[present[rng.integers(len(present))]]
        center = np.array(np.unravel_index(voxels[rng.integers(len(voxels))], source.label.shape), float)
        center += rng.uniform(-_JITTER, _JITTER, 3) * sides
    half, last = sides * (0.5 - _OVERHANG), size - 1.0
    low, high = np.minimum(half, last / 2), np.maximum(last - half, last / 2)
    return np.clip(center, low, high)


def _small_view(shape: tuple[int, ...], spacing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the voxels of a patch that a small field of view shows: a box or a cylinder around its middle.

    A model that has only seen whole bodies takes the left edge of a CT of the spine for the left side of the body.

    :return: bool [i, j, k].
    """
    sides = rng.uniform(*_NARROW_MM, 3) / spacing
    if rng.random() >= _SHORT:
        sides[2] = 2.0 * shape[2]
    cylinder = rng.random() < _ROUND
    room = np.minimum(np.abs(np.array(shape) - sides), 0.8 * sides) / 2
    center = (np.array(shape) - 1) / 2 + rng.uniform(-room, room)
    x, y, z = (
        (np.arange(size, dtype=np.float32) - middle) * 2 / side
        for size, middle, side in zip(shape, center, sides, strict=True)
    )
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    plane = np.hypot(x, y) <= 1 if cylinder else (np.abs(x) <= 1) & (np.abs(y) <= 1)
    return plane & (np.abs(z) <= 1)


def _scaled(image: np.ndarray, model: ModelConfig) -> np.ndarray:
    low, high = model.intensity_range
    return np.clip((image - low) / (high - low), 0.0, 1.0).astype(np.float32)
