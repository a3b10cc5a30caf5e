# SPDX-License-Identifier: Apache-2.0
"""The effect "VISTA3D" of the Segment Editor: clicks into views become clicks on the selected segment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from VISTA3DSegmentLib.logic.click_gesture import ClickGesture
from VISTA3DSegmentLib.logic.click_keys import KEYS
from VISTA3DSegmentLib.logic.effect_writer import EffectWriter

# The pointer has rested when it did not move for so long.
_REST_MS = 250
_TAKEN_BY_OTHERS = (vtk.vtkCommand.LeftButtonPressEvent, vtk.vtkCommand.LeftButtonDoubleClickEvent)


def make_scripted_effect() -> Any:
    """Return a new effect for an editor.

    Slicer looks for the class in the module that is named like this file's folder. If it were not there, Slicer would
    execute this file in the place of the package, which would be lost.
    """
    sys.modules[__package__].SegmentEditorEffect = SegmentEditorEffect
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    scripted_effect = effects.qSlicerSegmentEditorScriptedEffect(None)
    scripted_effect.setPythonSource(Path(__file__).as_posix())
    return scripted_effect


def register() -> None:
    """Offer the effect in all editors; harmless if it is offered already."""
    make_scripted_effect().self().register()


class SegmentEditorEffect(AbstractScriptedSegmentEditorEffect):
    """Translates events; :class:`ClickSession` does the work, for one copy of the effect at a time."""

    def __init__(self, scriptedEffect: Any) -> None:
        scriptedEffect.name = "VISTA3D"
        scriptedEffect.title = "VISTA3D"
        scriptedEffect.perSegment = True
        scriptedEffect.requireSegments = True
        scriptedEffect.showEffectCursorInThreeDView = True
        AbstractScriptedSegmentEditorEffect.__init__(self, scriptedEffect)
        self._session = self._panel = self._cursor = self._shortcuts = None
        self._gesture = ClickGesture()
        self._rest_timer: qt.QTimer | None = None
        self._resting: tuple[tuple[int, int], Any] | None = None

    def clone(self) -> Any:
        """Return a copy for another editor, also after the module was loaded anew."""
        from VISTA3DSegmentLib.SegmentEditorEffect import make_scripted_effect

        return make_scripted_effect()

    def icon(self) -> qt.QIcon:
        """Return the picture on the effect's button."""
        from VISTA3DSegmentLib.widgets.icons import icon

        return icon("VISTA3DSegment")

    def helpText(self) -> str:
        """Return what the editor shows as help."""
        return "<html>" + _(
            "Segment or correct with single clicks, by the VISTA3D model.<br>"
            "<b>Click</b> on what belongs to the selected segment: the part that you mean is added. "
            "<b>Ctrl+click</b> on what does not belong to it: that part is removed. Nothing else changes.<p>"
            "<ul style='margin: 0'>"
            "<li><b>Object</b>: the structure that you click on; <i>New object</i> for a lesion or anything else."
            "<li><b>{positive}</b> and <b>{negative}</b> choose what a click without Ctrl does."
            "<li><b>{suggest}</b> shows the place where the next click would help most."
            "<li><b>{unlock}</b> lets you drag the points; the segment follows."
            "<li><b>Ctrl+Z</b> takes back a click together with what it did."
            "<li>Masking and overwriting hold as for every effect: see <i>Masking</i> below. What a click takes from "
            "other segments comes back when the click goes."
            "<li>In a 3D view, click on the surface of a segment."
            "</ul><p>"
            "Dragging, scrolling, zooming and panning work as always. "
            "The first click waits until the model is ready; the panel says so."
        ).format(**KEYS)

    def setupOptionsFrame(self) -> None:
        """Nothing is made before the effect is used: editors set up all effects when they open."""

    def activate(self) -> None:
        """Begin to listen."""
        from VISTA3DSegmentLib.application import services

        editor_node, session = self.scriptedEffect.parameterSetNode(), services().clicking
        if editor_node is None or not session.claim(self):
            return
        self._prepare_widgets()
        self._session = session
        self._session.begin(editor_node, EffectWriter(self.scriptedEffect))
        self._session.polarity_changed.connect(self._show_cursor)
        self._panel.connect(self._session)
        self._shortcuts.install(slicer.util.mainWindow(), self._actions())

    def deactivate(self) -> None:
        """Leave nothing behind."""
        session, self._session = self._session, None
        if session is None:
            return
        self._rest_timer.stop()
        self._resting = None
        self._gesture.reset()
        self._shortcuts.remove()
        self._cursor.restore()
        self._panel.disconnect()
        session.polarity_changed.disconnect(self._show_cursor)
        session.release(self)

    def cleanup(self) -> None:
        """The editor is being deleted."""
        self.deactivate()
        panel, self._panel = self._panel, None
        if panel is not None:
            self._rest_timer.disconnect("timeout()", self._on_rest)
            panel.close()

    def createCursor(self, _widget: Any) -> qt.QCursor:
        """Return the pointer of the present polarity."""
        from VISTA3DSegmentLib.widgets.click_cursor import ClickCursor

        return ClickCursor.cursor(self._session is None or self._session.positive)

    def processInteractionEvents(self, callerInteractor: Any, eventId: int, viewWidget: Any) -> bool:
        """Follow the pointer; nothing but a double click is kept from Slicer."""
        if self._session is None or not self._session.active:
            return False
        taken = eventId in _TAKEN_BY_OTHERS and self._is_taken()
        gesture = self._gesture.follow(eventId, callerInteractor, taken)
        if gesture.clicked is not None:
            self._click(gesture.clicked, gesture.opposite, viewWidget)
        elif gesture.pointed is not None:
            self._resting = gesture.pointed, viewWidget
            self._rest_timer.start()
        elif gesture.left:
            self._rest_timer.stop()
        return gesture.consumed

    def interactionNodeModified(self, interactionNode: Any) -> None:
        """Stay active while points are placed: they may be taken over as clicks."""

    def layoutChanged(self) -> None:
        """New views need the pointer, too."""
        self._gesture.reset()
        if self._session is not None:
            self._show_cursor()

    def sourceVolumeNodeChanged(self) -> None:
        """Clicks go to another volume."""
        if self._session is not None:
            self._session.follow()

    # Clicking

    def _click(self, pixel: tuple[int, int], opposite: bool, view_widget: Any) -> None:
        place = self._place(pixel, view_widget)
        if place is None:
            return
        if self.scriptedEffect.confirmCurrentSegmentVisible() == self.scriptedEffect.NotConfirmed:
            return
        if self._is_read_only():
            self._session.failed(_("The segmentation is locked in this editor; unlock it to click."))
            return
        self._session.click(place, opposite)

    def _place(self, pixel: tuple[int, int], view_widget: Any) -> tuple[float, float, float] | None:
        """Return what was clicked at, world RAS mm; None for nothing."""
        if view_widget.className() == "qMRMLSliceWidget":
            return tuple(self.xyToRas(pixel, view_widget))
        from VISTA3DSegmentLib.mrml.picking import ray_through, surface_point

        renderer = self.scriptedEffect.renderer(view_widget)
        node = self.scriptedEffect.parameterSetNode().GetSegmentationNode()
        if renderer is None or node is None:
            return None
        return surface_point(node, *ray_through(renderer, pixel), self.scriptedEffect.viewNode(view_widget).GetID())

    def _is_taken(self) -> bool:
        from VISTA3DSegmentLib.mrml.pointed import is_on_markup, is_placing

        scene = self.scriptedEffect.scene()
        return is_placing(scene) or is_on_markup(scene)

    def _on_rest(self) -> None:
        """Let the engine prepare for a click where the pointer rests."""
        resting, self._resting = self._resting, None
        if resting is None or self._session is None or resting[1].className() != "qMRMLSliceWidget":
            return
        self._session.warm(tuple(self.xyToRas(*resting)))

    def _show_cursor(self) -> None:
        self._cursor.show(self._session.positive)

    def _actions(self) -> dict[str, Any]:
        session = self._session
        return {
            "positive": lambda: session.set_positive(True),
            "negative": lambda: session.set_positive(False),
            "suggest": session.suggest,
            "unlock": lambda: session.set_locked(not session.locked),
        }

    def _prepare_widgets(self) -> None:
        if self._panel is not None:
            return
        from VISTA3DSegmentLib.widgets.click_cursor import ClickCursor
        from VISTA3DSegmentLib.widgets.click_panel import ClickPanel
        from VISTA3DSegmentLib.widgets.click_shortcuts import ClickShortcuts

        self._panel, self._cursor, self._shortcuts = ClickPanel(), ClickCursor(), ClickShortcuts()
        self.scriptedEffect.addOptionsWidget(self._panel.widget)
        self._rest_timer = qt.QTimer()
        self._rest_timer.setSingleShot(True)
        self._rest_timer.setInterval(_REST_MS)
        self._rest_timer.connect("timeout()", self._on_rest)

    # Several editors

    def is_seen(self) -> bool:
        """Return whether the editor is on the screen."""
        editor = self._editor()
        return editor is not None and bool(editor.visible)

    def give_up(self) -> None:
        """Stop working; the effect stays chosen in its editor."""
        self.deactivate()

    def _editor(self) -> Any:
        """Return the editor's widget, or None."""
        widget = self.scriptedEffect.optionsFrame()
        while widget is not None and widget.className() != "qMRMLSegmentEditorWidget":
            widget = widget.parentWidget()
        return widget

    def _is_read_only(self) -> bool:
        editor = self._editor()
        return editor is not None and bool(editor.readOnly)
