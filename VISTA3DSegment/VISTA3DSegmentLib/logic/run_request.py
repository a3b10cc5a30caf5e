# SPDX-License-Identifier: Apache-2.0
"""What is asked of an automatic run, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import slicer

from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from ..mrml.belonging import mismatch
from ..mrml.corrections import corrected_segments
from ..mrml.segments import find_segments
from ..mrml.volumes import why_unusable
from .regions import Corners, within

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Catalogue, Structure

    from ..mrml.clicks import Position


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for.

    :param structures: indices of the catalogue, names or groups.
    :param model: a name, or the path of a weights file.
    :param preset: ``bundle`` or ``paper``, see the engine.
    :param restoration: ``nearest`` or ``smooth``, see the engine.
    :param cleanup: whether specks are removed; None: as is the default of the model.
    :param region: minimum R A S and maximum R A S in world mm; None for the whole volume.
    :param segmentation: where the segments go; None: a new one is made when the result is there.
    :param mismatch_accepted: write into a segmentation that belongs to another volume or patient, or is elsewhere.
    :param keep_corrected: leave segments alone that somebody has clicked on or edited.
    :param keep_empty: make empty segments, e.g. to click on, of the structures that are not found.
    :param looking_at: where the user looks, world RAS mm; a long run shows this place first.
    """

    volume: slicer.vtkMRMLScalarVolumeNode | None
    structures: tuple[int | str, ...]
    model: str
    device: str = "auto"
    preset: str = "bundle"
    restoration: str = "nearest"
    cleanup: bool | None = None
    region: Corners | None = None
    segmentation: slicer.vtkMRMLSegmentationNode | None = None
    mismatch_accepted: bool = False
    keep_corrected: bool = True
    keep_empty: bool = False
    looking_at: Position | None = None

    def problem(self) -> str | None:
        """Return a sentence that says why this cannot be done, or None."""
        if sentence := why_unusable(self.volume):
            return sentence
        if not self.structures:
            return _("Choose at least one structure.")
        if not self.model:
            return _("Choose a model; Setup lists them.")
        if self.region is not None and (sentence := _problem_of_region(self.region, self.volume)):
            return sentence
        return self.mismatch()

    def mismatch(self) -> str | None:
        """Return a sentence if the segmentation is not one of this volume and that was not accepted, else None."""
        if self.mismatch_accepted or self.volume is None or self.segmentation is None:
            return None
        return mismatch(self.segmentation, self.volume)

    def corrected(self, label_set: Catalogue) -> list[Structure]:
        """Return the structures whose segments somebody has corrected: with clicks, or with other tools."""
        if self.segmentation is None:
            return []
        structures = label_set.resolve(self.structures)
        found = find_segments(self.segmentation, structures)
        corrected = corrected_segments(self.segmentation, found.values())
        return [one for one in structures if found.get(one.index) in corrected]


def _problem_of_region(region: Corners, volume_node: slicer.vtkMRMLScalarVolumeNode) -> str | None:
    try:
        within(region, volume_node, _("The region lies outside the volume; move it."))
    except InputError as error:
        return str(error)
    return None
