"""A scene with a volume, a segmentation and clicks on it, driven as the Segment Editor's effect drives them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import slicer
import vtk
from engine_helpers import EngineUnderTest
from mrml_scene import Application, add_image

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.inference.session import Session
from VISTA3DSegmentLib.logic.mirror import ClickMirror
from VISTA3DSegmentLib.logic.refinement import Refinement
from VISTA3DSegmentLib.logic.volumes import OpenedVolumes
from VISTA3DSegmentLib.mrml.clicks import ClickList, read_clicks
from VISTA3DSegmentLib.mrml.matrices import to_array
from VISTA3DSegmentLib.mrml.segments import read_mask
from VISTA3DSegmentLib.mrml.volumes import to_volume
from VISTA3DSegmentLib.mrml.writing import EditorLogicWriter

SHAPE = (40, 40, 32)
SPACING_MM = 12.0
#: With the tiny model's random weights, every click on this structure changes something.
TUMOR = 23
PLACES = ((5, 11, 15), (14, 13, 4), (20, 16, 19), (10, 18, 22))


class Scene(Application):
    """A scene with what clicks need."""

    def add_ct(self, affine: np.ndarray, array: np.ndarray | None = None) -> slicer.vtkMRMLScalarVolumeNode:
        """Add a CT; by default the phantom, whose anatomy the affine moves along."""
        array = paint_phantom(SHAPE)[0].array.astype(np.int16) if array is None else array
        return add_image(self.scene, array, affine)

    def add_segmentation(self, volume_node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLSegmentationNode:
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
        return node


class Clicking(Scene):
    """One segment under refinement, with the Segment Editor's own logic as writer."""

    def __init__(
        self,
        engine: EngineUnderTest,
        model: Path | str,
        affine: np.ndarray | None = None,
        bundle: Path | None = None,
        array: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.loop, self.under_test, self.model = engine.loop, engine, str(model)
        if bundle is None:
            self.volume_node = self.add_ct(plain_affine() if affine is None else affine, array)
            self.segmentation_node = self.add_segmentation(self.volume_node)
            self.segment_id = self.segmentation_node.GetSegmentation().AddEmptySegment("tumor", "lung tumor")
        else:
            self.load(bundle)
            self.volume_node = self.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            self.segmentation_node = self.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
            self.segment_id = self.segmentation_node.GetSegmentation().GetNthSegmentID(0)
        self.editor = slicer.vtkSlicerSegmentEditorLogic()
        self.editor.SetMRMLScene(self.scene)
        self.editor.SetMRMLApplicationLogic(self.logic)
        self.editor_node = self.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.editor.SetSegmentEditorNode(self.editor_node)
        self.editor.SetMaximumNumberOfUndoStates(10)  # as the Segment Editor does
        self.volumes = OpenedVolumes(engine.engine)
        self.refinement = Refinement(engine.engine, self.volumes)
        self.refinement.writer = EditorLogicWriter(self.editor)
        self.mirror = ClickMirror(self.refinement)
        self.sentences: list[str] = []
        self.answers: list[tuple] = []
        self.refinement.failed.connect(self.sentences.append)
        self.refinement.answered.connect(lambda *answer: self.answers.append(answer))
        self._watched: list[tuple] = []
        self.watch()
        self.choose()

    def watch(self) -> None:
        """Tell the refinement of changes of the segments, as the effect does."""
        segmentation = self.segmentation_node.GetSegmentation()
        for event in (segmentation.SegmentModified, segmentation.SegmentAdded, segmentation.SegmentRemoved):
            tag = segmentation.AddObserver(event, lambda *_: self.refinement.segment_modified())
            self._watched.append((segmentation, tag))

    def choose(self, segment_id: str | None = None) -> None:
        """Select the segment in editor and refinement."""
        self.segment_id = segment_id or self.segment_id
        self.editor.SetSegmentationNode(self.segmentation_node)
        self.editor.SetSourceVolumeNode(self.volume_node)
        self.editor.SetCurrentSegmentID(self.segment_id)
        self.refinement.set_target(
            self.segmentation_node, self.segment_id, self.volume_node, self.model, "cpu", catalogue()
        )

    def close(self) -> None:
        self.mirror.hide()
        self.refinement.close()
        self.volumes.close_all()
        for segmentation, tag in self._watched:
            segmentation.RemoveObserver(tag)
        self.editor.SetSegmentEditorNode(None)
        self.editor.SetMRMLScene(None)
        self.scene.Clear(True)

    # What a user does

    def settle(self) -> None:
        """Wait until everything that was asked for is answered."""
        self.loop.run_until(lambda: not self.refinement.busy)

    def click(self, ijk: Sequence[float], positive: bool = True) -> None:
        """Click in the middle of a voxel of the volume and wait for the answer."""
        self.refinement.add(self.world(ijk), positive)
        self.settle()

    def world(self, ijk: Sequence[float]) -> tuple[float, float, float]:
        """Return where a voxel of the volume is, world RAS mm, by MRML's own mapping."""
        matrix = vtk.vtkMatrix4x4()
        self.volume_node.GetIJKToRASMatrix(matrix)
        point = matrix.MultiplyPoint((*ijk, 1.0))[:3]
        transform = self.volume_node.GetParentTransformNode()
        if transform is not None:
            general = vtk.vtkGeneralTransform()
            slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(transform, None, general)
            point = general.TransformPoint(point)
        return tuple(point)

    def paint(self, ijk_box: Sequence[tuple[int, int]], segment_id: str | None = None, add: bool = True) -> None:
        """Paint or erase a box of voxels as another tool would, with an undo step."""
        image = slicer.vtkOrientedImageData()
        extent = [value for start, stop in ijk_box for value in (start, stop - 1)]
        image.SetExtent(extent)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        image.GetPointData().GetScalars().Fill(1)
        matrix = vtk.vtkMatrix4x4()
        self.volume_node.GetIJKToRASMatrix(matrix)
        image.SetGeometryFromImageToWorldMatrix(matrix)
        mode = self.editor.ModificationModeAdd if add else self.editor.ModificationModeRemove
        self.editor.SaveStateForUndo()
        chosen = segment_id or self.segment_id
        self.editor.ModifySegmentByLabelmap(self.segmentation_node, chosen, image, mode, extent, True, False)

    # What is there

    def mask(self, segment_id: str | None = None) -> np.ndarray:
        """Return a segment's mask on the volume's grid."""
        return read_mask(self.segmentation_node, segment_id or self.segment_id, self.volume_node).copy()

    def stored(self) -> ClickList:
        return read_clicks(self.segmentation_node, self.segment_id)

    def shown(self) -> list[tuple[tuple[float, float, float], bool]]:
        """Return the control points in the views, world RAS mm."""
        nodes = () if self.mirror.markups is None else self.mirror.markups.nodes
        return [
            (tuple(node.GetNthControlPointPositionWorld(number)), positive)
            for node, positive in zip(nodes, (True, False), strict=False)
            for number in range(node.GetNumberOfControlPoints())
        ]

    def session(self) -> Session:
        """Return the engine in this process, with the same volume."""
        volume = to_volume(self.volume_node)
        return Segmenter.from_pretrained(self.model, "cpu").open(Volume(volume.array, volume.affine, "CT"))

    def node_classes(self) -> list[str]:
        """Return what is in the scene."""
        return sorted(self.scene.GetNthNode(number).GetClassName() for number in range(self.scene.GetNumberOfNodes()))


def plain_affine() -> np.ndarray:
    """Return the affine of a volume that the tiny model sees voxel by voxel."""
    return np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])


def rotation(degrees: Sequence[float]) -> np.ndarray:
    """Return a rotation around R, then A, then S, 4x4."""
    transform = vtk.vtkTransform()
    for rotate, angle in zip((transform.RotateX, transform.RotateY, transform.RotateZ), degrees, strict=True):
        rotate(angle)
    return to_array(transform.GetMatrix())


def as_clicks(click_list: ClickList) -> list[Click]:
    """Return stored clicks whose segmentation has no transform as the engine takes them."""
    return [Click(click.position, click.positive) for click in click_list.clicks]
