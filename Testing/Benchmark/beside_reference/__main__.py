"""Run the benchmark from the checkout: ``python Testing/Benchmark/beside_reference --help``."""

import sys
from pathlib import Path

_BENCHMARK = Path(__file__).resolve().parents[1]
# The first entry is this folder, whose modules must be imported as parts of the package alone.
sys.path[:1] = [str(_BENCHMARK), str(_BENCHMARK.parents[1])]

from beside_reference.command import app  # noqa: E402

if __name__ == "__main__":
    app()
