"""What the engine says of the computer, in words."""

from __future__ import annotations

from typing import Any

import pytest
from engine_helpers import running_engine
from logic_helpers import Heard, assert_sentence

from VISTA3DCore.engine.diagnosis import cards_in
from VISTA3DCore.engine.protocol import DiagnoseResult
from VISTA3DSegmentLib.logic.findings import FINE, NOTE, PROBLEM, Doctor, findings_of, long_path_problem
from VISTA3DSegmentLib.logic.housekeeping import Housekeeping

GPU = {"device": "cuda:0", "name": "NVIDIA X", "memory_gib": 11.8, "free_gib": 10.0, "compute_capability": "8.6"}
TORCH = {"version": "2.9.1", "cuda": "13.0", "cudnn": 91500, "threads": 8, "gpus": [GPU], "mps": False, "problems": []}
SYSTEM = {
    "executable": "/opt/Slicer/bin/PythonSlicer",
    "cpu_threads": 8,
    "ram_gib": 31.3,
    "ram_free_gib": 20.0,
    "data_folder": "/home/ada/.local/share/vista3d",
    "disk_free_gib": 100.0,
    "long_paths": None,
}


def report(torch: dict[str, Any] | None = TORCH, problems: tuple[str, ...] = (), **system: Any) -> DiagnoseResult:
    return DiagnoseResult({**SYSTEM, **system}, torch, (), {}, {"mini": "present"}, problems)


def texts(found: DiagnoseResult, kind: str) -> list[str]:
    findings = findings_of(found)
    for finding in findings:
        assert_sentence(finding.text) if finding.text[0].isalpha() else None
    return [finding.text for finding in findings if finding.kind == kind]


def test_a_good_computer_has_no_problem() -> None:
    assert texts(report(), PROBLEM) == []
    assert "The NVIDIA X with 11.8 GB of memory is used." in texts(report(), FINE)
    assert "31.3 GB of memory, 20.0 GB free." in texts(report(), FINE)


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        (None, "PyTorch is not installed yet"),
        ({**TORCH, "gpus": [], "cuda": None}, "There is no GPU that PyTorch can use"),
        ({**TORCH, "gpus": [{**GPU, "memory_gib": 3.9}]}, "has only 3.9 GB of memory"),
    ],
)
def test_what_is_worth_knowing(torch: dict[str, Any] | None, words: str) -> None:
    (note,) = texts(report(torch), NOTE)
    assert words in note


def test_apples_gpu_is_named() -> None:
    assert "Apple's GPU is used." in texts(report({**TORCH, "gpus": [], "mps": True}), FINE)


def test_problems_come_first_and_in_the_words_of_the_panel() -> None:
    found = report({"version": "2.9", "error": "OSError: x"}, ("PyTorch 2.9 is installed but does not load (x).",))
    assert findings_of(found)[0].kind == PROBLEM
    assert "does not load" in findings_of(found)[0].text


def test_memory_may_be_unknown() -> None:
    assert not any("of memory, " in text for text in texts(report(ram_gib=None, ram_free_gib=None), FINE))


def test_deep_folders_on_windows_are_told() -> None:
    deep = "C:\\Users\\ada.lovelace\\AppData\\Local\\slicer.org\\" + "Some very deep folder\\" * 4 + "python.exe"
    assert_sentence(long_path_problem(deep, False))
    assert long_path_problem(deep, True) is None
    assert long_path_problem(deep, None) is None
    assert long_path_problem("C:\\Slicer\\bin\\PythonSlicer.exe", False) is None
    assert "260 characters" in texts(report(executable=deep, long_paths=False), PROBLEM)[0]


def test_cards_are_read_from_the_drivers_tool() -> None:
    assert cards_in("NVIDIA RTX A2000, 12GB, 580.65\nTesla T4, 525.1\n\nnonsense") == [
        {"name": "NVIDIA RTX A2000, 12GB", "driver": "580.65"},
        {"name": "Tesla T4", "driver": "525.1"},
    ]


def test_this_computer() -> None:
    with running_engine(compute=False) as under_test:
        doctor = Doctor(Housekeeping(under_test.engine))
        heard = Heard(doctor)
        doctor.examine()
        under_test.loop.run_until(lambda: heard.events)
        ((findings,),) = heard.all("examined")
        assert any("processor threads" in finding.text for finding in findings)
        assert any(finding.text.startswith("PyTorch") for finding in findings)
