# SPDX-License-Identifier: Apache-2.0
"""Parts of a volume to which the work can be limited: six numbers, minimum R A S and maximum R A S, world RAS mm."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import slicer

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import apply_affine

from ..i18n import tr as _
from ..mrml.matrices import to_array
from ..mrml.names import name_of
from ..mrml.volumes import ijk_to_world, volume_shape

Corners = tuple[float, float, float, float, float, float]

# How much of a volume's width a new box has.
_SHARE = 0.5
# Corners of a cube around 0.
_SIGNS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


def volume_box(volume_node: slicer.vtkMRMLScalarVolumeNode) -> Corners:
    """Return the box around a volume, from the outer faces of its voxels.

    :raises InputError: if its transform is not linear.
    """
    shape = np.array(volume_shape(volume_node), dtype=np.float64)
    return _around(apply_affine(ijk_to_world(volume_node), (_SIGNS + 1) / 2 * shape - 0.5))


def place_box(roi_node: slicer.vtkMRMLMarkupsROINode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Give a new region of interest a name, and put it into the middle of a volume, where its handles can be seen."""
    box = volume_box(volume_node)
    roi_node.SetName(roi_node.GetScene().GenerateUniqueName(_("{volume} region").format(volume=name_of(volume_node))))
    roi_node.SetCenter([(low + high) / 2 for low, high in zip(box[:3], box[3:], strict=True)])
    roi_node.SetSize([_SHARE * (high - low) for low, high in zip(box[:3], box[3:], strict=True)])
    roi_node.CreateDefaultDisplayNodes()


def roi_box(roi_node: slicer.vtkMRMLMarkupsROINode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> Corners:
    """Return the box around a region of interest, which may be rotated and transformed, within the volume.

    :raises InputError: if it is not placed yet, or misses the volume.
    """
    name = name_of(roi_node)
    size = np.array(roi_node.GetSize())
    if roi_node.GetNumberOfDefinedControlPoints() < 1 or not (size > 0).all():
        raise InputError(_("The region of interest '{name}' is not placed yet; draw it first.").format(name=name))
    object_to_world = to_array(roi_node.GetObjectToWorldMatrix())
    return within(
        _around(apply_affine(object_to_world, _SIGNS * size / 2)),
        volume_node,
        _("The region of interest '{name}' lies outside the volume; move it.").format(name=name),
    )


def view_box(slice_nodes: Iterable[slicer.vtkMRMLSliceNode], volume_node: slicer.vtkMRMLScalarVolumeNode) -> Corners:
    """Return what slice views show: each limits the volume within its plane, through the whole depth of the volume.

    :raises InputError: if nothing of the volume is seen.
    """
    box = volume_box(volume_node)
    unseen = _("The slice view does not show the volume; center it on the volume.")
    for node in slice_nodes:
        box = _common(box, _field(node, volume_box(volume_node)), unseen)
    return box


def within(box: Corners, volume_node: slicer.vtkMRMLScalarVolumeNode, sentence: str) -> Corners:
    """Return the part of a box that lies in the volume's.

    :raises InputError: with the sentence, if there is none.
    """
    return _common(box, volume_box(volume_node), sentence)


def overlap(first: Corners, second: Corners) -> bool:
    """Whether two boxes have anything in common."""
    low, high = _intersection(first, second)
    return bool((low < high).all())


def _field(node: slicer.vtkMRMLSliceNode, whole: Corners) -> Corners:
    """Return the box around a view's field, made as deep as the volume on both sides of its plane."""
    width, height, _depth = node.GetFieldOfView()
    depth = float(np.linalg.norm(np.subtract(whole[3:], whole[:3])))
    slice_to_ras = to_array(node.GetSliceToRAS())
    center = (np.array(whole[:3]) + whole[3:]) / 2
    # The plane may be anywhere along its normal; what counts is the volume's depth there.
    shift = slice_to_ras[:3, 2] * (slice_to_ras[:3, 2] @ (center - slice_to_ras[:3, 3]))
    slice_to_ras[:3, 3] += shift
    return _around(apply_affine(slice_to_ras, _SIGNS * np.array([width, height, depth]) / 2))


def _common(first: Corners, second: Corners, sentence: str) -> Corners:
    low, high = _intersection(first, second)
    if not (low < high).all():
        raise InputError(sentence)
    return (*low.tolist(), *high.tolist())


def _intersection(first: Corners, second: Corners) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(first[:3], second[:3]), np.minimum(first[3:], second[3:])


def _around(points: np.ndarray) -> Corners:
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
