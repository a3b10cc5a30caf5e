"""Which copy of the engine's package the extension uses: always its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gui_code import MODULE

OWN = MODULE.parent / "VISTA3DCore"
IMPORTED = "import VISTA3DCore, VISTA3DCore.errors; kept = VISTA3DCore.errors.VistaError\n"
FOUND = """
from VISTA3DSegmentLib.locating import find_core
print(find_core()); find_core()
import VISTA3DCore
from VISTA3DCore import errors
from VISTA3DCore.engine.environment import worker_command
print(VISTA3DCore.__file__); print(errors.__file__); print(worker_command()[-1])
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with another version of the package, as pip would have put it there."""
    package = tmp_path / "site-packages" / "VISTA3DCore"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '0.0.1'\n")
    (package / "errors.py").write_text("class VistaError(Exception): pass\n")
    return package.parent


@pytest.mark.parametrize("before", ["", IMPORTED], ids=["not imported yet", "imported by a script"])
def test_a_copy_that_pip_installed_does_not_win(installed, before):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(MODULE)])}
    command = [sys.executable, "-c", before + FOUND]
    done = subprocess.run(command, env=environment, cwd=installed, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert [Path(line) for line in done.stdout.splitlines()] == [OWN, OWN / "__init__.py", OWN / "errors.py", OWN]
    assert done.stderr.count(str(installed)) == (1 if before else 0)
