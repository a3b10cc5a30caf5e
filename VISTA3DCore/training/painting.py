"""CTs painted from label maps alone: what each tissue measures, what lies between the organs, where the body ends.

The idea of SynthSeg (Billot et al. 2023), with the ranges of HU of real tissues instead of random contrasts, because
HU are calibrated. The scanner (blur, noise) is applied by :mod:`synthetic`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.training.datasets import IGNORE
from VISTA3DCore.training.deformation import interpolated, smooth_noise
from VISTA3DCore.training.hu_statistics import HuStatistics

AIR_HU = -1000.0
_HULL_MM = 12.0
"""The body of a slice is the hull of what is labeled within this distance above and below it."""

_LEAST_HULL_VOXELS = 10
_SOFT, _BONE, _LUNG, _AIRWAY, _BOWEL, _CARTILAGE, _HEART, _BLADDER = range(8)
_WORDS = {
    _BONE: (
        "vertebrae", "rib", "hip", "femur", "humerus", "scapula", "clavicula", "sacrum", "skull", "sternum",
    ),
    _LUNG: ("lobe",),
    _AIRWAY: ("trachea", "airway"),
    _BOWEL: ("colon", "small bowel", "duodenum", "stomach", "esophagus", "rectum"),
    _CARTILAGE: ("costal cartilages",),
    _HEART: ("heart",),
}  # fmt: skip
_BLADDER_INDEX = 15


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map that can be painted, in RAS, on an isotropic grid.

    :param distances: float32 [2, i, j, k]: mm outside the hull of the labels, negative inside; mm to the nearest bone.
    """

    distances: np.ndarray


def anatomy_of(label: np.ndarray, spacing: np.ndarray) -> Anatomy:
    """Measure a label map: how deep each voxel lies in the body, and how far from bone.

    :param label: uint8 [i, j, k] codes, RAS.
    :param spacing: mm.
    """
    there = (label > 0) & (label != IGNORE)
    hull = np.zeros(label.shape, bool)
    reach = max(1, round(_HULL_MM / spacing[2]))
    for k in range(label.shape[2]):
        flat = there[:, :, max(0, k - reach) : k + reach + 1].any(2)
        if np.count_nonzero(flat) > _LEAST_HULL_VOXELS and np.ptp(np.argwhere(flat), axis=0).min() > 1:
            hull[:, :, k] = convex_hull_image(flat)
    outside, inside = (ndimage.distance_transform_edt(one, spacing) for one in (~hull, hull))
    bone = np.isin(label, np.flatnonzero(_kinds() == _BONE))
    far = ndimage.distance_transform_edt(~bone, spacing) if bone.any() else np.full(label.shape, 100.0)
    return Anatomy(np.stack([outside - inside, far]).astype(np.float32))


def painted(
    anatomy: Anatomy,
    label: np.ndarray,
    points: np.ndarray,
    spacing: np.ndarray,
    statistics: HuStatistics,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return HU of an imaginary patient, float32 [i, j, k], before the scanner.

    :param label: uint8 [i, j, k] codes of the patch; 0 wherever the label map ends.
    :param points: [3, i, j, k], where the patch's voxels come from, voxel indices of the anatomy.
    :param spacing: mm.
    """
    painter = _Painter(label, spacing, rng)
    depth, bone = interpolated(anatomy.distances, points)
    hu = painter.organs(statistics)
    return np.where(label == 0, painter.between(depth, bone), hu).astype(np.float32)


class _Painter:
    """Draws the tissues of one patch."""

    def __init__(self, label: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> None:
        self._label, self._rng, self._mm = label, rng, float(np.mean(spacing))
        self._kind = _kinds()[label]
        self._muscle = rng.uniform(35, 68)
        self._fat = rng.uniform(-118, -85)

    def organs(self, statistics: HuStatistics) -> np.ndarray:
        """Return HU of what is labeled."""
        rng = self._rng
        table = self._table(statistics)
        hu = table[self._label] + self._noise(10, rng.uniform(0, 9)) + self._noise(25, rng.uniform(0, 9))
        hu = np.where(self._shell(), hu + rng.uniform(60, 400), hu)
        hu = np.where(self._kind == _BOWEL, self._contents(hu), hu)
        if (self._kind == _HEART).any():
            wall = self._noise(22) > rng.uniform(0.0, 1.0)
            hu = np.where((self._kind == _HEART) & wall, rng.uniform(40, 110), hu)
        if (self._kind == _LUNG).any():
            vessels = self._noise(rng.uniform(8, 14)) > rng.uniform(1.1, 1.7)
            hu = np.where((self._kind == _LUNG) & vessels, hu + rng.uniform(100, 500), hu)
        return hu

    def between(self, depth: np.ndarray, bone: np.ndarray) -> np.ndarray:
        """Return HU of what nobody labels: muscle and fat between the organs, wall, fat and skin around, air.

        :param depth: mm outside the hull; :param bone: mm to the nearest bone.
        """
        rng = self._rng
        reach = rng.uniform(12, 45)
        score = self._noise(rng.uniform(14, 45)) + 0.5 * self._noise(13) + rng.uniform(0.6, 2.0) * (1 - bone / reach)
        hu = np.where(score > rng.uniform(0.0, 1.2), self._muscle, self._fat)
        strands = self._noise(9) > rng.uniform(0.9, 2.2)
        hu = np.where(strands & (hu < 0), hu + rng.uniform(20, 110), hu)
        wall = rng.uniform(2, 14) * (1 + 0.4 * self._noise(60))
        hu = np.where((depth > rng.uniform(-14, -2)) & (depth < wall), self._muscle, hu)
        skin = wall + rng.uniform(4, 48) * np.clip(1 + 0.45 * self._noise(110), 0.1, 2.5)
        hu = np.where(depth >= wall, self._fat, hu)
        hu = np.where(depth > skin - 0.6 * self._mm, rng.uniform(-40, 40), hu)
        body = depth <= skin
        return np.where(body, hu, self._surroundings(body))

    def _surroundings(self, body: np.ndarray) -> np.ndarray:
        """Return HU beside the body: air, and often a table beneath the back."""
        air = np.full(body.shape, AIR_HU, np.float32)
        rows = np.flatnonzero(body.any((0, 2)))
        if rows.size and self._rng.random() < 0.6:
            top = rows[0] - int(self._rng.integers(0, 3))
            thick = int(self._rng.integers(1, 4))
            air[:, max(0, top - thick) : max(0, top), :] = self._rng.uniform(-950, -250)
            air[:, max(0, top - 1) : max(0, top), :] = self._rng.uniform(-700, 60)
        return air

    def _table(self, statistics: HuStatistics) -> np.ndarray:
        """Return the mean HU of each code in this patient, float32 [256]."""
        rng, kinds = self._rng, _kinds()
        table = statistics.draw(rng)
        missing = ~statistics.known
        table[missing] = rng.uniform(20, 60)
        bone, lung = kinds == _BONE, kinds == _LUNG
        table[bone] = rng.uniform(80, 270) + rng.normal(0, 18, np.count_nonzero(bone))
        table[lung] = rng.uniform(-885, -680) + rng.normal(0, 18, np.count_nonzero(lung))
        table[kinds == _AIRWAY] = rng.uniform(-1000, -930)
        table[kinds == _CARTILAGE] = rng.uniform(70, 170)
        if rng.random() < 0.12:
            table[_BLADDER_INDEX] = rng.uniform(60, 350)
        if rng.random() < 0.15:  # a fatty liver
            table[1] -= rng.uniform(10, 45)
        return table.astype(np.float32)

    def _shell(self) -> np.ndarray:
        """Return the outer layer of bones, bool [i, j, k]."""
        bone = self._kind == _BONE
        return bone & ~ndimage.binary_erosion(bone, border_value=1)

    def _contents(self, wall: np.ndarray) -> np.ndarray:
        """Return HU in stomach and bowel: wall and food, fluid with or without contrast, and gas, which rises."""
        rng = self._rng
        up = np.linspace(-0.5, 0.5, wall.shape[1])[None, :, None] * rng.uniform(0, 1.5)
        gas = self._noise(rng.uniform(16, 45)) + up > rng.uniform(0.3, 1.8)
        fluid = self._noise(rng.uniform(16, 45)) > rng.uniform(-0.4, 1.5)
        bright = rng.random() < 0.25
        inside = np.where(fluid, rng.uniform(100, 450) if bright else rng.uniform(-5, 55), wall)
        stool = (self._label == 62) & (self._noise(9) > rng.uniform(-0.3, 1.5))
        inside = np.where(stool, inside + rng.uniform(-180, 60), inside)
        return np.where(gas, rng.uniform(-980, -550), inside)

    def _noise(self, knot_mm: float, strength: float = 1.0) -> np.ndarray:
        """Return smooth noise of unit variance times ``strength``, varying over ``knot_mm``."""
        return smooth_noise(self._label.shape, max(1.5, knot_mm / self._mm), self._rng) * np.float32(strength)


@cache
def _kinds() -> np.ndarray:
    """Return what each code is painted as, int [256]."""
    kinds = np.full(IGNORE + 1, _SOFT)
    for structure in catalogue():
        for kind, words in _WORDS.items():
            if any(word in structure.name for word in words) and "cancer" not in structure.name:
                kinds[structure.index] = kind
    return kinds
