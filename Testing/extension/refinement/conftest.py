"""An engine, and segments to click at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_helpers import EngineUnderTest, running_engine
from refinement_helpers import Clicking


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def clicking_at(engine: EngineUnderTest, tiny_model: Path) -> Iterator[Callable[..., Clicking]]:
    made: list[Clicking] = []

    def make(*arguments: object, model: Path | str = tiny_model, **options: object) -> Clicking:
        made.append(Clicking(engine, model, *arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def clicking(clicking_at: Callable[..., Clicking]) -> Clicking:
    return clicking_at()
