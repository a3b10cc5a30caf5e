"""The module agrees with what a real Slicer has: classes, members, properties, signals, and calls of its functions."""

from __future__ import annotations

import json

import pytest
from gui_code import CodeFile, UiFile, in_slicer_tests, python_files, ui_files, used_classes
from slicer_calls import CallFile
from slicer_facts import EXCERPT, SlicerFacts, excerpt_of, whole_list, written

from VISTA3DCore.inference.automatic.cleanup import Cleanup

UIS = {path.stem: UiFile(path) for path in ui_files()}
FACTS = SlicerFacts.read()


@pytest.mark.parametrize("ui", UIS.values(), ids=UIS)
def test_designer_files_use_what_slicer_has(ui):
    assert not list(ui.problems(FACTS))


@pytest.mark.parametrize("path", python_files(), ids=lambda path: path.stem)
def test_python_files_use_what_slicer_has(path):
    assert not CodeFile(path, UIS).problems(FACTS)


@pytest.mark.parametrize("path", [*python_files(), *in_slicer_tests()], ids=lambda path: path.stem)
def test_slicer_takes_the_arguments_of_all_calls(path):
    assert not CallFile(path, FACTS.functions).problems()


def test_the_check_of_calls_reaches_them():
    checked = set()
    for path in [*python_files(), *in_slicer_tests()]:
        file = CallFile(path, FACTS.functions)
        file.problems()
        checked |= set(file.checked)

    assert {
        "SampleData.SampleDataLogic.registerCustomSampleDataSource", "PyTorchUtils.PyTorchUtilsLogic.installTorch",
        "slicer.packaging.pip_ensure", "slicer.i18n.tr", "slicer.i18n.translate", "slicer.util.loadUI",
        "slicer.ScriptedLoadableModule.ScriptedLoadableModuleWidget.setup", "slicer.util.getModuleWidget",
    } <= checked  # fmt: skip


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("slicer.util.nothing()", "there is no slicer.util.nothing"),
        ("slicer.util.loadVolume()", "missing a required argument: 'filename'"),
        ("slicer.util.loadVolume(path, props={})", "unexpected keyword argument 'props'"),
        ("slicer.util.mainWindow(1)", "too many positional arguments"),
        ("from slicer.i18n import tr as _\n_('a', 'b')", "slicer.i18n.tr: too many positional arguments"),
        ("from slicer import packaging as p\np.pip_ensure(needed, ask=True)", "unexpected keyword argument 'ask'"),
        ("self.tools.pip_ensure(needed, requester='a', quiet=True)", "unexpected keyword argument 'quiet'"),
        ("logic().installTorch(ask=True)", "unexpected keyword argument 'ask'"),
        (
            "import SampleData\nSampleData.SampleDataLogic.registerCustomSampleDataSource(sampleDescription='a')",
            "unexpected keyword argument 'sampleDescription'",
        ),
        (
            "from SampleData import SampleDataLogic as S\nS.register()",
            "there is no SampleData.SampleDataLogic.register",
        ),
    ],
)
def test_wrong_calls_are_found(code, problem, tmp_path):
    found = CallFile(tmp_path / "code.py", FACTS.functions, text=code).problems()

    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "code",
    [
        "slicer.util.loadVolume(*arguments)",
        "slicer.util.loadVolume(**options)",
        "slicer.util.loadVolume(path, {}, returnNode=True)",
        "slicer.util.settingsValue('a', 1, converter=int)",
        "PyTorchUtils.PyTorchUtilsLogic.torchInstalled()",
        "PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True)",
        "from slicer.ScriptedLoadableModule import ScriptedLoadableModule as M\nM.__init__(self, parent)\nM(parent)",
        "something.loadVolume(1, 2, 3, 4, 5)",
    ],
)
def test_right_calls_and_those_of_others_are_none(code, tmp_path):
    assert not CallFile(tmp_path / "code.py", FACTS.functions, text=code).problems()


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
