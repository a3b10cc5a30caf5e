"""Fixtures of the tests on real MRML nodes."""

from __future__ import annotations

import sys
from pathlib import Path

# The package slicer takes in every folder of its name on the path, so it would import this one, all tests included.
_path = list(sys.path)
sys.path[:] = [one for one in _path if Path(one or ".").resolve() != Path(__file__).resolve().parents[1]]
import slicer  # noqa: E402, F401

sys.path[:] = _path
