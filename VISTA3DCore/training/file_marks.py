"""Whether files are what they were: by size and time of change, and by content where the time differs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from VISTA3DCore.errors import InputError

_CHUNK = 1 << 20

Mark = dict[str, Any]


def mark(path: Path) -> Mark:
    """Return size, time of change and digest of a file, or of a folder with the files of a DICOM series; plain JSON.

    :raises InputError: if it cannot be read.
    """
    try:
        return {**_stamp(path), "digest": _digest(path)}
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def is_unchanged(path: Path, known: Mapping[str, Any]) -> bool:
    """Return whether a file is what it was when :func:`mark` looked at it.

    A file that was copied or touched has another time of change; then its content decides.
    """
    try:
        now = _stamp(path)
        same = now == {name: known.get(name) for name in now}
        return same or (now["size"] == known.get("size") and _digest(path) == known.get("digest"))
    except OSError:
        return False


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]


def _stamp(path: Path) -> Mark:
    found = [one.stat() for one in _files(path)]
    return {"size": sum(one.st_size for one in found), "time": max((one.st_mtime_ns for one in found), default=0)}


def _digest(path: Path) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for one in _files(path):
        with one.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    return hasher.hexdigest()
