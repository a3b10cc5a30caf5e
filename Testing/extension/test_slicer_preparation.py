"""Before the first click: what is missing is said in one sentence, and nothing claims to be ready."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_helpers import EngineUnderTest, running_engine
from logic_helpers import assert_sentence
from refinement_helpers import Clicking

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DSegmentLib.logic.choice import Choice
from VISTA3DSegmentLib.logic.click_session import ClickSession
from VISTA3DSegmentLib.mrml.writing import EditorLogicWriter

PLACE = (5, 11, 15)
MISSING = "Missing: PyTorch. 'Install packages' in Setup gets it, after asking you."


class Starting:
    """A session that has not begun, on a computer where something may be missing."""

    def __init__(self, under_test: EngineUnderTest, model: Path | str, needed: str | None = None) -> None:
        self.clicking, self.needed, self.model = Clicking(under_test, model), needed, str(model)
        self.clicking.refinement.set_target()
        one = self.clicking
        self.session = ClickSession(one.refinement, one.volumes, under_test.engine, self.choice, lambda: self.needed)
        self.failed: list[str] = []
        self.session.failed.connect(self.failed.append)

    def choice(self) -> Choice:
        return Choice(self.model, "cpu", catalogue())

    def begin(self) -> ClickSession:
        self.session.begin(self.clicking.editor_node, EditorLogicWriter(self.clicking.editor))
        return self.session

    def click(self) -> None:
        self.session.click(self.clicking.world(PLACE))

    def close(self) -> None:
        self.session.close()
        self.clicking.close()


@pytest.fixture
def under_test() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


def test_without_an_engine_nothing_is_ready_and_a_click_says_what_to_install(
    under_test: EngineUnderTest, tiny_model: Path
) -> None:
    one = Starting(under_test, tiny_model, MISSING)
    session = one.begin()
    assert session.problem == session.unready == MISSING
    assert session.state == ""
    assert under_test.engine.state == "stopped", "the engine cannot start, but was"
    for act in (one.click, session.suggest, lambda: session.warm(one.clicking.world(PLACE))):
        act()
    under_test.loop.run_for(0.2)
    assert one.failed == [MISSING] * 2
    assert session.rows == []
    assert under_test.engine.state == "stopped"
    one.close()


def test_once_it_is_installed_clicks_are_answered(under_test: EngineUnderTest, tiny_model: Path) -> None:
    one = Starting(under_test, tiny_model, MISSING)
    session = one.begin()
    session.setup_changed()
    assert session.problem == MISSING
    one.needed = None
    session.setup_changed()
    assert session.state
    under_test.loop.run_until(lambda: not session.state)
    assert session.problem is None
    one.click()
    one.clicking.settle()
    assert one.clicking.mask().any()
    assert one.failed == []
    one.close()


def test_an_engine_that_cannot_open_the_volume_is_not_ready(
    under_test: EngineUnderTest, tiny_model: Path, tmp_path: Path
) -> None:
    one = Starting(under_test, tmp_path / "none.safetensors")
    session = one.begin()
    under_test.loop.run_until(lambda: one.failed)
    assert_sentence(session.problem)
    assert "none.safetensors" in session.problem
    assert session.problem == session.unready == one.failed[0]
    one.model = str(tiny_model)
    session.choice_changed()
    under_test.loop.run_until(lambda: not session.state)
    assert session.problem is None
    one.close()


def test_an_answered_click_ends_an_earlier_problem(
    under_test: EngineUnderTest, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "later.safetensors"
    one = Starting(under_test, path)
    session = one.begin()
    under_test.loop.run_until(lambda: one.failed)
    path.write_bytes(tiny_model.read_bytes())
    one.click()
    one.clicking.settle()
    assert session.problem is None
    assert one.clicking.mask().any()
    one.close()
