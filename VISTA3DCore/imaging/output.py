"""Files appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from VISTA3DCore.errors import OutputError
from VISTA3DCore.progress import Progress

Encoder = Callable[[BinaryIO], None]


def write_files(files: Mapping[Path, Encoder], progress: Progress | None = None) -> None:
    """Write several files; they take their places by rename after all of them are complete.

    :param files: for each path the function that writes its content.
    :param progress: reports and cancels between files.
    :raises OutputError: if a folder is missing or something cannot be written; nothing is left behind.
    :raises Cancelled: if ``progress`` was cancelled; nothing is left behind.
    """
    progress = Progress.of(progress)
    for path in files:
        _check_target(path)
    parts = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") for path in files}
    try:
        for done, (path, encode) in enumerate(files.items()):
            progress.update(done / len(files), "Writing", path.name)
            with _as_output_error(path), parts[path].open("xb") as file:
                encode(file)
        progress.check()
        for path, part in parts.items():
            with _as_output_error(path):
                part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    progress.update(1.0, "Writing")


def _check_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"The folder '{path.parent}' does not exist; create it first.")
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder; give a file name.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder '{path.parent}' is not writable; choose another one.")


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"'{path}' cannot be written ({reason}); nothing was left behind.") from error
