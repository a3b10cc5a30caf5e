# SPDX-License-Identifier: Apache-2.0
"""Clicks as control points in the views: two point lists that mirror a segment's clicks while they are shown."""

from __future__ import annotations

from collections.abc import Callable

import slicer
import vtk

from VISTA3DCore.errors import InputError

from ..i18n import tr as _
from .clicks import ClickList, Edit, Position, StoredClick
from .names import name_of

POSITIVE_COLOR, NEGATIVE_COLOR = (0.16, 0.80, 0.26), (0.93, 0.18, 0.16)

# Percent of the view's size: smaller than Slicer's default of 3, so that they hide little of what is judged.
_GLYPH_SCALE = 2.0
# Control points keep double precision, transforms of dragged ones round.
_SAME_MM = 1e-5


def positions_of(fiducial_node: slicer.vtkMRMLMarkupsNode) -> tuple[Position, ...]:
    """Return the places of a point list's control points that are defined and selected, world RAS mm, in order.

    :raises InputError: if there is none.
    """
    numbers = [
        number
        for number in range(fiducial_node.GetNumberOfControlPoints())
        if _is_defined(fiducial_node, number) and fiducial_node.GetNthControlPointSelected(number)
    ]
    if not numbers:
        sentence = _("'{name}' has no selected point; place one first.")
        raise InputError(sentence.format(name=name_of(fiducial_node)))
    return tuple(tuple(fiducial_node.GetNthControlPointPositionWorld(number)) for number in numbers)


class ClickMarkups:
    """Shows clicks as control points, positive ones green and negative ones red.

    The two nodes exist only while clicks are shown, are never saved with the scene, do not appear in lists of nodes,
    and follow the segmentation's parent transform. They are locked until :meth:`unlock`. What the user does with the
    points is told as an :class:`Edit`, once for a drag and once for a batch; the points change back unless
    :meth:`show` is called with the changed list.

    :param on_edited: gets the edit.
    """

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        segmentation_node: slicer.vtkMRMLSegmentationNode,
        on_edited: Callable[[Edit], None] = lambda _edit: None,
    ) -> None:
        self.on_edited = on_edited
        self._scene, self._segmentation_node = scene, segmentation_node
        self._locked, self._list = True, ClickList()
        self._lists: dict[bool, _PointList] = {}
        self._transform_observer: int | None = None

    @property
    def nodes(self) -> tuple[slicer.vtkMRMLMarkupsFiducialNode, ...]:
        """The positive and the negative point list, or nothing while no clicks are shown."""
        return tuple(one.node for one in self._lists.values())

    @property
    def locked(self) -> bool:
        """Whether the points cannot be dragged."""
        return self._locked

    def show(self, click_list: ClickList) -> None:
        """Show these clicks and no others; makes the nodes if need be."""
        self._list = click_list
        self._ensure_nodes()
        for positive, points in self._lists.items():
            points.show([click for click in click_list.clicks if click.positive is positive])

    def clear(self) -> None:
        """Remove the nodes and all observers; :meth:`show` makes them again."""
        if self._transform_observer is not None:
            self._segmentation_node.RemoveObserver(self._transform_observer)
            self._transform_observer = None
        lists, self._lists = self._lists, {}
        for points in lists.values():
            points.remove()

    def close(self) -> None:
        """Remove everything for good."""
        self.clear()
        self.on_edited = lambda _edit: None

    def lock(self) -> None:
        """Keep the points from being dragged by accident."""
        self._set_locked(True)

    def unlock(self) -> None:
        """Let the points be dragged."""
        self._set_locked(False)

    def _set_locked(self, locked: bool) -> None:
        self._locked = locked
        for node in self.nodes:
            node.SetLocked(locked)

    def _ensure_nodes(self) -> None:
        if self._lists and all(points.node.GetScene() is self._scene for points in self._lists.values()):
            return
        self.clear()
        names = {True: _("Positive clicks"), False: _("Negative clicks")}
        colors = {True: POSITIVE_COLOR, False: NEGATIVE_COLOR}
        for positive, name in names.items():
            self._lists[positive] = _PointList(self._scene, name, colors[positive], positive, self._edited)
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self._transform_observer = self._segmentation_node.AddObserver(event, self._follow_transform)
        self._follow_transform()
        self._set_locked(self._locked)

    def _follow_transform(self, *_: object) -> None:
        transform = self._segmentation_node.GetTransformNodeID()
        for node in self.nodes:
            if node.GetTransformNodeID() != transform:
                node.SetAndObserveTransformNodeID(transform)

    def _edited(self, edit: Edit) -> None:
        before = self._list
        self.on_edited(edit)
        if self._list is before and self._lists:  # nobody took the edit
            self.show(before)


class _PointList:
    """One node, and which of its control points stands for which click."""

    def __init__(
        self,
        scene: slicer.vtkMRMLScene,
        name: str,
        color: Position,
        positive: bool,
        on_edited: Callable[[Edit], None],
    ) -> None:
        self._scene, self._positive, self._on_edited = scene, positive, on_edited
        self._clicks: dict[str, StoredClick] = {}
        self._updating = self._dragging = False
        self._postponed: list[StoredClick] | None = None
        self.node = add_own_points(scene, name, color, _GLYPH_SCALE)
        handlers = {
            self.node.PointModifiedEvent: self._compare,
            self.node.PointRemovedEvent: self._compare,
            self.node.PointPositionDefinedEvent: self._compare,
            self.node.PointStartInteractionEvent: self._start_drag,
            self.node.PointEndInteractionEvent: self._end_drag,
        }
        self._observers = [self.node.AddObserver(event, handler) for event, handler in handlers.items()]

    def show(self, clicks: list[StoredClick]) -> None:
        """Make the control points these; while one is dragged, afterwards."""
        if self._dragging:
            self._postponed = clicks
            return
        if list(self._clicks.values()) == clicks and not self._difference():
            return
        self._updating, was = True, self.node.StartModify()
        try:
            _set_points(self.node, clicks)
        finally:
            self.node.EndModify(was)
            self._updating = False
        identities = [self.node.GetNthControlPointID(number) for number in range(len(clicks))]
        self._clicks = dict(zip(identities, clicks, strict=True))

    def remove(self) -> None:
        """Remove the node, its display node and the observers."""
        for observer in self._observers:
            self.node.RemoveObserver(observer)
        display = self.node.GetDisplayNode()
        for node in (self.node, display):
            if node is not None and node.GetScene() is self._scene:
                self._scene.RemoveNode(node)

    def _start_drag(self, *_: object) -> None:
        self._dragging = True

    def _end_drag(self, *_: object) -> None:
        self._dragging = False
        postponed, self._postponed = self._postponed, None
        edit = self._difference()
        if edit:
            self._on_edited(edit)
        elif postponed is not None:
            self.show(postponed)

    def _compare(self, *_: object) -> None:
        edit = Edit() if self._updating or self._dragging else self._difference()
        if edit:
            self._on_edited(edit)

    def _difference(self) -> Edit:
        """Return what was done to the points since they were shown."""
        found = {
            self.node.GetNthControlPointID(number): tuple(self.node.GetNthControlPointPosition(number))
            for number in range(self.node.GetNumberOfControlPoints())
            if _is_defined(self.node, number)
        }
        replaced = []
        for identity, click in self._clicks.items():
            if identity not in found:
                replaced.append((click, None))
            elif _differ(click.position, found[identity]):
                replaced.append((click, StoredClick(found[identity], self._positive)))
        added = [StoredClick(place, self._positive) for key, place in found.items() if key not in self._clicks]
        return Edit(tuple(replaced), tuple(added))


def add_own_points(
    scene: slicer.vtkMRMLScene, name: str, color: Position, glyph_scale: float
) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Add a point list that is not the user's: never saved, in no list of nodes, and not the active one.

    :param color: red, green and blue, 0 to 1.
    :param glyph_scale: size of the points, percent of the view.
    """
    node = slicer.vtkMRMLMarkupsFiducialNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetSaveWithScene(False)
    node.SetHideFromEditors(True)
    node.SetUndoEnabled(False)
    _add_quietly(scene, node)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetSaveWithScene(False)
    display.SetColor(*color)
    display.SetSelectedColor(*color)
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetUseGlyphScale(True)
    display.SetGlyphScale(glyph_scale)
    return node


def _add_quietly(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLMarkupsFiducialNode) -> None:
    """Add a point list without making it the one into which the user places points, as the Markups module would."""
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    if selection is None:
        scene.AddNode(node)
        return
    active, kind = selection.GetActivePlaceNodeID(), selection.GetActivePlaceNodeClassName()
    was = selection.StartModify()
    scene.AddNode(node)
    selection.SetActivePlaceNodeID(active)
    selection.SetActivePlaceNodeClassName(kind)
    selection.EndModify(was)


def _set_points(node: slicer.vtkMRMLMarkupsFiducialNode, clicks: list[StoredClick]) -> None:
    while node.GetNumberOfControlPoints() > len(clicks):
        node.RemoveNthControlPoint(node.GetNumberOfControlPoints() - 1)
    for number, click in enumerate(clicks):
        if number == node.GetNumberOfControlPoints():
            node.AddControlPoint(vtk.vtkVector3d(*click.position))
        elif not _is_defined(node, number) or _differ(click.position, node.GetNthControlPointPosition(number)):
            node.SetNthControlPointPosition(number, *click.position)


def _is_defined(node: slicer.vtkMRMLMarkupsNode, number: int) -> bool:
    return node.GetNthControlPointPositionStatus(number) == node.PositionDefined


def _differ(one: Position, other: Position) -> bool:
    return any(abs(a - b) > _SAME_MM for a, b in zip(one, other, strict=True))
