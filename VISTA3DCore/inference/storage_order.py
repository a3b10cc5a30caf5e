"""The axes of an image as it is stored, and those of the patient (RAS): flips and permutations, no voxel moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from VISTA3DCore.imaging.geometry import from_ras, ras_orientation, to_ras
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.imaging.segmentation import Segmentation
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.clicks.fold import ClickRequest
from VISTA3DCore.inference.clicks.results import ClickResult


@dataclass(frozen=True, eq=False)
class StorageOrder:
    """How an image is stored.

    :param affine: 4x4, voxel index -> RAS mm. :param shape: [i, j, k].
    """

    affine: np.ndarray
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume) -> StorageOrder:
        return cls(volume.affine, volume.shape)

    def request(self, request: ClickRequest) -> ClickRequest:
        """Return a request whose base has the patient's axes; one that is no mask is refused later."""
        if not isinstance(request.base, np.ndarray) or request.base.shape != self.shape:
            return request
        return replace(request, base=to_ras(request.base, self.affine)[0])

    def click_result(self, result: ClickResult, base: np.ndarray | None) -> ClickResult:
        """Return an answer with the axes of the image.

        :param base: as it was asked with.
        """
        box: list[Any] = [None] * 3
        permutation, flips = ras_orientation(self.affine)
        for part, axis in zip(result.box, permutation, strict=True):
            size = self.shape[axis]
            box[axis] = slice(size - part.stop, size - part.start) if flips[axis] else part
        patch = from_ras(result.patch, self.affine)
        return replace(result, base=base, shape=self.shape, box=tuple(box), patch=np.asfortranarray(patch))

    def segmentation(self, found: Segmentation) -> Segmentation:
        """Return a segmentation with the axes of the image."""
        masks = BitMasks.of(found.masks, found.labels.shape).rearranged(self._stored, self.shape)
        return replace(found, labels=self._stored(found.labels), masks=masks, affine=self.affine.copy())

    def _stored(self, array: np.ndarray) -> np.ndarray:
        return np.asfortranarray(from_ras(array, self.affine))


def in_patients_order(volume: Volume) -> Volume:
    """Return an image with the axes of the patient; a view of its voxels."""
    return Volume(*to_ras(volume.array, volume.affine), volume.name, volume.modality)
