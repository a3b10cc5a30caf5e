"""Widgets agree with what a real Slicer has: every class, member, property and signal, in Python and in .ui files."""

from __future__ import annotations

import json

import pytest
from gui_code import CodeFile, UiFile, python_files, ui_files, used_classes
from slicer_facts import EXCERPT, SlicerFacts, excerpt_of, whole_list, written

from VISTA3DCore.inference.cleanup import Cleanup

UIS = {path.stem: UiFile(path) for path in ui_files()}
FACTS = SlicerFacts.read()


@pytest.mark.parametrize("ui", UIS.values(), ids=UIS)
def test_designer_files_use_what_slicer_has(ui):
    assert not list(ui.problems(FACTS))


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.stem)
def test_python_files_use_what_slicer_has(path):
    assert not CodeFile(path, UIS).problems(FACTS)


def test_the_tool_tip_of_the_cleanup_has_its_values():
    (box,) = (one for one in UIS["AutomaticPanel"].root.iter("widget") if one.get("name") == "cleanupBox")
    (tip,) = (one.findtext("string") for one in box.findall("property") if one.get("name") == "toolTip")
    values = Cleanup()

    assert f"{100 * values.share:g} %" in tip
    assert f"{values.minimum_ml:g} ml" in tip


def test_the_check_reaches_the_widgets():
    """A check that understood nothing would find nothing."""
    checked = {}
    for path in python_files():
        file = CodeFile(path, UIS)
        file.problems(FACTS)
        checked[path.stem] = file.checked

    assert sum(checked.values()) > 300
    assert all(checked[name] > 10 for name in ("automatic_panel", "results_panel", "setup_panel", "structure_tree"))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("w = qt.QNothing()", "Slicer has no qt.QNothing"),
        ("w = qt.QLabel()\nw.txt = 'a'", "qt.QLabel has no txt"),
        ("w = qt.QLabel()\nw.setMovie = 1", "qt.QLabel has no property setMovie that can be set"),
        ("w = qt.QPushButton()\nw.connect('clicket(bool)', f)", "qt.QPushButton has no signal clicket(bool)"),
        ("w = qt.QPushButton()\nw.connect('clicked(int)', f)", "qt.QPushButton has no signal clicked(int)"),
        ("w = qt.QPushButton()\nw.connect('clicked', f)", "qt.QPushButton has no signal clicked"),
        ("w = qt.QPushButton()\nw.clicket.connect(f)", "qt.QPushButton has no clicket"),
        ("w = qt.QPushButton()\nw.text()", "qt.QPushButton.text is a property, it cannot be called"),
        ("qt.Qt.Chekced", "qt.Qt has no Chekced"),
        ("widget, ui = load('SetupPanel')\nui.nothing", "SetupPanel.ui has no widget nothing"),
        ("slicer.util.nothing()", "there is no slicer.util.nothing"),
        ("b: qt.QLabel | None = None\nb.nothing", "qt.QLabel has no nothing"),
    ],
)
def test_mistakes_are_found(code, problem, tmp_path):
    inside = "def f():\n" + "".join(f"    {line}\n" for line in code.split("\n"))
    found = CodeFile(tmp_path / "code.py", UIS, text=inside).problems(FACTS)

    assert any(problem in one for one in found), found


def test_mistakes_in_designer_files_are_found(tmp_path):
    path = tmp_path / "Wrong.ui"
    path.write_text(
        '<ui><widget class="QWidget" name="W"><layout class="QVBoxLayout" name="l"><item>'
        '<widget class="QLabel" name="a"><property name="txt"><string/></property></widget></item><item>'
        '<widget class="QNothing" name="a"/></item></layout></widget></ui>',
        encoding="utf-8",
    )

    assert list(UiFile(path).problems(FACTS)) == [
        "a is there twice",
        "qt.QLabel has no property txt (a)",
        "Slicer has no qt.QNothing (a)",
    ]


@pytest.mark.skipif(whole_list() is None, reason="the list of all of Slicer's classes is not here")
def test_the_excerpt_is_current():
    whole = json.loads(whole_list().read_text(encoding="utf-8"))

    assert EXCERPT.read_text(encoding="utf-8") == written(excerpt_of(whole, used_classes())), (
        "run Testing/extension/excerpt_slicer_api.py"
    )
