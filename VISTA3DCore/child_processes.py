"""Start Python in a child process that runs our code and installed packages, never files of the current folder.

Python puts the current folder, or the empty name that stands for it, first into ``sys.path`` for ``-c`` and ``-m``:
a file ``warnings.py`` beside a CT then replaces a module of the standard library. ``-P`` is missing in Python 3.10, and
``-I`` ignores what Slicer's Python and packages of one user need. Hence three measures, for every child alike:

- the first statement of the child, before anything is imported, takes such names out of ``sys.path``;
- relative parts of ``PYTHONPATH``, the empty one included, are not handed on (absolute ones are: development);
- the child starts in an empty folder that only the user can write, see :class:`WorkingFolder`, and so do its children.

Needs the standard library alone: it runs in Slicer, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: The names of working folders begin so.
FOLDER_PREFIX = "vista3d-process-"

#: ``subprocess.CREATE_NO_WINDOW``, without importing that module: Slicer asks for a command alone.
_NO_WINDOW = 0x08000000
_PACKAGE = "VISTA3DCore"
# ``sys`` is part of the interpreter: importing it looks at no path.
_CLEAN_PATH = "import sys; sys.path[:] = [p for p in sys.path if p not in ('', '.')]; "
# Our own package is loaded from the folder of this very copy, whether it is installed for the interpreter or not;
# nothing that is stored beside it becomes importable.
_LOAD_PACKAGE = (
    "import importlib.util as u; folder = sys.argv.pop(1); "
    f"s = u.spec_from_file_location('{_PACKAGE}', folder + '/__init__.py', submodule_search_locations=[folder]); "
    f"m = u.module_from_spec(s); sys.modules['{_PACKAGE}'] = m; s.loader.exec_module(m); "
)
# Variables that name files: a child that works elsewhere must not look for them there.
_PATH_VARIABLES = (
    "VISTA3D_HOME",
    "HF_HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
)


def python_command(module: str, *arguments: str, python: str | os.PathLike[str] | None = None) -> list[str]:
    """Return a command that runs a module as ``python -m`` does, without its current folder in ``sys.path``.

    A module of this package is run from the same copy as this file, whatever is installed for the interpreter.

    :param python: the interpreter, a path or a program's name; by default the running one.
    """
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    python = _absolute_program(os.fspath(python or sys.executable))
    if module.partition(".")[0] != _PACKAGE:
        return [python, "-c", _CLEAN_PATH + run, *arguments]
    return [python, "-c", _CLEAN_PATH + _LOAD_PACKAGE + run, str(Path(__file__).resolve().parent), *arguments]


def child_environment(environment: Mapping[str, str] | None = None, **changes: str) -> dict[str, str]:
    """Return the environment for a child that works in another folder: relative paths become absolute or go.

    :param environment: by default this process's. :param changes: variables to set.
    """
    child = {**(os.environ if environment is None else environment), **changes}
    for name in _PATH_VARIABLES:
        if (value := child.get(name)) and not value.startswith("~") and value != os.devnull:
            child[name] = os.path.abspath(value)  # noqa: PTH100 - resolves no links
    parts = [part for part in child.pop("PYTHONPATH", "").split(os.pathsep) if Path(part).is_absolute()]
    return child | ({"PYTHONPATH": os.pathsep.join(parts)} if parts else {})


class WorkingFolder:
    """A new, empty folder that only the user can write, for one child to work in; a context manager.

    It is removed when it is closed, at the latest when the interpreter exits.

    :raises OSError: if there is no place for temporary files.
    """

    def __init__(self) -> None:
        import tempfile

        self.path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        self._remove = weakref.finalize(self, _remove_own, self.path, os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder with everything in it; harmless at the second call."""
        self._remove()


def leave_working_folder() -> None:
    """Remove the folder that this process works in, if it was made for it; for a child whose parent may be gone."""
    with contextlib.suppress(OSError):
        folder = Path.cwd()
        if folder.name.startswith(FOLDER_PREFIX):
            os.chdir(folder.parent)
            folder.rmdir()


@contextlib.contextmanager
def safe_spawning() -> Iterator[None]:
    """Keep the current folder out of ``sys.path`` of the processes that libraries start inside the block.

    ``multiprocessing`` builds its own command. Python 3.10 does not know the variable.
    """
    name = "PYTHONSAFEPATH"
    former = os.environ.get(name)
    os.environ[name] = former or "1"
    try:
        yield
    finally:
        if former is None:
            del os.environ[name]


def find_program(name: str) -> str | None:
    """Return the path of a program in an absolute folder of ``PATH``; Windows would look into the current one first."""
    file = name + ".exe" if sys.platform == "win32" and not name.lower().endswith(".exe") else name
    folders = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if Path(part).is_absolute()]
    return next((found for folder in folders if (found := shutil.which(str(folder / file)))), None)


def no_window() -> dict[str, Any]:
    """Return the options of ``subprocess`` that keep Windows from opening a console window."""
    return {"creationflags": _NO_WINDOW} if sys.platform == "win32" else {}


def _absolute_program(python: str) -> str:
    """Return an interpreter as a path that holds in another folder; a name that is not found stays as it is."""
    if os.path.dirname(python):  # noqa: PTH120 - a bare name has none
        return os.path.abspath(Path(python).expanduser())  # noqa: PTH100 - a link of a virtual environment stays one
    return find_program(python) or python


def _remove_own(folder: Path, pid: int) -> None:
    if pid == os.getpid():  # a forked child is not the owner
        shutil.rmtree(folder, ignore_errors=True)
