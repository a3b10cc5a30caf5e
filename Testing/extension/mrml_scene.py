"""A headless scene with CTs of all geometries, and an independent look at where segments are."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from VISTA3DSegmentLib.mrml.matrices import to_array, to_matrix
from VISTA3DSegmentLib.mrml.segments import create_segmentation
from VISTA3DSegmentLib.mrml.volumes import ijk_to_world, volume_shape
from VISTA3DSegmentLib.mrml.writing import EditorLogicWriter

LOGICS = {
    "Colors": slicer.vtkMRMLColorLogic,
    "Volumes": slicer.vtkSlicerVolumesLogic,
    "Segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
    "Markups": slicer.vtkSlicerMarkupsLogic,
    "SubjectHierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic,
}
SHAPE = (44, 40, 26)
#: Where the CTs' middle lies, world RAS mm, and how large the ball around it is.
MIDDLE, RADIUS = np.array([12.0, -34.0, 61.0]), 14.0


def affine_of(axes: np.ndarray, shape: tuple[int, int, int] = SHAPE, middle: np.ndarray = MIDDLE) -> np.ndarray:
    """Return the affine of a grid with given voxel axes (columns, mm) around a place."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = middle - axes @ ((np.array(shape) - 1) / 2)
    return affine


def rotation(*degrees: float) -> np.ndarray:
    """Return a rotation about x, then y, then z, 3x3."""
    transform = vtk.vtkTransform()
    transform.PostMultiply()
    for angle, turn in zip(degrees, (transform.RotateX, transform.RotateY, transform.RotateZ), strict=True):
        turn(angle)
    return to_array(transform.GetMatrix())[:3, :3]


def rigid(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    """Return a 4x4 rotation and shift."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(*degrees), shift
    return matrix


#: Voxel index -> RAS mm.
AFFINES = {
    "straight": affine_of(np.diag([1.1, 1.1, 1.5])),
    "as DICOM": affine_of(np.diag([-0.9, -0.9, 2.0])),
    "left-handed": affine_of(np.diag([-1.0, 1.2, 1.6])),
    "from feet to head": affine_of(np.diag([-1.0, -1.0, -1.8])),
    "sagittal": affine_of(np.array([[0, 0, -1.7], [1.1, 0, 0], [0, -1.2, 0]])),
    "oblique": affine_of(rotation(20, -11, 7) @ np.diag([-0.8, -0.9, 2.5])),
    "oblique and left-handed": affine_of(rotation(-15, 31, 48) @ np.diag([0.9, -1.0, -1.7]) * [1, -1, 1]),
    "anisotropic": affine_of(np.diag([-0.6, -0.6, 5.0])),
}
OTHER_GRID = affine_of(rotation(4, 9, -13) @ np.diag([1.3, 1.2, 1.4]), (40, 41, 42))


def add_image(
    scene: slicer.vtkMRMLScene, array: np.ndarray, affine: np.ndarray, name: str = "CT"
) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a volume with the voxels [i, j, k]."""
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(array.ravel(order="F"), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAndObserveImageData(image)
    node.SetIJKToRASMatrix(to_matrix(affine))
    return node


class Application:
    """A scene, and the logics of Slicer that observe it.

    Each must be closed after its test (a fixture does): Python's garbage collector would end a forgotten scene at any
    later moment, and a scene that ends calls observers which are half collected by then; this ends the process.
    """

    running: ClassVar[list[Application]] = []

    def __init__(self) -> None:
        self.running.append(self)
        self.scene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.logics = {name: factory() for name, factory in LOGICS.items()}
        for name, logic in self.logics.items():
            logic.SetMRMLScene(self.scene)
            logic.SetMRMLApplicationLogic(self.logic)
            self.logic.SetModuleLogic(name, logic)

    def close(self) -> None:
        """Empty the scene while everything that observes it is alive, then let nothing observe it."""
        self.scene.Clear(True)
        self.scene.RemoveAllObservers()

    @property
    def subject_hierarchy(self) -> slicer.vtkMRMLSubjectHierarchyNode:
        """The scene's subject hierarchy."""
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def add_volume(
        self, shape: tuple[int, int, int], affine: np.ndarray, dtype: type = np.int16, name: str = "CT"
    ) -> slicer.vtkMRMLScalarVolumeNode:
        """Add a volume of random voxels, -1000 to 999."""
        values = np.random.default_rng(0).integers(-1000, 1000, shape[::-1]).astype(dtype)
        return add_image(self.scene, values.T, affine, name)

    def add_transform(self, matrix: np.ndarray, parent: slicer.vtkMRMLNode | None = None) -> slicer.vtkMRMLNode:
        """Add a linear transform."""
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Linear")
        node.SetMatrixTransformToParent(to_matrix(matrix))
        if parent is not None:
            node.SetAndObserveTransformNodeID(parent.GetID())
        return node

    def add_bending_transform(self) -> slicer.vtkMRMLNode:
        """Add a thin plate spline, which is not linear."""
        spline = vtk.vtkThinPlateSplineTransform()
        spline.SetBasisToR()
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for corner in np.ndindex(2, 2, 2):
            source.InsertNextPoint(*np.array(corner) * 100.0)
            target.InsertNextPoint(*np.array(corner) * 100.0 + (7.0 if corner == (1, 1, 1) else 0.0))
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        node = self.scene.AddNewNodeByClass("vtkMRMLTransformNode", "Bending")
        node.SetAndObserveTransformToParent(spline)
        return node

    def editor(
        self,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        volume_node: slicer.vtkMRMLScalarVolumeNode,
        segment_id: str,
    ) -> Editor:
        """Return the Segment Editor without widgets."""
        return Editor(self, segmentation_node, volume_node, segment_id)

    def save(self, folder: Path) -> Path:
        """Save the scene as a bundle."""
        bundle = folder / "scene.mrb"
        assert self.scene.WriteToMRB(str(bundle), None)
        return bundle

    def load(self, bundle: Path) -> None:
        """Load a bundle as Slicer does."""
        folder = bundle.parent / "unpacked"
        with zipfile.ZipFile(bundle) as archive:
            archive.extractall(folder)
        io, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
        (folder / "cache").mkdir()
        io.GetCacheManager().SetRemoteCacheDirectory(str(folder / "cache"))
        io.SetMRMLScene(self.scene)
        manager.SetMRMLApplicationLogic(self.logic)
        manager.SetAndObserveDataIOManager(io.GetDataIOManager())
        io.AddDataIOToScene()
        self.logics |= {"RemoteIO": io, "DataIOManager": manager}
        (description,) = folder.glob("**/*.mrml")
        self.scene.SetURL(str(description))
        self.scene.Import()


class Editor:
    """The Segment Editor's logic and its node."""

    def __init__(
        self,
        app: Application,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        volume_node: slicer.vtkMRMLScalarVolumeNode,
        segment_id: str,
    ) -> None:
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(app.scene)
        self.node = app.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.logic.SetSegmentEditorNode(self.node)
        self.node.SetAndObserveSegmentationNode(segmentation_node)
        self.node.SetAndObserveSourceVolumeNode(volume_node)
        self.node.SetSelectedSegmentID(segment_id)
        self.node.SetOverwriteMode(self.node.OverwriteNone)
        self.writer = EditorLogicWriter(self.logic)


def ball(
    volume_node: slicer.vtkMRMLScalarVolumeNode, center: np.ndarray | None = None, radius: float = RADIUS
) -> np.ndarray:
    """Return the mask of a ball on a volume's grid; by default in the volume's middle.

    :param center: world RAS mm.
    """
    shape, affine = volume_shape(volume_node), ijk_to_world(volume_node)
    if center is None:
        center = middle_of(volume_node)
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return np.asfortranarray(np.sum((places - center) ** 2, axis=-1) < radius**2)


def places_of(mask: np.ndarray, volume_node: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return where the voxels of a mask on a volume's grid are, world RAS mm [n, 3]."""
    affine = ijk_to_world(volume_node)
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def middle_of(volume_node: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return the place of a volume's middle, world RAS mm."""
    affine = ijk_to_world(volume_node)
    return affine[:3, :3] @ ((np.array(volume_shape(volume_node)) - 1) / 2) + affine[:3, 3]


def places_in_world(segmentation_node: slicer.vtkMRMLSegmentationNode, segment_id: str) -> np.ndarray:
    """Return where the voxels of a segment are, world RAS mm [n, 3], asked from Slicer and not from our own code."""
    image, logic = slicer.vtkOrientedImageData(), slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.GetSegmentBinaryLabelmapRepresentation(segmentation_node, segment_id, image, True)
    if image.IsEmpty():
        return np.zeros((0, 3))
    values = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    k, j, i = np.nonzero(values)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = to_array(matrix)
    return (np.stack([i, j, k], axis=-1) + image.GetExtent()[::2]) @ affine[:3, :3].T + affine[:3, 3]


def _volume_alone(app: Application) -> tuple:
    return _made(app, None, None)


def _both(app: Application) -> tuple:
    transform = app.add_transform(rigid((12, -20, 33), (5, 60, -31)))
    return _made(app, transform, transform)


def _volume_moved(app: Application) -> tuple:
    return _made(app, app.add_transform(rigid((3, 8, -21), (2, 3, -4))), None)


def _segmentation_moved(app: Application) -> tuple:
    return _made(app, None, app.add_transform(rigid((-7, 0, 14), (30, 1, 6))))


def _shifted_by_voxels(app: Application) -> tuple:
    """A volume that was moved by whole voxels against its segmentation."""
    axes = AFFINES["oblique"][:3, :3]
    return _made(app, app.add_transform(rigid((0, 0, 0), tuple(axes @ (3, -2, 1)))), None)


def _nested(app: Application) -> tuple:
    outer = app.add_transform(rigid((40, 0, 0), (0, 9, 0)))
    scaled = app.add_transform(np.diag([1.1, 0.9, 1.2, 1.0]), outer)
    return _made(app, app.add_transform(rigid((0, 25, 5), (1, 2, 3)), scaled), outer)


def _made(app: Application, above_volume: slicer.vtkMRMLNode | None, above_segmentation: object) -> tuple:
    volume_node = app.add_volume(SHAPE, AFFINES["oblique"])
    segmentation_node = create_segmentation(app.scene, volume_node)
    for node, transform in ((volume_node, above_volume), (segmentation_node, above_segmentation)):
        node.SetAndObserveTransformNodeID(None if transform is None else transform.GetID())
    return volume_node, segmentation_node


#: What makes a volume and a segmentation with its geometry, each under transforms.
TRANSFORMS: dict[str, Callable[[Application], tuple]] = {
    "none": _volume_alone,
    "both under one": _both,
    "volume moved": _volume_moved,
    "segmentation moved": _segmentation_moved,
    "moved by voxels": _shifted_by_voxels,
    "nested and scaled": _nested,
}
