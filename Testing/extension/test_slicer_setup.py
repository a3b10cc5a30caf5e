"""Set-up: what is missing, in a sentence; installed at the user's wish with what Slicer offers, in the right order."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from engine_helpers import EventLoop
from logic_helpers import Heard, MemoryStore, assert_sentence
from packaging.requirements import Requirement

from VISTA3DCore.engine.supervisor import RestartPolicy
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DSegmentLib.logic.engine import Engine
from VISTA3DSegmentLib.logic.settings import Settings
from VISTA3DSegmentLib.logic.setup import BROKEN, MISSING, READY, RESTART, Setup, Tools, installed_version

REQUIREMENTS = Path(__file__).resolve().parents[2] / "VISTA3DSegment" / "Resources" / "requirements.txt"


def load_requirements(path: Path) -> list[Requirement]:
    """Read a file as ``slicer.packaging`` does."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


class Computer:
    """What is installed, and Slicer's means of installing, which the user may decline."""

    def __init__(self, torch: str | None = None, extension: bool = False, packages: bool = False) -> None:
        self.torch, self.extension, self.packages = torch, extension, packages
        self.torch_imported = False
        self.calls: list[str] = []
        self.answers: dict[str, Any] = {}

    def tools(self) -> Tools:
        return Tools(
            load_requirements,
            lambda requirements: self.packages and bool(requirements),
            self.pip_ensure,
            self.torch_utils,
            self.install_extension,
            version=lambda name: {"torch": self.torch}[name],
            is_imported=lambda _name: self.torch_imported,
        )

    def pip_ensure(self, requirements: list[Requirement], requester: str) -> None:
        self.note("packages", requester)
        assert "torch" not in [one.name for one in requirements]
        assert self.torch
        self.packages = True

    def torch_utils(self) -> Computer:
        if not self.extension:
            raise ImportError("No module named 'PyTorchUtils'")
        return self

    def installTorch(self, askConfirmation: bool, torchVersionRequirement: str) -> object | None:  # noqa: N802, N803
        self.note("torch", f"{askConfirmation} {torchVersionRequirement}")
        if self.answers.get("torch") == "declined":
            return None
        self.torch = "2.9.1+cu130"
        return object()

    def install_extension(self, name: str) -> bool:
        self.note("extension", name)
        self.extension = "extension" not in self.answers
        return self.answers.get("extension") == "restart"

    def note(self, kind: str, detail: str) -> None:
        self.calls.append(f"{kind}: {detail}")
        if isinstance(self.answers.get(kind), Exception):
            raise self.answers[kind]


def setup_of(computer: Computer, environment: dict[str, str] | None = None, **settings: object) -> Setup:
    store = MemoryStore(settings)
    return Setup(computer.tools(), Settings(store), REQUIREMENTS, environment or {})


EXTENSION = "extension: PyTorch"
TORCH = "torch: True >=2.8"
PACKAGES = "packages: VISTA3D"


def test_the_requirements_are_ranges_without_what_comes_otherwise() -> None:
    names = {requirement.name for requirement in load_requirements(REQUIREMENTS)}
    assert not names & {"torch", "torchvision", "numpy", "SimpleITK"}
    assert names == {"monai", "openvino", "safetensors", "huggingface-hub", "filelock", "psutil"}
    for requirement in load_requirements(REQUIREMENTS):
        assert ">=" in str(requirement.specifier)
        assert "==" not in str(requirement.specifier)
        assert importlib.metadata.version(requirement.name) in requirement.specifier


def test_they_agree_with_the_package() -> None:
    project = (REQUIREMENTS.parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in load_requirements(REQUIREMENTS):
        least = next(one.version for one in requirement.specifier if one.operator == ">=")
        assert re.search(rf'"{requirement.name}>={re.escape(least)}\b', project), requirement.name


@pytest.mark.parametrize(
    ("computer", "kind", "words"),
    [
        (Computer("2.9.1", True, True), READY, "Ready"),
        (Computer("2.8.0+cpu", False, True), READY, "Ready"),
        (Computer("3.0", False, True), READY, "Ready"),
        (Computer(), MISSING, "PyTorch (about 200 MB"),
        (Computer(packages=True), MISSING, "up to 3 GB for an NVIDIA GPU"),
        (Computer("2.9.1"), MISSING, "MONAI, OpenVINO and a few small packages (about 100 MB)"),
        (Computer("2.4.1+cu121", True, True), MISSING, "PyTorch 2.8 or newer instead of 2.4.1+cu121"),
        (Computer("", True, True), BROKEN, "only half installed"),
    ],
)
def test_what_is_there_in_one_sentence(computer: Computer, kind: str, words: str) -> None:
    state = setup_of(computer).state()
    assert state.kind == kind
    assert words in state.text
    assert_sentence(state.text)
    assert computer.calls == []


def test_everything_is_installed_in_order() -> None:
    computer = Computer()
    setup = setup_of(computer)
    heard = Heard(setup)
    assert setup.install().kind == READY
    assert computer.calls == [EXTENSION, TORCH, PACKAGES]
    assert [name for name, _ in heard.events] == ["installed", "installed", "changed"]


def test_only_what_is_missing_is_installed() -> None:
    computer = Computer("2.9.1")
    assert setup_of(computer).install().kind == READY
    assert computer.calls == [PACKAGES]
    computer = Computer("2.4", extension=True, packages=True)
    assert setup_of(computer).install().kind == READY
    assert computer.calls == [TORCH]
    assert setup_of(computer).install().kind == READY
    assert computer.calls == [TORCH]


def test_a_half_installed_torch_is_installed_again() -> None:
    computer = Computer("", extension=True)
    assert setup_of(computer).install().kind == READY


def test_a_new_extension_needs_a_restart_and_set_up_continues_after_it() -> None:
    computer, store = Computer(), MemoryStore()
    computer.answers["extension"] = "restart"
    setup = Setup(computer.tools(), Settings(store), REQUIREMENTS, {})
    state = setup.install()
    assert (state.kind, computer.calls) == (RESTART, [EXTENSION])
    assert "restart Slicer" in state.text
    assert_sentence(state.text)
    computer.extension = True  # Slicer was started again
    again = Setup(computer.tools(), Settings(store), REQUIREMENTS, {})
    assert again.resume()
    assert again.state().kind == READY
    assert computer.calls == [EXTENSION, TORCH, PACKAGES]
    assert not again.resume()


def test_before_the_restart_and_after_a_declined_attempt_nothing_continues_by_itself() -> None:
    computer, store = Computer(), MemoryStore()
    computer.answers |= {"extension": "restart", "torch": "declined"}
    setup = Setup(computer.tools(), Settings(store), REQUIREMENTS, {})
    assert not setup.resume()
    setup.install()
    assert not setup.resume()
    assert computer.calls == [EXTENSION]
    computer.extension = True  # Slicer was started again
    again = Setup(computer.tools(), Settings(store), REQUIREMENTS, {})
    heard = Heard(again)
    assert again.resume()
    assert "PyTorch" in heard.sentence("failed")
    assert not again.resume()
    assert computer.calls == [EXTENSION, TORCH]


def test_what_was_completed_otherwise_needs_no_question() -> None:
    computer, store = Computer("2.9", True, True), MemoryStore({"pending_setup": True})
    setup = Setup(computer.tools(), Settings(store), REQUIREMENTS, {})
    assert not setup.resume()
    assert not Settings(store).pending_setup
    assert computer.calls == []


def test_what_is_needed_is_what_is_not_installed() -> None:
    setup = setup_of(Computer("2.9", True, True))
    assert setup.needed() is None
    engine = Engine(lambda: None, lambda *_: None)
    setup.watch(engine)
    engine.reported("The engine process ended.")
    engine.state_changed("failed")
    assert setup.state().kind == BROKEN
    assert setup.needed() is None  # another start may help
    assert setup_of(Computer()).needed() == setup_of(Computer()).state().text


def test_sentences_name_buttons_as_they_are_labeled() -> None:
    """Such as 'Install packages' in Setup."""
    module = REQUIREMENTS.parents[1]
    panel = ElementTree.parse(module / "Resources" / "UI" / "SetupPanel.ui")
    buttons = [one for one in panel.iter("widget") if one.get("class") == "QPushButton"]
    labels = {one.findtext("property[@name='text']/string").rstrip("…") for one in buttons}
    texts = [path.read_text(encoding="utf-8") for path in (module / "VISTA3DSegmentLib").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"'([A-Z][a-z ]+)' in Setup", text)}
    assert "Install packages" in named
    assert named <= labels
    assert not [text for text in texts if "'Install'" in text]


def test_a_torch_that_is_loaded_needs_a_restart() -> None:
    computer = Computer("2.4", extension=True)
    computer.torch_imported = True
    setup = setup_of(computer)
    assert setup.install().kind == RESTART
    assert "older PyTorch is still loaded" in setup.state().text
    assert computer.calls == [TORCH]


@pytest.mark.parametrize(
    ("step", "answer", "calls"),
    [
        ("extension", "declined", [EXTENSION]),
        ("extension", OSError("no network"), [EXTENSION]),
        ("torch", "declined", [EXTENSION, TORCH]),
        ("torch", RuntimeError("No matching distribution\nmore"), [EXTENSION, TORCH]),
        ("packages", RuntimeError("declined"), [EXTENSION, TORCH, PACKAGES]),
        ("packages", subprocess.CalledProcessError(1, "pip"), [EXTENSION, TORCH, PACKAGES]),
    ],
)
def test_what_is_declined_or_fails_is_one_sentence_and_can_be_tried_again(
    step: str, answer: Any, calls: list[str]
) -> None:
    computer = Computer()
    computer.answers[step] = answer
    setup = setup_of(computer)
    heard = Heard(setup)
    assert setup.install().kind == MISSING
    assert computer.calls == calls
    assert_sentence(heard.sentence("failed"))
    computer.answers.clear()
    assert setup.install().kind == READY


@pytest.mark.parametrize("how", ["environment", "setting"])
def test_another_interpreter_needs_nothing_of_slicers_own(how: str) -> None:
    python = sys.executable
    computer = Computer()
    setup = (
        setup_of(computer, {"VISTA3D_WORKER_PYTHON": python})
        if how == "environment"
        else setup_of(computer, worker_python=python)
    )
    assert setup.own_python == python
    assert setup.state().kind == READY
    assert python in setup.state().text
    assert setup.install().kind == READY
    assert computer.calls == []


def test_an_interpreter_that_is_not_there_is_told() -> None:
    setup = setup_of(Computer("2.9", True, True), {"VISTA3D_WORKER_PYTHON": "/nothing/python"})
    assert setup.state().kind == BROKEN
    assert_sentence(setup.state().text)
    assert "/nothing/python" in setup.state().text


def test_an_engine_that_cannot_start_is_broken_until_it_can() -> None:
    setup, loop = setup_of(Computer("2.9", True, True)), EventLoop()
    commands = [["/nothing/python"]]
    engine = Engine(
        lambda: ChildProcess(commands[0]), loop.call_later, policy=RestartPolicy(0.001, 0.002, restarts=1, handshake=5)
    )
    heard = Heard(setup)
    setup.watch(engine)
    engine.start()
    loop.run_until(lambda: engine.state == "failed")
    assert setup.state().kind == BROKEN
    assert "cannot be started with '/nothing/python'" in setup.state().text
    assert heard.all("changed") == [()]
    engine.close()


def test_the_engine_that_starts_again_is_not_broken_any_more() -> None:
    setup, heard = setup_of(Computer("2.9", True, True)), None
    engine = Engine(lambda: None, lambda *_: None)
    setup.watch(engine)
    engine.reported("The engine process ended.")
    engine.state_changed("waiting")
    assert setup.state().kind == READY
    engine.state_changed("failed")
    assert setup.state().kind == BROKEN
    heard = Heard(setup)
    engine.state_changed("starting")
    assert setup.state().kind == BROKEN
    engine.state_changed("ready")
    assert setup.state().kind == READY
    assert heard.all("changed") == [()]


def test_versions_are_read_without_importing() -> None:
    code = (
        "import sys; from VISTA3DSegmentLib.logic.setup import installed_version;"
        "print(installed_version('torch'), 'torch' in sys.modules)"
    )
    root = REQUIREMENTS.parents[2]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'VISTA3DSegment')!r}]; {code}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == [importlib.metadata.version("torch"), "False"]


def test_a_half_installed_package_is_known_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_version("vista3d-nothing") is None
    (tmp_path / "halfway-1.0.dist-info").mkdir()
    (tmp_path / "halfway-1.0.dist-info" / "METADATA").write_text("Name: halfway\nVersion: 1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_version("halfway") == ""
    (tmp_path / "halfway.py").touch()
    assert installed_version("halfway") == "1.0"
    (tmp_path / "halfway-1.0.dist-info" / "METADATA").unlink()
    assert not installed_version("halfway")
