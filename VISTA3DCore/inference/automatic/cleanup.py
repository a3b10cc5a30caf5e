"""Remove specks from an automatic result: small pieces far from their structure, and structures too small to be real.

Only size decides: no piece is removed because of the side on which it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.components import bounding_boxes, label_components, memory_order
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.models.registry import cleans_up
from VISTA3DCore.progress import Progress


@dataclass(frozen=True)
class Cleanup:
    """What counts as a speck. Documentation/exactness.md has what the values remove from reference segmentations.

    :param share: of a structure's largest piece; smaller pieces are removed. 0 keeps all pieces.
    :param minimum_ml: of what is left of a structure; a smaller one is removed. 0 keeps all structures.
    :raises InputError: if the share is not in 0..1, or the volume is negative or not finite.
    """

    share: float = 0.02
    minimum_ml: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise InputError(f"The share of the largest piece is {self.share:g}; choose one between 0 and 1.")
        if not (math.isfinite(self.minimum_ml) and self.minimum_ml >= 0.0):
            raise InputError(f"The smallest volume is {self.minimum_ml:g} ml; choose 0 or more.")

    def __str__(self) -> str:
        return f"share {self.share:g}, minimum {self.minimum_ml:g} ml"

    @classmethod
    def chosen(cls, asked: bool | Cleanup | None, model: str) -> Cleanup | None:
        """Return the cleanup of a run, or None for none.

        :param asked: whether to clean up, or how; None: as is the default of the model.
        :param model: the name in its configuration.
        :raises InputError: if ``asked`` is something else.
        """
        if isinstance(asked, Cleanup):
            return asked
        if asked is not None and not isinstance(asked, bool):
            raise InputError(f"The cleanup is '{asked}'; choose True, False, None or a Cleanup.")
        return cls() if (cleans_up(model) if asked is None else asked) else None

    def rule_for(self, structure: Structure) -> Cleanup | None:
        """Return what applies to a structure; None where nothing is removed.

        A small lesion is a finding, however small. Trees that overlap other structures (hepatic vessel, airway) come
        in pieces.
        """
        if structure.group == "lesions":
            return None
        return replace(self, share=0.0) if structure.overlapping else self


def find_specks(mask: np.ndarray, voxel_ml: float, cleanup: Cleanup) -> np.ndarray | None:
    """Return the voxels that a cleanup removes from the mask of one structure.

    Pieces are connected by faces, edges or corners.

    :param mask: bool [i, j, k].
    :param voxel_ml: volume of a voxel in ml.
    :return: bool [i, j, k], or None where nothing is removed.
    """
    if np.count_nonzero(mask) * voxel_ml < cleanup.minimum_ml:
        return mask
    if cleanup.share == 0.0:
        return None
    pieces, count = label_components(mask)
    if count == 1:
        return None
    sizes = _sizes(pieces, count)
    kept = sizes >= cleanup.share * sizes[1:].max(initial=0)
    if sizes[1:][kept[1:]].sum() * voxel_ml < cleanup.minimum_ml:
        return mask
    kept[0] = True
    return None if kept.all() else ~kept[pieces]


def remove_specks(
    labels: np.ndarray,
    masks: BitMasks,
    structures: Sequence[Structure],
    affine: np.ndarray,
    cleanup: Cleanup,
    progress: Progress | None = None,
) -> None:
    """Remove the specks of a segmentation, in place; each structure is judged alone, in its bounding box.

    In the label map the voxels become background: which structure came second there is no longer known. Of a
    structure with a mask of its own, only the mask changes.

    :param labels: uint16 [i, j, k], value = index of the structure.
    :param masks: of the structures that may overlap others; such a structure loses all of its voxels or none.
    :param affine: 4x4, voxel index -> RAS mm.
    :raises Cancelled: if ``progress`` was cancelled.
    """
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    boxes = bounding_boxes(labels)
    for structure in structures:
        Progress.of(progress).check()
        rule = cleanup.rule_for(structure)
        if rule is None:
            continue
        if structure.index in masks:
            if masks.count(structure.index) * voxel_ml < rule.minimum_ml:
                masks.clear(structure.index)
        elif (box := boxes.get(structure.index)) is not None:
            part = labels[box]
            specks = find_specks(part == structure.index, voxel_ml, rule)
            if specks is not None:
                part[specks] = 0


def _sizes(pieces: np.ndarray, count: int) -> np.ndarray:
    """Return the number of voxels of each label 0..count; plane by plane, because counting converts to int64."""
    planes = np.moveaxis(pieces, memory_order(pieces)[0], 0)
    return sum(
        (np.bincount(plane.ravel(order="K"), minlength=count + 1) for plane in planes),
        np.zeros(count + 1, dtype=np.int64),
    )
