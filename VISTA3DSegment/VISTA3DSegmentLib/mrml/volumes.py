# SPDX-License-Identifier: Apache-2.0
"""Scalar volume nodes as the engine's volumes, without copying voxels."""

from __future__ import annotations

import warnings
from collections.abc import Hashable

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import orthonormalised
from VISTA3DCore.imaging.volume import Volume, check_affine

from ..i18n import tr as _
from .boxes import Shape
from .matrices import node_to_world, to_array
from .names import name_of


def why_unusable(node: slicer.vtkMRMLNode | None) -> str | None:
    """Return a sentence that says why a node is no volume that can be segmented, or None if it is one."""
    if node is None:
        return _("Choose a volume.")
    if problem := _problem_of_kind(node):
        return problem.format(name=name_of(node))
    try:
        _check_geometry(ijk_to_world(node))
    except InputError as error:
        return str(error)
    return None


def usable_volumes(scene: slicer.vtkMRMLScene) -> list[slicer.vtkMRMLScalarVolumeNode]:
    """Return the volumes of a scene that can be segmented, in the scene's order; hidden ones are left out."""
    kind = "vtkMRMLScalarVolumeNode"
    nodes = [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]
    return [node for node in nodes if not node.GetHideFromEditors() and why_unusable(node) is None]


def volume_shape(node: slicer.vtkMRMLScalarVolumeNode) -> Shape:
    """Return the number of voxels along i, j, k; zeros for a volume without voxels."""
    image = node.GetImageData()
    return (0, 0, 0) if image is None else tuple(image.GetDimensions())


def ijk_to_world(node: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return what maps voxel indices, counted from the first voxel, to world RAS mm, 4x4.

    :raises InputError: if a parent transform is not linear, or cannot be inverted.
    """
    return node_to_world(node) @ ijk_to_ras(node)


def ijk_to_ras(node: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return what maps voxel indices, counted from the first voxel, to the node's own RAS mm, 4x4."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    array, image = to_array(matrix), node.GetImageData()
    if image is not None:
        array[:3, 3] += array[:3, :3] @ np.array(image.GetExtent()[::2], dtype=np.float64)
    return array


def to_volume(
    node: slicer.vtkMRMLScalarVolumeNode, subject_hierarchy: slicer.vtkMRMLSubjectHierarchyNode | None = None
) -> Volume:
    """Return a volume node as the engine takes it; ``array[i, j, k]`` is a view of the node's voxels.

    :param subject_hierarchy: tells the modality of a volume that came from DICOM.
    :raises InputError: with the sentence of :func:`why_unusable`.
    """
    if problem := why_unusable(node):
        raise InputError(problem)
    array = numpy_support.vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
    array = array.reshape(volume_shape(node)[::-1]).transpose(2, 1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of slightly sheared axes; the result lies on the node's voxels
        return Volume(array, ijk_to_world(node), node.GetName() or "", _modality(node, subject_hierarchy))


def content_key(node: slicer.vtkMRMLScalarVolumeNode) -> Hashable:
    """Return what changes whenever a volume's voxels, geometry or parent transforms change; never fails."""
    image = node.GetImageData()
    voxels = None if image is None else image.GetMTime()
    try:
        place: Hashable = ijk_to_world(node).tobytes()
    except InputError:
        place = (ijk_to_ras(node).tobytes(), node.GetParentTransformNode().GetTransformToWorldMTime())
    return voxels, volume_shape(node), place


def _problem_of_kind(node: slicer.vtkMRMLNode) -> str | None:
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        return _("'{name}' is not a volume; choose a CT volume.")
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("'{name}' is a label map; choose the image that it belongs to.")
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return _("'{name}' has no voxels; load it again or choose another volume.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("'{name}' has several values in each voxel (color or 4D); choose a volume of gray values.")
    if min(image.GetDimensions()) < 2:
        return _("'{name}' is a single slice; choose a volume with several slices.")
    return None


def _check_geometry(affine: np.ndarray) -> None:
    """Raise InputError where the engine would refuse a volume."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_affine(affine)
        orthonormalised(affine)


def _modality(
    node: slicer.vtkMRMLScalarVolumeNode, subject_hierarchy: slicer.vtkMRMLSubjectHierarchyNode | None
) -> str | None:
    """Return what DICOM says of the volume's series, or None."""
    if subject_hierarchy is None:
        return None
    item = subject_hierarchy.GetItemByDataNode(node)
    if item == subject_hierarchy.GetInvalidItemID():
        return None
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return subject_hierarchy.GetItemAttribute(item, attribute) or None
