"""Removing segmentations without waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import slicer
import vtk
from mrml_scene import AFFINES, Application

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.mrml.labelmaps import oriented_image
from VISTA3DSegmentLib.mrml.removal import QuickRemoval, unshare_labelmaps
from VISTA3DSegmentLib.mrml.results import write_result
from VISTA3DSegmentLib.mrml.segments import create_segmentation, read_mask

Volume, Segmentation = slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode
EVERYTHING = catalogue().everything
SHAPE = (160, 160, 80)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16, order="F")
    for n, one in enumerate(EVERYTHING):
        labels[16 * (n % 10) : 16 * (n % 10) + 14, 13 * (n // 10) : 13 * (n // 10) + 12] = one.index
    return labels


@pytest.fixture
def made(app: Application, labels: np.ndarray) -> Segmentation:
    ct = app.add_volume(SHAPE, AFFINES["oblique"], np.uint8)
    node = create_segmentation(app.scene, ct)
    write_result(node, ct, labels, {}, EVERYTHING, {})
    return node


@pytest.fixture
def watching(app: Application) -> Iterator[QuickRemoval]:
    removal = QuickRemoval(app.scene)
    yield removal
    removal.close()


def test_unshared_segments_are_the_same_and_take_no_memory(
    app: Application, made: Segmentation, labels: np.ndarray
) -> None:
    heard, segmentation = [], made.GetSegmentation()
    tag = made.AddObserver(vtk.vtkCommand.AnyEvent, lambda *_: heard.append(1))
    shared = segmentation.GetNthSegment(0).GetRepresentation("Binary labelmap")
    unshare_labelmaps(made)
    own = [segmentation.GetNthSegment(n).GetRepresentation("Binary labelmap") for n in range(117)]
    assert segmentation.GetNumberOfLayers() == 117
    assert {one.GetPointData().GetScalars() for one in own} == {shared.GetPointData().GetScalars()}
    ct = app.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    for n in (0, 60, 116):
        mask = read_mask(made, segmentation.GetNthSegmentID(n), ct)
        assert np.array_equal(mask, labels == EVERYTHING[n].index)
    made.RemoveObserver(tag)
    assert not heard
    assert not made.GetDisableModifiedEvent()


@pytest.mark.alone
def test_a_segmentation_is_removed_at_once(app: Application, made: Segmentation, labels: np.ndarray) -> None:
    """Slicer runs through the whole shared labelmap twice for each segment that it removes."""
    helped = create_segmentation(app.scene, app.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode"))
    write_result(helped, app.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode"), labels, {}, EVERYTHING, {})
    alone_s = _seconds_to_remove(app, made)
    removal = QuickRemoval(app.scene)
    assert _seconds_to_remove(app, helped) < alone_s / 3
    removal.close()


@pytest.mark.usefixtures("watching")
def test_a_scene_that_is_closed_is_not_held_up(app: Application, made: Segmentation) -> None:
    app.scene.Clear(True)
    assert app.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
    assert made.GetSegmentation().GetNumberOfLayers() == 117


def _seconds_to_remove(app: Application, node: Segmentation) -> float:
    started = time.process_time()
    app.scene.RemoveNode(node)
    node.GetSegmentation().RemoveAllSegments()  # as Slicer does as soon as nobody holds the node any more
    return time.process_time() - started


def test_segmentations_of_others_and_other_nodes_are_left_alone(app: Application, watching: QuickRemoval) -> None:
    node = app.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    image = oriented_image(np.arange(27, dtype=np.uint8).reshape(3, 3, 3), np.eye(4))
    for label in (1, 2):
        segment = slicer.vtkSegment()
        segment.SetLabelValue(label)
        segment.AddRepresentation("Binary labelmap", image)
        node.GetSegmentation().AddSegment(segment, str(label))
    app.scene.RemoveNode(node)
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    app.scene.RemoveNode(app.add_volume((3, 3, 3), np.eye(4)))


def test_a_closed_watcher_does_nothing(app: Application, made: Segmentation) -> None:
    QuickRemoval(app.scene).close()
    app.scene.RemoveNode(made)
    assert made.GetSegmentation().GetNumberOfLayers() == 1
