# SPDX-License-Identifier: Apache-2.0
"""The module itself: loading, opening, loading anew."""

from __future__ import annotations

import importlib.util
import time

import qt
import slicer
from slicer_harness import screenshot, settle, test, wait_for
from slicer_scene import EFFECT, MODEL, MODULE, edit, new_scene, open_module, services

_IMPORT_MS = 20.0


@test
def module_import_is_quick() -> str:
    """Slicer imports the file of every module when it starts."""
    times = []
    for _ in range(3):
        spec = importlib.util.spec_from_file_location("vista3d_import_test", slicer.util.modulePath(MODULE))
        module = importlib.util.module_from_spec(spec)
        start = time.perf_counter()
        spec.loader.exec_module(module)
        times.append(1000 * (time.perf_counter() - start))
    assert min(times) < _IMPORT_MS, f"{min(times):.1f} ms"
    return f"{min(times):.1f} ms"


@test
def module_opens() -> None:
    new_scene()
    panel = open_module()
    services().engine.start()
    wait_for(lambda: services().engine.state == "ready", "the engine runs")
    assert panel.widget.visible
    screenshot("module", slicer.util.mainWindow())
    screenshot("panel", panel.widget)


@test
def module_can_be_left_and_entered() -> None:
    new_scene()
    for _ in range(3):
        open_module()
        slicer.util.selectModule("Data")
        settle()


@test
def effect_is_offered() -> None:
    editor = slicer.util.getModuleWidget("SegmentEditor").editor
    assert EFFECT in editor.availableEffectNames()
    assert "Ctrl+click" in editor.effectByName(EFFECT).helpText()


@test
def sample_data_is_offered() -> None:
    sources = slicer.modules.sampleDataSources["VISTA3D"]
    assert "VISTA3DLiverCT" in [one.sampleName for one in sources]


@test
def panel_and_clicks_use_one_model() -> None:
    panel, settings = open_module(), services().settings
    wait_for(lambda: services().models.models, "the models are listed")
    try:
        settings.model = ""  # nothing was chosen yet
        assert panel.automatic.model == services().clicking.model
        settings.model = "vista3d-ct"
        assert panel.automatic.model == services().clicking.model == "vista3d-ct"
    finally:
        settings.model = MODEL


@test
def chosen_device_stays_chosen() -> None:
    panel, settings = open_module(), services().settings
    quality, settings.device = panel.automatic.ui.qualitySelector, "cuda:1"
    try:
        assert panel.automatic.device == "cuda:1"
        quality.setCurrentIndex(1 - min(quality.currentIndex, 1))
        assert settings.device == panel.automatic.device == "cuda:1"
    finally:
        settings.device = "auto"
        quality.setCurrentIndex(0)


@test
def effect_leads_to_setup_while_something_is_missing() -> None:
    editing, setup = edit(new_scene()), services().setup
    environment, setup._environment = setup._environment, {"VISTA3D_WORKER_PYTHON": "/nothing/python"}
    try:
        setup.changed()
        editing.editor.setActiveEffectByName(EFFECT)
        settle()
        label = editing.effect._panel.ui.stateLabel
        assert "does not exist" in label.text, label.text
        assert "Ready" not in label.text, label.text
        screenshot("effect_without_engine")
        from VISTA3DSegmentLib.widgets.setup_panel import open_setup

        open_setup()  # what the link does
        settle(0.5)
        panel = slicer.util.getModuleWidget(MODULE).panel
        assert slicer.util.selectedModule() == MODULE
        assert not panel.ui.setupSection.collapsed
        setup.failed("The packages were not installed, and VISTA3D needs them.")
        settle()
        message, list_of_models = panel.setup.message.widget, panel.setup.ui.modelTree
        assert message.visible
        assert message.y + message.height <= list_of_models.y, "the answer is not below the button"
        screenshot("setup_message", panel.widget)
        panel.setup.message.clear()
    finally:
        setup._environment = environment
        setup.changed()
        editing.deactivate()


@test
def module_can_be_loaded_anew() -> None:
    """As developers do it with the button Reload."""
    open_module()
    slicer.util.getModuleWidget(MODULE).onReload()
    settle()
    editing = edit(new_scene())
    editing.activate()
    editing.deactivate()
    open_module()


@test
def branches_of_the_structures_take_every_click() -> None:
    """A click beside the name of a branch makes no favorite of it, and one without structures stays unchecked."""
    panel = open_module()
    tree, choice = panel.automatic.selector.tree, panel.choice
    try:
        choice.use_model("vista3d-ct", ())
        model = tree.ui.treeView.model()
        for row in range(model.rowCount()):
            tree._on_clicked(model.index(row, 1))
            head = model.itemFromIndex(model.index(row, 0))
            head.setCheckState(qt.Qt.Checked)
            settle()
            assert head.checkState() == qt.Qt.Unchecked, f"{head.text()} stays checked"
            assert not head.isEnabled()
            assert head.toolTip()
        tree.begin("xyzzy")
        assert "xyzzy" in tree.ui.noteLabel.text
        screenshot("structures_not_found", tree.widget)
    finally:
        tree.begin()
        choice.use_model("vista3d-ct", None)


@test
def panel_neither_jumps_nor_spreads_nor_cuts() -> str:
    """The width stays when Refine opens, all free height is below the last section, messages are read in full."""
    new_scene()
    panel = open_module()
    panel.ui.refineSection.collapsed = True
    settle()
    width = panel.widget.width
    panel.ui.refineSection.collapsed = False
    settle(0.5)
    assert panel.widget.width == width, f"{width} -> {panel.widget.width} pixels"
    panel.ui.refineSection.collapsed = panel.ui.setupSection.collapsed = True
    panel.automatic.message.show("What is wrong and what to do about it takes more than one line. " * 4)
    settle(0.3)
    sections = [panel.automatic.ui.inputsSection, panel.automatic.ui.segmentSection, panel.automatic.ui.advancedSection]
    free = sections[1].y - sections[0].y - sections[0].height
    assert free < 20, f"{free} pixels between two sections"
    cut = [one for one in panel.widget.findChildren(qt.QLabel) if one.visible and one.wordWrap and _is_cut(one)]
    assert not cut, "cut: " + cut[0].text
    screenshot("panel_with_message", panel.widget)
    panel.automatic.message.clear()
    return f"{width} pixels wide"


def _is_cut(label: qt.QLabel) -> bool:
    return label.height < label.heightForWidth(label.width)
