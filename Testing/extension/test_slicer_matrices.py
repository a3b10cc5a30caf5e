"""Transforms above nodes."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from mrml_scene import Application, rigid

from VISTA3DCore.errors import InputError
from VISTA3DSegmentLib.mrml.matrices import node_to_node, node_to_world, to_array, to_matrix

numbers = st.floats(-1e4, 1e4)


@given(npst.arrays(np.float64, (4, 4), elements=numbers))
def test_matrices_come_back_from_vtk(array: np.ndarray) -> None:
    assert np.array_equal(to_array(to_matrix(array)), array)


def test_an_array_is_not_a_view_of_the_matrix() -> None:
    matrix = vtk.vtkMatrix4x4()
    to_array(matrix)[0, 0] = 5.0
    assert matrix.GetElement(0, 0) == 1.0


def test_a_node_without_a_transform_is_in_the_world(ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    assert np.array_equal(node_to_world(ct), np.eye(4))


def test_nested_transforms_are_multiplied(app: Application, ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    outer, inner = rigid((10, 20, 30), (1, 2, 3)), rigid((-5, 0, 8), (40, 0, -9))
    transform = app.add_transform(inner, app.add_transform(outer))
    ct.SetAndObserveTransformNodeID(transform.GetID())
    assert np.allclose(node_to_world(ct), outer @ inner)


def test_points_go_from_node_to_node_as_slicer_says(
    app: Application, placed: tuple[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode]
) -> None:
    volume, segmentation = placed
    expected = vtk.vtkMatrix4x4()
    transform = slicer.vtkMRMLTransformNode
    transform.GetMatrixTransformBetweenNodes(
        volume.GetParentTransformNode(), segmentation.GetParentTransformNode(), expected
    )
    assert np.allclose(node_to_node(volume, segmentation), to_array(expected))
    assert np.allclose(node_to_node(volume, segmentation) @ node_to_node(segmentation, volume), np.eye(4))


def test_a_common_transform_cancels_out_exactly(app: Application, ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    other = app.add_volume((4, 4, 4), np.eye(4))
    transform = app.add_transform(rigid((12.3, 4.56, 7.89), (1 / 3, 2 / 3, 0)))
    for node in (ct, other):
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert np.array_equal(node_to_node(ct, other), np.eye(4))


@pytest.mark.parametrize("below_a_linear_one", [False, True])
def test_a_bending_transform_is_refused(
    app: Application, ct: slicer.vtkMRMLScalarVolumeNode, below_a_linear_one: bool
) -> None:
    transform = app.add_bending_transform()
    if below_a_linear_one:
        transform = app.add_transform(np.eye(4), transform)
    ct.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(InputError, match=r"'CT' has a non-linear transform; harden it"):
        node_to_world(ct)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_transform_that_flattens_space_is_refused(
    app: Application, ct: slicer.vtkMRMLScalarVolumeNode, value: float
) -> None:
    ct.SetAndObserveTransformNodeID(app.add_transform(np.diag([1.0, value, 1.0, 1.0])).GetID())
    with pytest.raises(InputError, match="cannot be inverted"):
        node_to_world(ct)
