# SPDX-License-Identifier: Apache-2.0
"""A CT in Slicer's views, the module, an editor with our effect, and a mouse."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer_harness import settle, wait_for

MODULE, EFFECT, MODEL = "VISTA3DSegment", "VISTA3D", "mini"
#: What is segmented; it must be in the CT.
STRUCTURE = os.environ.get("VISTA3D_TEST_STRUCTURE", "liver")


def services() -> Any:
    """Return the services of the extension, with the small model chosen."""
    from VISTA3DSegmentLib.application import services as of_application

    one = of_application()
    if one.settings.model != MODEL:
        one.settings.model = MODEL
    return one


def structure() -> Any:
    """Return what is segmented, from the catalogue."""
    return services().catalogue()[STRUCTURE]


def new_scene() -> slicer.vtkMRMLScalarVolumeNode:
    """Close the scene and load a CT: the file ``VISTA3D_TEST_CT``, else the painted abdomen."""
    slicer.mrmlScene.Clear(False)
    settle()
    path = os.environ.get("VISTA3D_TEST_CT")
    node = slicer.util.loadVolume(path) if path else _painted()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    settle()
    return node


def _painted() -> slicer.vtkMRMLScalarVolumeNode:
    services()
    from VISTA3DCore.imaging.phantom import paint_phantom

    volume, _labels = paint_phantom()
    array = np.ascontiguousarray(volume.array.T.astype(np.int16))
    return slicer.util.addVolumeFromArray(array, np.asarray(volume.affine), "Painted abdomen")


def open_module() -> Any:
    """Show the module, and return its panel."""
    slicer.util.selectModule(MODULE)
    settle()
    return slicer.util.getModuleWidget(MODULE).panel


def mask_of(node: slicer.vtkMRMLSegmentationNode, segment_id: str, volume: Any) -> np.ndarray:
    """Return a segment as bool [k, j, i] on the volume's grid."""
    return slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, volume) > 0


def world_of(volume: Any, kji: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the place of a voxel, RAS mm."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return tuple(matrix.MultiplyPoint((*kji[::-1], 1.0))[:3])


def kill(pid: int) -> None:
    """End a process as a crash would."""
    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


@dataclass
class Editing:
    """The Segment Editor module with our effect on a segment."""

    volume: slicer.vtkMRMLScalarVolumeNode
    node: slicer.vtkMRMLSegmentationNode
    segment_id: str
    editor: Any

    @property
    def session(self) -> Any:
        return services().clicking

    @property
    def effect(self) -> Any:
        return self.editor.effectByName(EFFECT).self()

    def mask(self) -> np.ndarray:
        return mask_of(self.node, self.segment_id, self.volume)

    def activate(self) -> None:
        """Choose the effect and wait until the model is ready."""
        self.editor.setActiveEffectByName(EFFECT)
        assert self.editor.activeEffect() is not None, "the effect cannot be activated"
        assert self.session.active, "the effect is active but does nothing"
        wait_for(lambda: not self.session.state, "the model is ready")

    def deactivate(self) -> None:
        self.editor.setActiveEffect(None)
        settle()

    def click(self, world: tuple[float, float, float], control: bool = False, wait: bool = True) -> tuple:
        """Click at a place in the red view, and return the latency, ms: in all, of the engine."""
        from slicer_harness import collecting

        look_at(world)
        with collecting(self.session.answered) as answered, collecting(self.session.failed) as failed:
            press_and_release("Red", *pixel_of("Red", world), control=control)
            if not wait:
                return ()
            wait_for(lambda: answered or failed, "the click is answered")
        assert not failed, failed[0][0]
        return answered[0]


def edit(volume: Any, name: str | None = None) -> Editing:
    """Open the Segment Editor module on a new segmentation with one segment."""
    slicer.util.selectModule("SegmentEditor")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    identity = node.GetSegmentation().AddEmptySegment("", STRUCTURE if name is None else name)
    editor = slicer.util.getModuleWidget("SegmentEditor").editor
    editor.setSegmentationNode(node)
    editor.setSourceVolumeNode(volume)
    editor.setCurrentSegmentID(identity)
    settle()
    return Editing(volume, node, identity, editor)


# Views


def look_at(world: tuple[float, float, float]) -> None:
    """Let all slice views look at a place."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *world, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
    settle(0.05)


def pixel_of(view: str, world: tuple[float, float, float]) -> tuple[int, int]:
    """Return where a place is in a slice view."""
    node = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode()
    matrix = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), matrix)
    x, y, _z, _one = matrix.MultiplyPoint((*world, 1.0))
    return round(x), round(y)


def interactor_of(view: str | int) -> vtk.vtkRenderWindowInteractor:
    """Return what tells the events of a slice view, by name, or of a 3D view, by number."""
    layout = slicer.app.layoutManager()
    if isinstance(view, int):
        return layout.threeDWidget(view).threeDView().interactor()
    return layout.sliceWidget(view).sliceView().interactorStyle().GetInteractor()


def press_and_release(view: str | int, x: int, y: int, control: bool = False, shift: bool = False) -> None:
    """Click the left mouse button in a view."""
    drag(view, [(x, y)], control, shift)


def drag(view: str | int, path: list[tuple[int, int]], control: bool = False, shift: bool = False) -> None:
    """Press the left mouse button at the first place, move to the others, and release it."""
    interactor, events = interactor_of(view), vtk.vtkCommand
    steps = [(events.MouseMoveEvent, path[0]), (events.LeftButtonPressEvent, path[0])]
    steps += [(events.MouseMoveEvent, place) for place in path[1:]] + [(events.LeftButtonReleaseEvent, path[-1])]
    for event, place in steps:
        interactor.SetEventInformation(*place, control, shift, chr(0), 0, None)
        interactor.InvokeEvent(event)
