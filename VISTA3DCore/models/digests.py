"""Hashes of large files, computed while they are read or copied."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import ModelError, OutputError
from VISTA3DCore.progress import Progress

CHUNK = 1 << 18


@dataclass(frozen=True)
class Digest:
    """Size and hashes of a file."""

    size: int
    sha256: str
    md5: str


class Hasher:
    """Computes a :class:`Digest` piece by piece."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256, self._md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        self._md5.update(chunk)

    def digest(self) -> Digest:
        return Digest(self.size, self._sha256.hexdigest(), self._md5.hexdigest())


def require_hash(name: str, digest: Digest, sha256: str | None, md5: str | None) -> None:
    """:raises ModelError: if one of the known hashes differs."""
    for kind, expected, computed in (("SHA-256", sha256, digest.sha256), ("MD5", md5, digest.md5)):
        if expected is not None and expected.lower() != computed:
            raise ModelError(
                f"'{name}' is damaged or not the published file: its {kind} is {computed} instead of {expected}; "
                "download it again."
            )


def copy_file(source: Path, target: Path, progress: Progress | None = None) -> Digest:
    """Copy by rename and return the hashes of what was written.

    :raises OutputError: if the disk is full or not writable; nothing is left behind.
    """
    with replacing(target) as temporary, temporary.open("wb") as copy:
        require_space(target, source.stat().st_size)
        return digest_file(source, progress, "Copying", copy)


def digest_file(
    path: Path, progress: Progress | None = None, stage: str = "Checking", copy: BinaryIO | None = None
) -> Digest:
    """Return size and hashes of a file, writing what is read to ``copy`` if given."""
    progress, hasher, size = Progress.of(progress), Hasher(), max(path.stat().st_size, 1)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
            if copy is not None:
                copy.write(chunk)
            progress.update(hasher.size / size, f"{stage} {path.name}")
    return hasher.digest()


def require_space(target: Path, needed: int) -> None:
    """:raises OutputError: if fewer than ``needed`` bytes are free where ``target`` is to be written."""
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OutputError(
            "The disk of '{folder}' is too full: {needed} MB are needed and {free} MB are free",
            hint="free-model-space",
            facts={"folder": str(target.parent), "needed": round(needed / 1e6), "free": round(free / 1e6)},
        )
