# SPDX-License-Identifier: Apache-2.0
"""The extension in a running Slicer, end to end, with the small model and a real engine process::

    VISTA3D_WORKER_PYTHON=<python with torch and monai> Slicer --no-splash --testing
        --additional-module-paths VISTA3DSegment --python-script VISTA3DSegment/Testing/Python/vista3d_slicer_tests.py

The exit code is 0 if all tests passed. Names of tests as further arguments run only these. Environment:

==========================  =========================================================================================
``VISTA3D_WORKER_PYTHON``   the interpreter of the engine, where Slicer's own Python has no torch
``VISTA3D_TEST_CT``         a CT to work on, instead of the painted abdomen
``VISTA3D_TEST_STRUCTURE``  what to segment in it, instead of the liver
``VISTA3D_SCREENSHOTS``     a folder for pictures
``VISTA3D_TEST_STALL_MS``   how long the window may not answer, instead of 100 ms, e.g. for slow graphics
==========================  =========================================================================================
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import slicer

_MODULES = (
    *("in_slicer_module", "in_slicer_automatic", "in_slicer_results"),
    *("in_slicer_clicks", "in_slicer_effect", "in_slicer_refine", "in_slicer_scenes"),
)


def run(names: tuple[str, ...] = ()) -> list[str]:
    """Run the tests, or those with the given names, and return the names of the failed ones."""
    import importlib

    from slicer_harness import run_tests

    for module in _MODULES:
        importlib.import_module(module)
    return run_tests(names)


if __name__ == "__main__":
    slicer.util.exit(1 if run(tuple(sys.argv[1:])) else 0)
