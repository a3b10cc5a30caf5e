"""Scripts: each function waits, reports, raises sentences; and the examples of the documentation run."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import slicer
from engine_helpers import EngineUnderTest, running_engine
from engine_processes import coarse_phantom
from logic_helpers import SHAPE, MemoryStore
from mrml_scene import Application, add_image

from VISTA3DCore.errors import Cancelled, InputError, UnknownStructureError, VistaError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DSegmentLib.logic.automatic import AutomaticRun
from VISTA3DSegmentLib.logic.choice import ChosenModel
from VISTA3DSegmentLib.logic.refinement import Refinement
from VISTA3DSegmentLib.logic.scripting import Scripting
from VISTA3DSegmentLib.logic.settings import Settings
from VISTA3DSegmentLib.logic.volumes import OpenedVolumes
from VISTA3DSegmentLib.mrml.clicks import read_clicks
from VISTA3DSegmentLib.mrml.segments import read_mask

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(
    r"```python\n(.*?)```",
    (ROOT / "Documentation/slicer.md").read_text(encoding="utf-8").split("## Scripts")[1].split("\n## ")[0],
    re.DOTALL,
)
LIVER, KIDNEY, TUMOR = "liver", "right kidney", "lung tumor"
PLACE = (60.0, 132.0, 180.0)


class Script:
    """A scene with a CT, and what a script finds in Slicer."""

    def __init__(self, under_test: EngineUnderTest, model: Path) -> None:
        self.under_test, self.app = under_test, Application()
        self.scene, self.needed = self.app.scene, None
        self.volume = self.add_ct()
        self.settings = Settings(MemoryStore({"model": str(model), "device": "cpu"}))
        engine = under_test.engine
        self.volumes = OpenedVolumes(engine)
        self.run = AutomaticRun(engine, self.volumes, self.scene, self.app.subject_hierarchy, self.settings)
        self.refinement = Refinement(engine, self.volumes)
        self.chosen = ChosenModel(self.settings)
        self.waits: list[Any] = []
        works = self.run, engine, self.volumes, self.refinement
        self.vista = Scripting(*works, self.chosen, lambda: self.needed, self.wait)

    def wait(self) -> None:
        for action in self.waits:
            action()
        self.under_test.loop.run_once(0.01)

    def add_ct(self, name: str = "CT") -> slicer.vtkMRMLScalarVolumeNode:
        volume = coarse_phantom(SHAPE)
        return add_image(self.scene, volume.array, volume.affine, name)

    def masks(self, node: slicer.vtkMRMLSegmentationNode) -> dict[str, np.ndarray]:
        """Return the masks of all segments, by name in lower case."""
        segmentation = node.GetSegmentation()
        ids = segmentation.GetSegmentIDs()
        return {segmentation.GetSegment(one).GetName().lower(): read_mask(node, one, self.volume) for one in ids}

    def empty(self, name: str = TUMOR) -> tuple[slicer.vtkMRMLSegmentationNode, str]:
        """Return a segmentation with one empty segment, and its id."""
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        return node, node.GetSegmentation().AddEmptySegment("", name)

    def classes(self) -> list[str]:
        return sorted(self.scene.GetNthNode(number).GetClassName() for number in range(self.scene.GetNumberOfNodes()))

    def close(self) -> None:
        self.run.close()
        self.refinement.close()
        self.volumes.close_all()


@pytest.fixture(scope="module")
def under_test() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def script(under_test: EngineUnderTest, tiny_model: Path) -> Iterator[Script]:
    script = Script(under_test, tiny_model)
    yield script
    script.close()


def test_structures_are_segmented_with_the_chosen_model_and_progress(script: Script) -> None:
    told: list[tuple[float, str]] = []
    node = script.vista.segment(script.volume, [LIVER, "spleen"], progress=lambda *what: told.append(what))
    assert set(script.masks(node)) == {LIVER, "spleen"}
    assert node.GetScene() is script.scene
    fractions = [fraction for fraction, _text in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.9
    assert all(text for _fraction, text in told)
    assert not script.run.running


def test_a_second_call_goes_into_the_same_segmentation_and_a_single_name_is_enough(script: Script) -> None:
    node = script.vista.segment(script.volume, LIVER)
    assert script.vista.segment(script.volume, "spleen", segmentation_node=node) is node
    assert set(script.masks(node)) == {LIVER, "spleen"}


def test_what_a_script_does_can_be_undone_in_the_panel(script: Script) -> None:
    node = script.vista.segment(script.volume, LIVER)
    script.run.last_run.undo()
    assert node.GetScene() is None


def test_a_script_that_returns_false_stops_the_work(script: Script) -> None:
    before = script.classes()
    with pytest.raises(Cancelled):
        script.vista.segment(script.volume, LIVER, progress=lambda *_what: False)
    assert script.classes() == before
    assert not script.run.running


def test_an_error_of_the_script_stops_the_work_and_comes_out(script: Script) -> None:
    with pytest.raises(ZeroDivisionError):
        script.vista.segment(script.volume, LIVER, progress=lambda *_what: 1 / 0)
    assert not script.run.running
    script.waits.append(lambda: 1 / 0)  # as Ctrl+C in the console does
    with pytest.raises(ZeroDivisionError):
        script.vista.segment(script.volume, LIVER)
    assert not script.run.running


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((None, LIVER), {}, "Choose a volume"),
        (("ct.nii.gz", LIVER), {}, "is no vtkMRMLScalarVolumeNode"),
        (("volume", []), {}, "at least one structure"),
        (("volume", "livver"), {}, "liver"),
        (("volume", LIVER), {"model": "/nothing/here.pt"}, "here.pt"),
        (("volume", LIVER), {"quality": "superb"}, "standard"),
        (("volume", LIVER), {"speed": 1}, "There is no option 'speed'"),
        (("volume", LIVER), {"device": "tpu"}, "tpu"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(
    script: Script, arguments: tuple, options: dict, words: str
) -> None:
    volume = script.volume if arguments[0] == "volume" else arguments[0]
    before = script.classes()
    with pytest.raises(VistaError) as raised:
        script.vista.segment(volume, *arguments[1:], **options)
    assert words in str(raised.value)
    assert str(raised.value)[-1] in ".?"
    assert "\n" not in str(raised.value)
    assert script.classes() == before


def test_what_is_not_installed_is_said_first(script: Script) -> None:
    script.needed = "Missing: PyTorch. 'Install packages' in Setup gets it, after asking you."
    node, segment_id = script.empty()
    calls = (
        lambda: script.vista.segment(script.volume, LIVER),
        lambda: script.vista.click(node, segment_id, script.volume, [PLACE]),
        script.vista.structures,
    )
    for call in calls:
        with pytest.raises(VistaError, match="Install packages"):
            call()


def test_one_run_at_a_time(script: Script) -> None:
    def second() -> None:
        script.waits.clear()
        with pytest.raises(InputError, match="A run is in progress; cancel it first"):
            script.vista.segment(script.volume, LIVER)

    script.waits.append(second)
    assert script.masks(script.vista.segment(script.volume, LIVER))


def test_an_application_that_ends_lets_no_script_wait(tiny_model: Path) -> None:
    with running_engine() as under_test:
        script = Script(under_test, tiny_model)
        script.waits.append(under_test.engine.close)
        with pytest.raises(Cancelled, match="application ends"):
            script.vista.segment(script.volume, LIVER)
        script.close()


def test_clicks_change_their_segment_alone_and_are_stored(script: Script) -> None:
    node, segment_id = script.empty()
    other = node.GetSegmentation().AddEmptySegment("", "other")
    before = script.classes()
    changed = script.vista.click(node, segment_id, script.volume, [PLACE, (168.0, 156.0, 48.0)], [True, True])
    assert len(changed) == 2
    assert any(changed)
    assert read_mask(node, segment_id, script.volume).any()
    assert not read_mask(node, other, script.volume).any()
    assert [click.position for click in read_clicks(node, segment_id).clicks] == [PLACE, (168.0, 156.0, 48.0)]
    assert script.classes() == before, "something is left in the scene"
    assert len(script.vista.click(node, segment_id, script.volume, (120.0, 216.0, 264.0), positive=False)) == 3
    assert script.refinement.segment is None


def test_clicks_are_those_of_the_effect(script: Script) -> None:
    """A click by a script is answered as one by the effect, which knows the mask from before it."""
    node, segment_id = script.empty()
    script.vista.click(node, segment_id, script.volume, [PLACE])
    by_script = read_mask(node, segment_id, script.volume).copy()
    assert script.refinement.bases.knows(read_clicks(node, segment_id).base)
    again, other = script.empty()
    script.vista.click(again, other, script.volume, [PLACE], structure=TUMOR)
    assert np.array_equal(read_mask(again, other, script.volume), by_script)


def test_points_of_a_list_and_a_new_object(script: Script) -> None:
    node, segment_id = script.empty("Segment_1")
    points = script.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    points.AddControlPoint(*PLACE)
    script.vista.click(node, segment_id, script.volume, points, structure="new object")
    (click,) = read_clicks(node, segment_id).clicks
    assert click.position == PLACE
    assert read_clicks(node, segment_id).structure is None


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        ([], {}, "Give points"),
        ("here", {}, "Give points"),
        ([(1.0, 2.0)], {}, "Give points"),
        ([(np.nan, 0.0, 0.0)], {}, "Give points"),
        ([PLACE], {"positive": [True, False]}, "one polarity"),
        ([PLACE], {"positive": False}, "nothing to remove"),
        ([(9000.0, 0.0, 0.0)], {}, "outside"),
        ([PLACE], {"structure": "livver"}, "liver"),
        ([PLACE], {"speed": 1}, "no option 'speed'"),
        ([PLACE], {"segment": "nothing"}, "no segment 'nothing'"),
    ],
)
def test_bad_clicks_are_one_sentence_and_change_nothing(script: Script, points: Any, options: dict, words: str) -> None:
    node, segment_id = script.empty()
    before = script.classes()
    segment = options.pop("segment", segment_id)
    with pytest.raises(VistaError) as raised:
        script.vista.click(node, segment, script.volume, points, **options)
    assert words in str(raised.value)
    assert not read_mask(node, segment_id, script.volume).any()
    assert not read_clicks(node, segment_id).clicks
    assert script.classes() == before


def test_structures_and_models_are_listed(script: Script) -> None:
    names = script.vista.structures()
    assert {LIVER, "spleen", KIDNEY} <= set(names)
    assert len(names) == 5  # all that the tiny model knows
    models = {one.name: one for one in script.vista.models()}
    assert models["mini"].path
    assert models["vista3d-ct"].title
    with pytest.raises(VistaError):
        script.vista.structures("no-such-model")


def test_unknown_structures_have_their_own_error(script: Script) -> None:
    node, segment_id = script.empty()
    with pytest.raises(UnknownStructureError):
        script.vista.click(node, segment_id, script.volume, [PLACE], structure="livver")


# The examples of the documentation


@pytest.fixture
def logic(script: Script, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module's logic as Slicer makes it, with the script's services."""
    base = ("ScriptedLoadableModule", "ScriptedLoadableModuleLogic", "ScriptedLoadableModuleTest")
    shells = ModuleType("slicer.ScriptedLoadableModule")
    for name in (*base, "ScriptedLoadableModuleWidget"):
        setattr(shells, name, type(name, (), {}))
    words = ModuleType("slicer.i18n")
    words.tr, words.translate = (lambda text: text), (lambda _context, text: text)
    for module in (shells, words):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spec = importlib.util.spec_from_file_location("VISTA3DSegment", ROOT / "VISTA3DSegment" / "VISTA3DSegment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    services = SimpleNamespace(scripting=script.vista, automatic=script.run, chosen_model=script.chosen)
    monkeypatch.setattr(module.VISTA3DSegmentLogic, "services", services)
    return module.VISTA3DSegmentLogic()


@pytest.fixture
def console(script: Script, logic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names of a Python console in which the examples run."""

    def load(path: str) -> slicer.vtkMRMLScalarVolumeNode:
        volume = Volume.read(path)
        return add_image(script.scene, volume.array, volume.affine, Path(path).name)

    def save(node: slicer.vtkMRMLSegmentationNode, path: str) -> bool:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        script.scene.AddNode(storage)
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    monkeypatch.setattr(slicer, "mrmlScene", script.scene, raising=False)
    monkeypatch.setattr(slicer.util, "getModuleLogic", {"VISTA3DSegment": logic}.__getitem__)
    monkeypatch.setattr(slicer.util, "getNode", script.scene.GetFirstNodeByName)
    monkeypatch.setattr(slicer.util, "loadVolume", load)
    monkeypatch.setattr(slicer.util, "saveNode", save)
    script.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F").AddControlPoint(*PLACE)
    roi = script.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenter(230.0, 230.0, 180.0)
    roi.SetSize(300.0, 300.0, 300.0)
    return {"slicer": slicer, "volume": script.volume, "folder": str(tmp_path)}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5
    assert sum("getModuleLogic" in one for one in EXAMPLES) == 4


def test_the_example_for_one_volume(script: Script, console: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    exec(EXAMPLES[0], console)
    assert set(script.masks(console["segmentation"])) == {LIVER, "spleen"}
    assert "5 structures" in capsys.readouterr().out


def test_the_example_for_a_folder(
    script: Script, console: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("a", "c"):
        phantom = coarse_phantom(SHAPE)
        nibabel.Nifti1Image(phantom.array, phantom.affine).to_filename(tmp_path / f"{name}.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(b"no image")
    exec(EXAMPLES[1], console)
    assert sorted(path.name for path in tmp_path.glob("*.seg.nrrd")) == ["a.seg.nrrd", "c.seg.nrrd"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("b.nii.gz: ")
    assert script.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_the_example_for_a_notebook(script: Script, console: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    exec(EXAMPLES[2], console)
    assert set(script.masks(console["segmentation"])) == {"left kidney", KIDNEY}
    assert len(console["changed"]) == 2
    assert " % " in capsys.readouterr().out


def test_the_examples_without_waiting(script: Script, console: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    exec(EXAMPLES[3], console)
    script.under_test.loop.run_until(lambda: not script.run.running)
    assert "CT segmentation" in capsys.readouterr().out
    exec(EXAMPLES[4], console)
    assert script.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_the_logic_of_the_module_takes_the_names_that_the_documentation_gives(script: Script, logic: Any) -> None:
    node = logic.segment(script.volume, LIVER, quality="smooth", removeSpecks=False, keepCorrected=True, device="cpu")
    again = logic.segment(volumeNode=script.volume, structures="spleen", segmentationNode=node, acceptMismatch=True)
    assert again is node
    assert logic.notes == script.vista.notes
    assert logic.structures()
    assert logic.models()
