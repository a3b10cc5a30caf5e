# SPDX-License-Identifier: Apache-2.0
"""The effect's life: every layout, keys, Place mode, several editors, and nothing left behind."""

from __future__ import annotations

import qt
import slicer
from in_slicer_clicks import inside
from slicer_harness import screenshot, settle, test
from slicer_scene import MODULE, Editing, edit, look_at, new_scene, open_module, pixel_of, press_and_release, services

_LAYOUTS = (
    "ConventionalView", "ConventionalWidescreenView", "FourUpView", "OneUpRedSliceView", "OneUp3DView", "Dual3DView",
    "TabbedSliceView", "ThreeOverThreeView", "CompareView", "FourUpTableView", "SideBySideView",
)  # fmt: skip


def _keys() -> int:
    window = slicer.util.mainWindow()
    return len([one for one in window.children() if one.className() == "QShortcut"])


def _opened() -> Editing:
    return edit(new_scene())


@test
def effect_works_in_every_layout() -> str:
    editing, done = _opened(), []
    place = inside(editing.volume)
    editing.editor.setSegmentationNode(editing.node)
    editing.editor.setCurrentSegmentID(editing.segment_id)
    layout = slicer.app.layoutManager()
    for name in _LAYOUTS:
        identity = getattr(slicer.vtkMRMLLayoutNode, f"SlicerLayout{name}", None)
        if identity is None:
            continue
        layout.setLayout(identity)
        settle(0.3)
        editing.activate()
        if layout.sliceWidget("Red").visible:
            look_at(place)
            editing.click(place)
            assert editing.session.rows, f"the click was lost in {name}"
            editing.editor.undo()
        editing.deactivate()
        done.append(name)
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    return f"{len(done)} layouts"


@test
def layout_may_change_while_it_is_active() -> None:
    editing = _opened()
    editing.activate()
    layout = slicer.app.layoutManager()
    for name in _LAYOUTS:
        if hasattr(slicer.vtkMRMLLayoutNode, f"SlicerLayout{name}"):
            layout.setLayout(getattr(slicer.vtkMRMLLayoutNode, f"SlicerLayout{name}"))
            settle(0.1)
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    assert editing.session.active
    editing.deactivate()


@test
def deactivation_leaves_nothing_behind() -> None:
    volume = new_scene()
    place = inside(volume)
    editing = edit(volume)
    editing.activate()
    editing.deactivate()
    nodes, keys = slicer.mrmlScene.GetNumberOfNodes(), _keys()
    for _ in range(3):
        editing.activate()
        assert _keys() > keys, "the effect has no keys"
        editing.click(place)
        editing.session.suggest()
        editing.deactivate()
    settle(0.5)
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes, "nodes are left"
    assert _keys() == keys, "keys are left"
    assert not editing.session.active
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    assert view.cursor.shape() == qt.Qt.ArrowCursor, "the pointer is left"


@test
def click_without_the_effect_does_nothing() -> None:
    editing = _opened()
    place = inside(editing.volume)
    editing.activate()
    editing.deactivate()
    look_at(place)
    press_and_release("Red", *pixel_of("Red", place))
    settle(0.3)
    assert not services().refinement.busy


@test
def place_mode_does_not_end_it() -> None:
    editing = _opened()
    editing.activate()
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    interaction.SetCurrentInteractionMode(interaction.Place)
    settle()
    assert editing.editor.activeEffect() is not None
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    editing.deactivate()


@test
def hidden_editors_do_not_click_as_well() -> None:
    """The module's editor and that of the Segment Editor share a node, so both activate the effect."""
    _click_with_a_hidden_editor()


@test
def hidden_editors_do_not_click_as_well_after_a_reload() -> None:
    """The copies of the effect in both editors are of different classes then."""
    edit(new_scene())  # the Segment Editor has its copy
    open_module()
    slicer.util.getModuleWidget(MODULE).onReload()
    settle()
    _click_with_a_hidden_editor()


def _click_with_a_hidden_editor() -> None:
    editing = _opened()
    place = inside(editing.volume)
    panel = open_module()
    panel.automatic.ui.volumeSelector.setCurrentNode(editing.volume)
    panel.automatic.ui.segmentationSelector.setCurrentNode(editing.node)
    panel.ui.refineSection.collapsed = False
    settle(0.5)
    editor = panel.refine.editor
    editor.setCurrentSegmentID(editing.segment_id)
    inner = Editing(editing.volume, editing.node, editing.segment_id, editor)
    inner.activate()
    screenshot("refine", panel.widget)
    inner.click(place)
    assert len(inner.session.rows) == 1, "one click counted twice"
    slicer.util.selectModule("Data")
    settle(0.3)
    assert not inner.session.active, "the effect is active in another module"
    panel.ui.refineSection.collapsed = True


@test
def other_effects_take_over() -> None:
    editing = _opened()
    editing.editor.setActiveEffectByName("Paint")
    settle()
    assert not editing.session.active
    editing.activate()
    editing.editor.setActiveEffectByName("Paint")
    settle()
    assert not editing.session.active
    editing.deactivate()
