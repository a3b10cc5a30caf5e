"""Packages that only some commands need: told at once and by their names, not in the middle of the work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from VISTA3DCore.errors import MissingPackageError

# Where the name for pip is another one than that of the module.
_DISTRIBUTIONS = {"skimage": "scikit-image", "yaml": "PyYAML"}


@contextmanager
def left_out(module: str) -> Iterator[None]:
    """Let what is imported inside the block do without an optional package, unless that is loaded already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python then raises ImportError; typeshed does not know
    try:
        yield
    finally:
        del sys.modules[module]


def require(what: str, *modules: str) -> None:
    """Check that packages are installed.

    :param what: what needs them, the beginning of a sentence in the singular.
    :raises MissingPackageError: if they are not.
    """
    missing = [_DISTRIBUTIONS.get(name, name) for name in modules if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"{what} needs {' and '.join(missing)}", hint="install-packages", facts={"packages": " ".join(missing)}
        )
