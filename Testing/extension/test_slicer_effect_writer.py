"""Writing through the effect: what it is told is what a real Segment Editor logic then does."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from refinement_helpers import Scene, plain_affine
from vtk.util.numpy_support import vtk_to_numpy

from VISTA3DSegmentLib.logic.effect_writer import EffectWriter
from VISTA3DSegmentLib.mrml.matrices import to_matrix
from VISTA3DSegmentLib.mrml.segments import read_mask
from VISTA3DSegmentLib.mrml.writing import EditorLogicWriter, write_box

SHAPE = (40, 40, 32)
BOX = ((10, 20), (12, 22), (8, 16))
MODES = [
    getattr(slicer.vtkSlicerSegmentEditorLogic, f"ModificationMode{name}")
    for name in ("Set", "Add", "Remove", "RemoveAll")
]


class RecordingEffect:
    """Stands in for ``qSlicerSegmentEditorScriptedEffect``: hands on to a real logic, as that class does."""

    ModificationModeSet, ModificationModeAdd, ModificationModeRemove, ModificationModeRemoveAll = range(4)

    def __init__(self, logic: slicer.vtkSlicerSegmentEditorLogic, editor_node: slicer.vtkMRMLSegmentEditorNode | None):
        self._logic, self._editor_node, self.calls = logic, editor_node, []

    def parameterSetNode(self) -> slicer.vtkMRMLSegmentEditorNode | None:  # noqa: N802
        return self._editor_node

    def saveStateForUndo(self) -> None:  # noqa: N802
        self.calls.append("save")
        self._logic.SaveStateForUndo()

    def modifySelectedSegmentByLabelmap(self, labelmap, mode: int, extent: list[int]) -> None:  # noqa: N802
        assert type(extent) is list
        assert all(type(one) is int for one in extent)
        self.calls.append("selected")
        node = self._editor_node
        self._modify(node.GetSegmentationNode(), node.GetSelectedSegmentID(), labelmap, mode, extent)

    def modifySegmentByLabelmap(self, node, segment_id: str, labelmap, mode: int) -> None:  # noqa: N802
        self.calls.append("other")
        self._modify(node, segment_id, labelmap, mode, [0, -1, 0, -1, 0, -1])

    def _modify(self, node, segment_id: str, labelmap, mode: int, extent: list[int]) -> None:
        self._logic.ModifySegmentByLabelmap(node, segment_id, labelmap, MODES[mode], extent, True, False)


class Editing(Scene):
    """A segmentation with a liver and a spleen in a Segment Editor, the liver selected."""

    def __init__(self) -> None:
        super().__init__()
        self.volume = self.add_ct(plain_affine())
        self.node = self.add_segmentation(self.volume)
        self.liver, self.spleen = (self.node.GetSegmentation().AddEmptySegment(one, one) for one in ("liver", "spleen"))
        self.editor_node = self.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.editor = slicer.vtkSlicerSegmentEditorLogic()
        self.editor.SetMRMLScene(self.scene)
        self.editor.SetMRMLApplicationLogic(self.logic)
        self.editor.SetSegmentEditorNode(self.editor_node)
        self.editor.SetSegmentationNode(self.node)
        self.editor.SetSourceVolumeNode(self.volume)
        self.editor.SetCurrentSegmentID(self.liver)
        self.effect = RecordingEffect(self.editor, self.editor_node)
        self.writer = EffectWriter(self.effect)

    def write(self, writer, segment_id: str, before: np.ndarray, after: np.ndarray) -> None:
        writer.save_state()
        write_box(writer, self.node, segment_id, self.volume, before, after, BOX)

    def mask(self, segment_id: str) -> np.ndarray:
        return read_mask(self.node, segment_id, self.volume).copy()


@pytest.fixture
def editing() -> Editing:
    return Editing()


EMPTY = np.zeros((10, 10, 8), bool)
FULL = ~EMPTY
HALF = FULL.copy()
HALF[:5] = False


def whole(patch: np.ndarray) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*ends) for ends in BOX)] = patch
    return mask


def test_the_modes_are_those_of_the_logic():
    assert [int(mode) for mode in MODES] == [0, 1, 2, 3]


def test_adding_and_removing_reach_the_selected_segment(editing):
    editing.write(editing.writer, editing.liver, EMPTY, FULL)
    assert np.array_equal(editing.mask(editing.liver), whole(FULL))
    editing.write(editing.writer, editing.liver, FULL, HALF)
    assert np.array_equal(editing.mask(editing.liver), whole(HALF))
    assert editing.effect.calls == ["save", "selected", "save", "selected"]


def test_another_segment_than_the_selected_one_is_reached_as_well(editing):
    editing.write(editing.writer, editing.spleen, EMPTY, FULL)
    editing.write(editing.writer, editing.spleen, FULL, HALF)
    assert np.array_equal(editing.mask(editing.spleen), whole(HALF))
    assert not editing.mask(editing.liver).any()
    assert editing.effect.calls == ["save", "other", "save", "other"]


def test_without_an_editor_node_the_named_segment_is_reached(editing):
    writer = EffectWriter(RecordingEffect(editing.editor, None))
    editing.write(writer, editing.liver, EMPTY, FULL)
    assert np.array_equal(editing.mask(editing.liver), whole(FULL))


def test_one_undo_step_takes_everything_back(editing):
    editing.write(editing.writer, editing.liver, EMPTY, FULL)
    swapped = FULL ^ HALF
    editing.write(editing.writer, editing.liver, FULL, swapped)
    editing.editor.Undo()
    assert np.array_equal(editing.mask(editing.liver), whole(FULL))
    editing.editor.Undo()
    assert not editing.mask(editing.liver).any()
    editing.editor.Redo()
    editing.editor.Redo()
    assert np.array_equal(editing.mask(editing.liver), whole(swapped))


@pytest.mark.parametrize("overwrite", ["OverwriteNone", "OverwriteAllSegments"])
def test_overwriting_is_as_chosen_in_the_editor(editing, overwrite):
    editing.write(editing.writer, editing.liver, EMPTY, FULL)
    editing.editor.SetCurrentSegmentID(editing.spleen)
    editing.editor_node.SetOverwriteMode(getattr(editing.editor_node, overwrite))
    editing.write(editing.writer, editing.spleen, EMPTY, HALF)
    assert np.array_equal(editing.mask(editing.spleen), whole(HALF))
    kept = whole(FULL) if overwrite == "OverwriteNone" else whole(FULL & ~HALF)
    assert np.array_equal(editing.mask(editing.liver), kept)


def test_masking_to_a_range_of_intensities_holds(editing):
    editing.editor_node.SetSourceVolumeIntensityMask(True)
    editing.editor_node.SetSourceVolumeIntensityMaskRange(20.0, 3000.0)
    editing.write(editing.writer, editing.liver, EMPTY, FULL)
    image = editing.volume.GetImageData()
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(SHAPE[::-1]).T
    bright = whole(FULL) & (array >= 20)
    assert bright.any()
    assert np.array_equal(editing.mask(editing.liver), bright)


def test_it_writes_what_the_logic_itself_writes():
    results = []
    for make in (lambda one: one.writer, lambda one: EditorLogicWriter(one.editor)):
        editing = Editing()
        editing.volume.SetIJKToRASMatrix(to_matrix(np.diag([-2.0, 1.5, 3.0, 1.0])))
        editing.node.SetReferenceImageGeometryParameterFromVolumeNode(editing.volume)
        editing.write(make(editing), editing.liver, EMPTY, HALF)
        results.append(editing.mask(editing.liver))
    assert np.array_equal(*results)
    assert np.array_equal(results[0], whole(HALF))
