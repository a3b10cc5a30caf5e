"""What counts as a click in a view, and where it lies: events of real interactors, rays through real cameras."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from hypothesis import given
from hypothesis import strategies as st
from refinement_helpers import Scene, plain_affine, rotation

from VISTA3DSegmentLib.logic.click_gesture import TOLERANCE, ClickGesture, Gesture
from VISTA3DSegmentLib.mrml.doubtful_mark import DoubtfulMark
from VISTA3DSegmentLib.mrml.picking import ray_through, surface_point
from VISTA3DSegmentLib.mrml.pointed import is_on_markup, is_placing
from VISTA3DSegmentLib.mrml.views import center_slices

COMMAND = vtk.vtkCommand
PRESS, MOVE, RELEASE = COMMAND.LeftButtonPressEvent, COMMAND.MouseMoveEvent, COMMAND.LeftButtonReleaseEvent
DOUBLE_CLICK = COMMAND.LeftButtonDoubleClickEvent
NOTHING = Gesture()


class Mouse:
    """A mouse over a view: real events of a real interactor, observed as the Segment Editor observes them."""

    def __init__(self) -> None:
        self.interactor = vtk.vtkGenericRenderWindowInteractor()
        self.gesture, self.seen, self.taken = ClickGesture(), [], False
        for event in (PRESS, MOVE, RELEASE, DOUBLE_CLICK, COMMAND.RightButtonPressEvent, COMMAND.LeaveEvent):
            self.interactor.AddObserver(event, self._observe)

    def _observe(self, caller: vtk.vtkObject, name: str) -> None:
        event = COMMAND.GetEventIdFromString(name)
        self.seen.append(self.gesture.follow(event, caller, self.taken))

    def do(self, event: int, x: int, y: int, control: bool = False, shift: bool = False, alt: bool = False) -> Gesture:
        self.interactor.SetEventInformation(x, y, control, shift, chr(0), 0, None)
        self.interactor.SetAltKey(alt)
        self.interactor.InvokeEvent(event)
        return self.seen[-1]


@pytest.fixture
def mouse() -> Mouse:
    return Mouse()


def test_press_and_release_at_one_place_is_a_click(mouse):
    assert mouse.do(PRESS, 100, 80) == NOTHING
    assert mouse.do(RELEASE, 100, 80) == Gesture(clicked=(100, 80))


def test_a_click_lies_where_the_button_was_pressed(mouse):
    mouse.do(PRESS, 100, 80)
    mouse.do(MOVE, 102, 81)
    assert mouse.do(RELEASE, 102, 81).clicked == (100, 80)


def test_control_makes_the_opposite_click(mouse):
    mouse.do(PRESS, 5, 6, control=True)
    assert mouse.do(RELEASE, 5, 6, control=True) == Gesture(clicked=(5, 6), opposite=True)


def test_control_counts_when_the_button_is_pressed(mouse):
    mouse.do(PRESS, 5, 6, control=True)
    assert mouse.do(RELEASE, 5, 6).opposite


def test_a_drag_is_no_click_even_if_it_comes_back(mouse):
    mouse.do(PRESS, 100, 80)
    mouse.do(MOVE, 100 + TOLERANCE + 1, 80)
    mouse.do(MOVE, 100, 80)
    assert mouse.do(RELEASE, 100, 80) == NOTHING


@pytest.mark.parametrize("modifier", ["shift", "alt"])
def test_panning_and_turning_slices_stay_slicers(mouse, modifier):
    assert mouse.do(PRESS, 100, 80, **{modifier: True}) == NOTHING
    assert mouse.do(RELEASE, 100, 80, **{modifier: True}) == NOTHING


def test_another_button_ends_the_gesture(mouse):
    mouse.do(PRESS, 100, 80)
    mouse.do(COMMAND.RightButtonPressEvent, 100, 80)
    assert mouse.do(RELEASE, 100, 80) == NOTHING


def test_leaving_the_view_ends_the_gesture(mouse):
    mouse.do(PRESS, 100, 80)
    assert mouse.do(COMMAND.LeaveEvent, 100, 80).left
    assert mouse.do(RELEASE, 100, 80) == NOTHING


def test_what_is_under_the_pointer_keeps_its_click(mouse):
    mouse.taken = True
    mouse.do(PRESS, 100, 80)
    mouse.taken = False
    assert mouse.do(RELEASE, 100, 80) == NOTHING


def test_a_double_click_is_one_click_and_does_not_maximize_the_view(mouse):
    mouse.do(PRESS, 100, 80)
    assert mouse.do(RELEASE, 100, 80).clicked
    mouse.do(PRESS, 100, 80)  # some versions of VTK tell the second press as well
    assert mouse.do(DOUBLE_CLICK, 100, 80) == Gesture(consumed=True)
    assert mouse.do(RELEASE, 100, 80) == NOTHING


def test_a_double_click_with_a_key_is_slicers(mouse):
    assert not mouse.do(DOUBLE_CLICK, 100, 80, control=True).consumed


def test_moving_without_a_button_tells_where(mouse):
    assert mouse.do(MOVE, 7, 8) == Gesture(pointed=(7, 8))


def test_dragging_does_not_tell_where(mouse):
    mouse.do(PRESS, 100, 80, shift=True)
    assert mouse.do(MOVE, 120, 80, shift=True) == NOTHING


@given(
    st.lists(
        st.tuples(
            st.sampled_from([PRESS, MOVE, RELEASE, DOUBLE_CLICK, COMMAND.RightButtonPressEvent, COMMAND.LeaveEvent]),
            st.integers(0, 30),
            st.integers(0, 30),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_every_click_has_a_press_before_it_and_only_double_clicks_are_consumed(events):
    mouse, pressed = Mouse(), None
    for event, x, y, shift in events:
        found = mouse.do(event, x, y, shift=shift)
        pressed = (x, y) if event == PRESS and not shift else pressed
        assert not found.consumed or event == DOUBLE_CLICK
        if found.clicked is not None:
            assert event == RELEASE
            assert found.clicked == pressed
            assert max(abs(x - pressed[0]), abs(y - pressed[1])) <= TOLERANCE


# What else is under the pointer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_unlocked_point_under_the_pointer_takes_the_click(scene):
    node = scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    node.CreateDefaultDisplayNodes()
    node.AddControlPoint(vtk.vtkVector3d(1, 2, 3))
    assert not is_on_markup(scene.scene)
    node.GetDisplayNode().SetActiveComponent(slicer.vtkMRMLMarkupsDisplayNode.ComponentControlPoint, 0)
    assert is_on_markup(scene.scene)
    node.SetLocked(True)
    assert not is_on_markup(scene.scene)


def test_place_mode_takes_the_click(scene):
    node = scene.scene.AddNewNodeByClass("vtkMRMLInteractionNode")
    assert not is_placing(scene.scene)
    node.SetCurrentInteractionMode(node.Place)
    assert is_placing(scene.scene)


# 3D views


def camera_view(position: np.ndarray, focus: np.ndarray, parallel: bool = False) -> vtk.vtkRenderer:
    """Return a renderer in a window of 400 x 300 pixels that looks from one place at another."""
    renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
    window.SetOffScreenRendering(True)
    window.SetSize(400, 300)
    window.AddRenderer(renderer)
    camera = renderer.GetActiveCamera()
    camera.SetPosition(position)
    camera.SetFocalPoint(focus)
    camera.SetViewUp(0, 0, 1)
    camera.SetParallelProjection(parallel)
    camera.SetClippingRange(1, 2000)
    renderer.window = window  # keeps it alive
    return renderer


def pixel_of(renderer: vtk.vtkRenderer, place: np.ndarray) -> tuple[float, float]:
    renderer.SetWorldPoint(*place, 1.0)
    renderer.WorldToDisplay()
    return renderer.GetDisplayPoint()[:2]


def add_ball(scene: Scene, center: tuple[float, float, float], radius: float = 30.0, name: str = "ball"):
    """Return a segmentation with a ball whose surface is shown in 3D."""
    existing = scene.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    node = existing or scene.add_segmentation(scene.add_ct(plain_affine()))
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(center)
    sphere.SetRadius(radius)
    sphere.SetThetaResolution(60)
    sphere.SetPhiResolution(60)
    sphere.Update()
    segment = slicer.vtkSegment()
    segment.SetName(name)
    surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    segment.AddRepresentation(surface, sphere.GetOutput())
    if existing is None:
        node.GetSegmentation().SetSourceRepresentationName(surface)
    node.GetSegmentation().AddSegment(segment, name)
    return node


@pytest.mark.parametrize("parallel", [False, True])
def test_a_ray_goes_through_what_is_seen_at_its_pixel(parallel):
    renderer = camera_view(np.array([300.0, 50.0, 20.0]), np.zeros(3), parallel)
    place = np.array([10.0, -25.0, 14.0])
    start, end = ray_through(renderer, pixel_of(renderer, place))
    along = (end - start) / np.linalg.norm(end - start)
    assert np.linalg.norm(np.cross(place - start, along)) < 1e-3


def test_a_click_on_a_surface_lies_on_the_side_that_is_seen(scene):
    node = add_ball(scene, (0, 0, 0))
    renderer = camera_view(np.array([300.0, 0.0, 0.0]), np.zeros(3))
    found = surface_point(node, *ray_through(renderer, pixel_of(renderer, np.zeros(3))))
    assert found == pytest.approx((30, 0, 0), abs=0.1)


def test_a_click_beside_all_surfaces_is_none(scene):
    node = add_ball(scene, (0, 0, 0))
    renderer = camera_view(np.array([300.0, 0.0, 0.0]), np.zeros(3))
    assert surface_point(node, *ray_through(renderer, pixel_of(renderer, np.array([0.0, 60.0, 0.0])))) is None


def test_the_nearest_surface_counts_and_transparent_ones_are_looked_through(scene):
    add_ball(scene, (0, 0, 0), 30.0, "inner")
    node = add_ball(scene, (0, 0, 0), 60.0, "outer")
    ray = np.array([300.0, 0.0, 0.0]), np.array([-300.0, 0.0, 0.0])
    assert surface_point(node, *ray) == pytest.approx((60, 0, 0), abs=0.1)
    node.GetDisplayNode().SetSegmentOpacity3D("outer", 0.2)
    assert surface_point(node, *ray) == pytest.approx((30, 0, 0), abs=0.1)
    node.GetDisplayNode().SetSegmentVisibility("inner", False)
    assert surface_point(node, *ray) == pytest.approx((60, 0, 0), abs=0.1)
    node.GetDisplayNode().SetVisibility3D(False)
    assert surface_point(node, *ray) is None


def test_a_camera_inside_a_surface_sees_its_inner_side(scene):
    node = add_ball(scene, (0, 0, 0))
    assert surface_point(node, np.zeros(3), np.array([0.0, 300.0, 0.0])) == pytest.approx((0, 30, 0), abs=0.1)


@given(st.tuples(*[st.floats(-180, 180)] * 3), st.tuples(*[st.floats(-100, 100)] * 3))
def test_a_transformed_segmentation_is_hit_where_it_is_seen(angles, shift):
    scene = Scene()
    node = add_ball(scene, (20, -10, 5), 15.0)
    matrix = rotation(angles)
    matrix[:3, 3] = shift
    node.SetAndObserveTransformNodeID(scene.add_transform(matrix).GetID())
    center = (matrix @ [20, -10, 5, 1])[:3]
    away = np.array([250.0, 40.0, 30.0])
    renderer = camera_view(center + away, center)
    found = surface_point(node, *ray_through(renderer, pixel_of(renderer, center)))
    assert found == pytest.approx(center + 15.0 * away / np.linalg.norm(away), abs=0.3)


# Slice views


def test_all_slice_views_come_to_look_at_a_place(scene):
    nodes = []
    for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        node = slicer.vtkMRMLSliceNode()
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node = scene.scene.AddNode(node)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene.scene)
        node.SetOrientation(orientation)
        nodes.append(node)
    center_slices(scene.scene, (12.0, -40.0, 88.0))
    for node in nodes:
        matrix = node.GetSliceToRAS()
        assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([12.0, -40.0, 88.0])


def test_the_doubtful_place_is_one_point_and_goes_without_trace(scene):
    before, mark = scene.scene.GetNumberOfNodes(), DoubtfulMark()
    for place in ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)):
        mark.show(scene.scene, place)
    assert tuple(mark.node.GetNthControlPointPositionWorld(0)) == (4.0, 5.0, 6.0)
    assert not mark.node.GetSaveWithScene()
    mark.hide()
    mark.hide()
    assert scene.scene.GetNumberOfNodes() == before


def test_the_doubtful_place_leaves_the_list_alone_into_which_the_user_places_points(scene):
    own, mark = scene.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F"), DoubtfulMark()
    selection = scene.scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    assert selection.GetActivePlaceNodeID() == own.GetID()
    for change in (lambda: mark.show(scene.scene, (1.0, 2.0, 3.0)), mark.hide):
        change()
        assert selection.GetActivePlaceNodeID() == own.GetID()
