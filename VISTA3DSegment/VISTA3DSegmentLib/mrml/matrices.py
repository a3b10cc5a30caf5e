# SPDX-License-Identifier: Apache-2.0
"""Matrices of MRML as numpy arrays, and the linear transforms above a node."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from .names import name_of

# Far below any scaling of units in three directions.
_FLAT = 1e-12


def to_array(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """Return a matrix as a new array, 4x4 float64."""
    return np.array(matrix.GetData(), dtype=np.float64).reshape(4, 4)


def to_matrix(array: np.ndarray) -> vtk.vtkMatrix4x4:
    """Return a 4x4 array as a matrix."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel().tolist())
    return matrix


def node_to_world(node: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """Return what maps a node's own coordinates to the world's (both RAS mm), 4x4: all transforms above it.

    :raises InputError: if one of them is not linear, or they cannot be inverted.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        sentence = _("'{name}' has a non-linear transform; harden it in the Transforms module, or remove it.")
        raise InputError(sentence.format(name=name_of(node)))
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    array = to_array(matrix)
    if not np.all(np.isfinite(array)) or abs(np.linalg.det(array)) < _FLAT:
        sentence = _("The transform of '{name}' cannot be inverted; correct it in the Transforms module.")
        raise InputError(sentence.format(name=name_of(node)))
    return array


def node_to_node(source: slicer.vtkMRMLTransformableNode, target: slicer.vtkMRMLTransformableNode) -> np.ndarray:
    """Return what maps one node's own coordinates to another's (both RAS mm), 4x4.

    :raises InputError: if a transform is not linear, or cannot be inverted.
    """
    to_world = node_to_world(source)
    if source.GetTransformNodeID() == target.GetTransformNodeID():
        return np.eye(4)  # exactly: a common transform leaves no rounding behind
    return np.linalg.inv(node_to_world(target)) @ to_world
