"""Small seeded networks for every test of inference."""

from __future__ import annotations

import pytest
from reference_pipeline import SMALL, TINY, CountingBackend, Reference, seeded_network


@pytest.fixture(scope="session")
def small_network():
    return seeded_network(SMALL)


@pytest.fixture
def backend(small_network) -> CountingBackend:
    return CountingBackend(small_network, SMALL)


@pytest.fixture
def reference(small_network) -> Reference:
    return Reference(small_network, SMALL)


@pytest.fixture
def tiny_backend() -> CountingBackend:
    return CountingBackend(seeded_network(TINY), TINY)
