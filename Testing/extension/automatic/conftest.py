"""An engine, and runs in a scene of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from automatic_cases import Running
from engine_helpers import EngineUnderTest, running_engine


@pytest.fixture(scope="module")
def under_test() -> Iterator[EngineUnderTest]:
    """Return an engine that the tests of this file share."""
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def tiny(under_test: EngineUnderTest, tiny_model: Path) -> Iterator[Running]:
    """Return a coarse CT and a model that answers something, quickly."""
    running = Running(under_test, None, str(tiny_model))
    yield running
    running.run.close()
    running.volumes.close_all()
