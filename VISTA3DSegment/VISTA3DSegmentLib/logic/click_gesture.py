# SPDX-License-Identifier: Apache-2.0
"""What counts as a click in a view: press and release of the left button at one place, everything else stays Slicer's.

Nothing is taken away from Slicer but the double click: its first half is a click already, so it must not maximize the
view as well. Panning (``Shift``), turning of slices (``Alt``), zooming (right button), scrolling, window/level and the
dragging of control points work as without the effect, because a drag is not a click.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import vtk

#: Pixels that the pointer may move between press and release.
TOLERANCE = 4

_PRESS, _RELEASE = vtk.vtkCommand.LeftButtonPressEvent, vtk.vtkCommand.LeftButtonReleaseEvent
_DOUBLE_CLICK, _MOVE = vtk.vtkCommand.LeftButtonDoubleClickEvent, vtk.vtkCommand.MouseMoveEvent
_LEAVE = vtk.vtkCommand.LeaveEvent
# Another gesture has begun, or the pointer has gone.
_ENDS = (
    vtk.vtkCommand.RightButtonPressEvent,
    vtk.vtkCommand.MiddleButtonPressEvent,
    vtk.vtkCommand.MouseWheelForwardEvent,
    vtk.vtkCommand.MouseWheelBackwardEvent,
    _LEAVE,
)


class Pointer(Protocol):
    """The part of ``vtkRenderWindowInteractor`` that is needed here."""

    def GetEventPosition(self) -> tuple[int, int]: ...
    def GetControlKey(self) -> int: ...
    def GetShiftKey(self) -> int: ...
    def GetAltKey(self) -> int: ...


@dataclass(frozen=True)
class Gesture:
    """What an event amounts to.

    :param clicked: pixel at which something was clicked, else None.
    :param opposite: whether ``Ctrl`` was held: a click of the opposite polarity.
    :param pointed: pixel that the pointer moved to without a button, else None.
    :param left: whether the pointer left the view.
    :param consumed: whether Slicer must not see the event.
    """

    clicked: tuple[int, int] | None = None
    opposite: bool = False
    pointed: tuple[int, int] | None = None
    left: bool = False
    consumed: bool = False


_NOTHING = Gesture()


class ClickGesture:
    """Follows the events of the views' interactors."""

    def __init__(self) -> None:
        self._pressed: tuple[int, int] | None = None
        self._opposite = self._dragging = False

    def follow(self, event: int, pointer: Pointer, taken: bool = False) -> Gesture:
        """Return what an event amounts to.

        :param event: number of the VTK event.
        :param taken: whether something else is under the pointer that reacts to it, such as a point to be dragged.
        """
        if event == _PRESS:
            self._press(pointer, taken)
        elif event == _MOVE:
            return self._move(pointer)
        elif event == _RELEASE:
            return self._release(pointer)
        elif event == _DOUBLE_CLICK:
            self._pressed = None
            return Gesture(consumed=not taken and not _has_modifier(pointer, control=True))
        elif event in _ENDS:
            self.reset()
            return Gesture(left=event == _LEAVE)
        return _NOTHING

    def reset(self) -> None:
        """Forget a press, e.g. because the effect was deactivated."""
        self._pressed = None
        self._dragging = False

    def _press(self, pointer: Pointer, taken: bool) -> None:
        self._dragging = True
        ours = not taken and not _has_modifier(pointer)
        self._pressed = tuple(pointer.GetEventPosition()) if ours else None
        self._opposite = bool(pointer.GetControlKey())

    def _move(self, pointer: Pointer) -> Gesture:
        place = tuple(pointer.GetEventPosition())
        if self._dragging:
            self._pressed = self._pressed if self._is_near(place) else None
            return _NOTHING
        return Gesture(pointed=place)

    def _release(self, pointer: Pointer) -> Gesture:
        pressed, self._pressed, self._dragging = self._pressed, None, False
        place = tuple(pointer.GetEventPosition())
        if pressed is None or _distance(pressed, place) > TOLERANCE:
            return _NOTHING
        # Where it was pressed is where it was aimed.
        return Gesture(clicked=pressed, opposite=self._opposite)

    def _is_near(self, place: tuple[int, int]) -> bool:
        return self._pressed is not None and _distance(self._pressed, place) <= TOLERANCE


def _has_modifier(pointer: Pointer, control: bool = False) -> bool:
    return bool(pointer.GetShiftKey() or pointer.GetAltKey() or (control and pointer.GetControlKey()))


def _distance(one: tuple[int, int], other: tuple[int, int]) -> float:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1]))
