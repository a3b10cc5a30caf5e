"""Statistics of segmented structures: volume, mean and standard deviation in HU, voxels, agreement with a reference."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.imaging.output import Encoder

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Structure
    from VISTA3DCore.imaging.segmentation import Segmentation
    from VISTA3DCore.imaging.volume import Volume

CSV_COLUMNS = ("structure", "index", "voxels", "volume_ml", "mean_hu", "sd_hu")


@dataclass(frozen=True)
class StructureStatistics:
    """Measurements of one structure; ``structure`` is its official name.

    ``mean_hu`` and ``sd_hu`` are None for an empty structure; ``sd_hu`` is the sample standard deviation (n - 1), as in
    Slicer's Segment Statistics, and 0 for a single voxel. ``dice`` is None without a reference, or where neither the
    segmentation nor the reference contains the structure.
    """

    structure: str
    display_name: str
    index: int
    voxels: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    dice: float | None = None


def measure(
    volume: Volume, segmentation: Segmentation, reference: np.ndarray | None = None
) -> list[StructureStatistics]:
    """Measure every requested structure of a segmentation, in the order of ``segmentation.structures``.

    :param volume: the image in HU, on the grid of the segmentation.
    :param reference: label map [i, j, k] of catalogue indices on the same grid, for Dice; or None.
    :raises InputError: if the grids differ.
    """
    for other in (volume.array, reference):
        if other is not None and other.shape != segmentation.labels.shape:
            raise InputError(f"The grids differ: {other.shape} and {segmentation.labels.shape} voxels.")
    size = 1 + max([0, *(structure.index for structure in segmentation.structures), *segmentation.masks])
    sums = _label_sums(volume.array, segmentation.labels, size)
    masks = BitMasks.of(segmentation.masks, segmentation.labels.shape)
    for index in masks:
        sums[:, index] = _mask_sums(volume.array, masks, index)
    voxel_ml = abs(float(np.linalg.det(segmentation.affine[:3, :3]))) / 1000.0
    return [
        _statistics(structure, sums[:, structure.index], voxel_ml, _dice_of(segmentation, structure.index, reference))
        for structure in segmentation.structures
    ]


def dice(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the Dice coefficient 2|A and B| / (|A| + |B|) of two bool arrays; None if both are empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2.0 * int(np.count_nonzero(first & second)) / total if total else None


def csv_encoder(rows: list[StructureStatistics]) -> Encoder:
    """Return what writes one line per structure as CSV."""

    def encode(file: BinaryIO) -> None:
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow(CSV_COLUMNS)
        table.writerows(_csv_row(row) for row in rows)
        file.write(text.getvalue().encode())

    return encode


def _label_sums(image: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """Return [3, size]: voxels, sum and sum of squares of the image per label, slice by slice to stay small."""
    sums = np.zeros((3, size))
    for k in range(labels.shape[2]):
        label = labels[:, :, k].ravel()
        inside = (label > 0) & (label < size)
        label, hu = label[inside], image[:, :, k].ravel()[inside].astype(np.float64)
        sums += [np.bincount(label, weights=weights, minlength=size) for weights in (None, hu, hu * hu)]
    return sums


def _mask_sums(image: np.ndarray, masks: BitMasks, index: int) -> np.ndarray:
    """Return voxels, sum and sum of squares of the image in a mask, slice by slice to stay small."""
    sums = np.zeros(3)
    for k in range(image.shape[2]):
        hu = image[:, :, k][masks.plane(index, k)].astype(np.float64)
        sums += (hu.size, hu.sum(), (hu * hu).sum())
    return sums


def _statistics(
    structure: Structure, sums: np.ndarray, voxel_ml: float, agreement: float | None
) -> StructureStatistics:
    count, total, squares = (float(value) for value in sums)
    mean = total / count if count else None
    deviation = None
    if mean is not None:
        deviation = (max(squares - count * mean * mean, 0.0) / max(count - 1.0, 1.0)) ** 0.5
    names = (structure.name, structure.display_name, structure.index)
    return StructureStatistics(*names, int(count), count * voxel_ml, mean, deviation, agreement)


def _dice_of(segmentation: Segmentation, index: int, reference: np.ndarray | None) -> float | None:
    if reference is None:
        return None
    mask = segmentation.masks.get(index)
    return dice(segmentation.labels == index if mask is None else mask, reference == index)


def _csv_row(row: StructureStatistics) -> tuple[str, int, int, str, str, str]:
    hu = ["" if value is None else f"{value:.2f}" for value in (row.mean_hu, row.sd_hu)]
    return row.structure, row.index, row.voxels, f"{row.volume_ml:.4f}", hu[0], hu[1]
