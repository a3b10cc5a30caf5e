"""What the engine process costs beyond the engine's own time, for a volume of 512 x 512 x 300 voxels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from statistics import median

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def overhead():
    """Return what the benchmark measures with the small model."""
    file = Path(__file__).resolve().parents[1] / "Benchmark" / "engine.py"
    specification = importlib.util.spec_from_file_location("worker_benchmark", file)
    benchmark = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = benchmark  # dataclasses look there
    specification.loader.exec_module(benchmark)
    return benchmark.measure("mini", "liver", 20)


def test_opening_costs_less_than_half_a_second_beyond_preprocessing(overhead):
    assert overhead.preprocessing > 0
    assert overhead.opening < 500


def test_a_click_costs_less_than_five_milliseconds_beyond_the_engine(overhead):
    assert median(overhead.clicks) < 5


def test_neither_does_one_on_a_base_with_a_large_patch(overhead):
    assert overhead.patch > 1_000_000
    assert median(overhead.on_base) < 10  # 3 on an idle machine
