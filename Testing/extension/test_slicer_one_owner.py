"""Several copies of the effect, also of two classes after the module was loaded anew: one click counts once."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import slicer
import vtk
from engine_helpers import EngineUnderTest, running_engine
from refinement_helpers import Clicking

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.logic.choice import Choice
from VISTA3DSegmentLib.logic.click_session import ClickSession

FILE = Path(__file__).resolve().parents[2] / "VISTA3DSegment" / "VISTA3DSegmentLib" / "SegmentEditorEffect.py"
PLACE = (5, 11, 15)
COMMAND = vtk.vtkCommand


class Anything:
    """Stands in for what only the desktop has."""

    def __getattr__(self, _name: str) -> Callable[..., Any]:
        return lambda *_args, **_options: Anything()


class ScriptedEffect(Anything):
    """The side of an effect that Slicer implements, over the Segment Editor's own logic.

    :param visible: whether the editor's widget is on the screen.
    """

    _logic = slicer.vtkSlicerSegmentEditorLogic
    ModificationModeAdd, ModificationModeRemove = _logic.ModificationModeAdd, _logic.ModificationModeRemove
    NotConfirmed = 0

    def __init__(self, clicking: Clicking, visible: bool) -> None:
        self.clicking, self.visible = clicking, visible

    def parameterSetNode(self) -> Any:  # noqa: N802
        return self.clicking.editor_node

    def optionsFrame(self) -> Any:  # noqa: N802
        return SimpleNamespace(className=lambda: "qMRMLSegmentEditorWidget", visible=self.visible, readOnly=False)

    def confirmCurrentSegmentVisible(self) -> int:  # noqa: N802
        return 1

    def saveStateForUndo(self) -> None:  # noqa: N802
        self.clicking.editor.SaveStateForUndo()

    def modifySelectedSegmentByLabelmap(self, labelmap: Any, mode: int, extent: list[int]) -> None:  # noqa: N802
        one = self.clicking
        one.editor.ModifySegmentByLabelmap(one.segmentation_node, one.segment_id, labelmap, mode, extent, True, False)

    def scene(self) -> Any:
        return self.clicking.scene


class View:
    """A slice view."""

    def className(self) -> str:  # noqa: N802
        return "qMRMLSliceWidget"


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def clicking(engine: EngineUnderTest, tiny_model: Path) -> Iterator[Clicking]:
    one = Clicking(engine, tiny_model)
    one.refinement.set_target()
    yield one
    one.close()


@pytest.fixture
def session(engine: EngineUnderTest, tiny_model: Path, clicking: Clicking) -> Iterator[ClickSession]:
    choice = Choice(str(tiny_model), "cpu", catalogue())
    one = ClickSession(clicking.refinement, clicking.volumes, engine.engine, lambda: choice)
    yield one
    one.close()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, session: ClickSession, clicking: Clicking) -> Callable[[bool], Any]:
    """Return what loads the effect's file anew and makes a copy of the effect."""

    class Abstract:
        def __init__(self, scripted_effect: Any) -> None:
            self.scriptedEffect = scripted_effect

        def xyToRas(self, _pixel: Any, _view: Any) -> tuple[float, float, float]:  # noqa: N802
            return clicking.world(PLACE)

    def module(name: str, **content: Any) -> None:
        one = ModuleType(name)
        vars(one).update(content)
        monkeypatch.setitem(sys.modules, name, one)

    module("qt", QTimer=Anything, QCursor=Anything, QIcon=Anything)
    module("SegmentEditorEffects", AbstractScriptedSegmentEditorEffect=Abstract)
    module("slicer.i18n", tr=lambda text: text)
    module("VISTA3DSegmentLib.application", services=lambda: SimpleNamespace(clicking=session))
    monkeypatch.setattr("slicer.util.mainWindow", lambda: None, raising=False)
    numbers = itertools.count()

    def make(visible: bool) -> Any:
        name = f"VISTA3DSegmentLib.effect_{next(numbers)}"
        spec = importlib.util.spec_from_file_location(name, FILE)
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        effect = loaded.SegmentEditorEffect(ScriptedEffect(clicking, visible))
        effect._panel = effect._cursor = effect._shortcuts = effect._rest_timer = Anything()
        return effect

    return make


def click(*effects: Any) -> None:
    """Let all editors see a click, as Slicer does."""
    mouse = vtk.vtkGenericRenderWindowInteractor()
    mouse.SetEventInformation(7, 8, 0, 0, chr(0), 0, None)
    for event in (COMMAND.LeftButtonPressEvent, COMMAND.LeftButtonReleaseEvent):
        for effect in effects:
            effect.processInteractionEvents(mouse, event, View())


@pytest.mark.parametrize("seen_first", [True, False])
def test_after_a_reload_one_click_counts_once(
    load: Callable[[bool], Any], session: ClickSession, clicking: Clicking, seen_first: bool
) -> None:
    copies = [load(seen_first), load(not seen_first)]
    for copy in copies:
        copy.activate()
    click(*copies)
    clicking.settle()
    assert len(session.rows) == 1
    assert len(clicking.answers) == 1
    for copy in copies:
        copy.deactivate()
    assert not session.active


def test_a_copy_that_does_not_work_ends_nothing(load: Callable[[bool], Any], session: ClickSession) -> None:
    working, hidden = load(True), load(False)
    working.activate()
    hidden.activate()
    hidden.deactivate()
    assert session.active
    working.deactivate()
    assert not session.active


def test_a_closed_session_lets_its_copy_go(
    load: Callable[[bool], Any], session: ClickSession, clicking: Clicking
) -> None:
    """As when the module is loaded anew while the effect is active."""
    one = load(True)
    one.activate()
    session.close()
    click(one)
    assert not clicking.refinement.busy
    one.deactivate()


def test_a_session_that_the_scene_ended_can_be_claimed(
    load: Callable[[bool], Any], session: ClickSession, clicking: Clicking
) -> None:
    first, second = load(True), load(True)
    first.activate()
    session.end()
    second.activate()
    assert session.active
    click(first, second)
    clicking.settle()
    assert len(session.rows) == 1
