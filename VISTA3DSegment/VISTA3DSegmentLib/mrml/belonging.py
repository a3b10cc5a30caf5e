# SPDX-License-Identifier: Apache-2.0
"""Which segmentation belongs to which volume, so that no result goes into another patient's.

What counts is the volume that a segmentation's geometry comes from, and the patient and the study of the subject
hierarchy. A segmentation that says nothing of its origin belongs to no volume, and may be written where it overlaps.
"""

from __future__ import annotations

import itertools

import numpy as np
import slicer

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine

from ..i18n import tr as _
from .boxes import Ranges, intersection
from .labelmaps import box_of_image, lattice_of, moved, reference_geometry, shift_between
from .matrices import node_to_world
from .names import name_of
from .segments import voxels_to_node
from .volumes import ijk_to_world, usable_volumes, volume_shape, why_unusable


def segmentation_for(
    volume_node: slicer.vtkMRMLScalarVolumeNode | None, present: slicer.vtkMRMLSegmentationNode | None = None
) -> slicer.vtkMRMLSegmentationNode | None:
    """Return the segmentation of a volume: the present one if it is one, else the last one of its scene, else None."""
    if volume_node is None or volume_node.GetScene() is None:
        return None
    ranked = [(_rank(node, volume_node), node is present, node) for node in _segmentations(volume_node.GetScene())]
    ranked = [one for one in ranked if one[0]]
    return max(reversed(ranked), key=lambda one: one[:2])[2] if ranked else None


def belongs(
    segmentation_node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode | None
) -> bool:
    """Whether choosing a volume may choose a segmentation."""
    return volume_node is not None and _rank(segmentation_node, volume_node) > 0


def mismatch(
    segmentation_node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode
) -> str | None:
    """Return a sentence that says why results of a volume do not belong into a segmentation, or None.

    They do not if the segmentation is of another patient, if it is of another volume that is not known to be of the
    same patient, or if the two have no place in common. An empty segmentation is refused for another patient only.
    """
    names = {"segmentation": name_of(segmentation_node), "volume": name_of(volume_node)}
    owner, same = volume_of(segmentation_node), _same_patient(segmentation_node, volume_node)
    if same is False:
        return _("'{segmentation}' and '{volume}' are of different patients; create a new segmentation.").format(
            **names
        )
    if not segmentation_node.GetSegmentation().GetNumberOfSegments():
        return None
    if owner not in (None, volume_node) and not same:
        sentence = _("'{segmentation}' belongs to '{owner}', not to '{volume}'; create a new segmentation.")
        return sentence.format(owner=name_of(owner), **names)
    try:
        apart = not _overlap(segmentation_node, volume_node)
    except InputError as error:
        return str(error)
    if apart:
        sentence = _("'{segmentation}' and '{volume}' have no place in common; create a new segmentation.")
        return sentence.format(**names)
    return None


def volume_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return the volume that a segmentation was made for, or None if that cannot be told.

    That is the one that its geometry refers to, else, e.g. for one that came from a file, the only one with its voxels.
    """
    referred = segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())
    if referred is not None and why_unusable(referred) is None:
        return referred
    scene = segmentation_node.GetScene()
    alike = [] if scene is None else [one for one in usable_volumes(scene) if _has_voxels_of(one, segmentation_node)]
    return alike[0] if len(alike) == 1 else None


def _rank(segmentation_node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> int:
    """Return how surely a segmentation belongs to a volume, 0 if it does not."""
    owner = volume_of(segmentation_node)
    if owner is volume_node:
        return 2 if mismatch(segmentation_node, volume_node) is None else 0
    beside = owner is None and _same_study(segmentation_node, volume_node)
    return int(beside and mismatch(segmentation_node, volume_node) is None)


def _segmentations(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLSegmentationNode]:
    kind = "vtkMRMLSegmentationNode"
    nodes = [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]
    return [node for node in nodes if not node.GetHideFromEditors()]


# Places


def _has_voxels_of(
    volume_node: slicer.vtkMRMLScalarVolumeNode, segmentation_node: slicer.vtkMRMLSegmentationNode
) -> bool:
    geometry = reference_geometry(segmentation_node)
    if geometry is None:
        return False
    whole: Ranges = tuple((0, size) for size in volume_shape(volume_node))
    try:
        shift = shift_between(voxels_to_node(volume_node, segmentation_node), lattice_of(geometry), whole)
    except InputError:
        return False
    return shift is not None and moved(whole, shift) == box_of_image(geometry)


def _overlap(segmentation_node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether what a segmentation covers reaches into a volume; True where it covers nothing that is known.

    :raises InputError: if a transform is not linear, or cannot be inverted.
    """
    covered = _corners(segmentation_node)
    if covered is None:
        return True
    to_voxels = np.linalg.inv(ijk_to_world(volume_node)) @ node_to_world(segmentation_node)
    places = apply_affine(to_voxels, covered)
    box = tuple((low, high) for low, high in zip(places.min(axis=0), places.max(axis=0), strict=True))
    whole = tuple((-0.5, size - 0.5) for size in volume_shape(volume_node))
    return intersection(box, whole) is not None


def _corners(segmentation_node: slicer.vtkMRMLSegmentationNode) -> np.ndarray | None:
    """Return the corners of what a segmentation covers, in its own RAS mm [8, 3]; None if it covers nothing."""
    geometry = reference_geometry(segmentation_node)
    if geometry is not None:
        ends = [(start - 0.5, stop - 0.5) for start, stop in box_of_image(geometry)]
        return apply_affine(lattice_of(geometry), np.array(list(itertools.product(*ends))))
    bounds = [0.0] * 6
    segmentation_node.GetSegmentation().GetBounds(bounds)
    if bounds[0] > bounds[1]:
        return None
    return np.array(list(itertools.product(*np.reshape(bounds, (3, 2)))))


# The subject hierarchy


def _same_patient(
    segmentation_node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode
) -> bool | None:
    """Whether both are of one patient; None if the subject hierarchy does not tell."""
    owner = volume_of(segmentation_node)
    patient, other = _patient_of(volume_node), _patient_of(segmentation_node)
    if other is None and owner is not None:
        other = _patient_of(owner)
    if patient is None or other is None:
        return None
    if patient == other:
        return True
    hierarchy, constants = _hierarchy(volume_node), slicer.vtkMRMLSubjectHierarchyConstants
    for attribute in (constants.GetDICOMPatientIDAttributeName(), constants.GetDICOMPatientNameAttributeName()):
        values = [hierarchy.GetItemAttribute(item, attribute) for item in (patient, other)]
        if all(values):
            return values[0] == values[1]
    return False


def _same_study(segmentation_node: slicer.vtkMRMLSegmentationNode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Whether a segmentation is in the study of a volume, or below the volume itself."""
    hierarchy = _hierarchy(volume_node)
    if hierarchy is None:
        return False
    parent = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation_node))
    if parent != hierarchy.GetInvalidItemID() and parent == hierarchy.GetItemByDataNode(volume_node):
        return True
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()
    study = _ancestor(volume_node, level)
    return study is not None and study == _ancestor(segmentation_node, level)


def _patient_of(node: slicer.vtkMRMLNode) -> int | None:
    return _ancestor(node, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient())


def _ancestor(node: slicer.vtkMRMLNode, level: str) -> int | None:
    """Return the item of a level above a node, or None."""
    hierarchy = _hierarchy(node)
    item = 0 if hierarchy is None else hierarchy.GetItemByDataNode(node)
    return (hierarchy.GetItemAncestorAtLevel(item, level) or None) if item else None


def _hierarchy(node: slicer.vtkMRMLNode) -> slicer.vtkMRMLSubjectHierarchyNode | None:
    scene = node.GetScene()
    return None if scene is None else slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
