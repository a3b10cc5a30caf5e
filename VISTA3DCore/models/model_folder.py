"""Where one model lives on this computer, and what is recorded about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from VISTA3DCore.atomic_files import place, replacing
from VISTA3DCore.errors import ModelError, OutputError
from VISTA3DCore.models.registry import RegistryEntry
from VISTA3DCore.models.sidecar import read_sidecar, sidecar_path, write_sidecar
from VISTA3DCore.paths import resource
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from filelock import FileLock

SUFFIXES = (".safetensors", ".pt", ".pth")
LICENCE_FILE = "LICENSE.txt"
MOVING_REVISION = "main"


class ModelFolder:
    """``<home>/models/<name>/``: weights, their facts (JSON), the licence text.

    :param home: the user's data folder.
    """

    def __init__(self, home: Path, entry: RegistryEntry) -> None:
        self.entry, self._home = entry, home
        self.path = home / "models" / entry.name

    def target(self, suffix: str | None = None) -> Path:
        """Return where weights go; by default those of a download."""
        return self.path / (self.entry.name + (suffix or self.entry.suffix))

    @property
    def partial(self) -> Path:
        """Where an unfinished download is kept."""
        target = self.target()
        return target.with_name(target.name + ".part")

    def weights(self) -> Path | None:
        """Return the weights if they are on this computer."""
        if self.entry.bundled:
            try:
                return resource(self.entry.filename)
            except ModelError:
                return None
        return next((path for suffix in SUFFIXES if (path := self.target(suffix)).is_file()), None)

    def facts(self) -> dict[str, Any]:
        """Return what is recorded about the weights, or about those to come."""
        return read_sidecar(self.weights() or self.target())

    def revision(self) -> str:
        """Return the revision to get: the registry's, or where that moves the one that was met first."""
        if self.entry.revision != MOVING_REVISION:
            return self.entry.revision
        return self.facts().get("revision") or MOVING_REVISION

    def licence(self) -> str | None:
        """Return the licence text of the weights that are here, or of the revision to get, if it was kept."""
        file = self.path / LICENCE_FILE
        if not file.is_file() or (self.weights() is None and self.facts().get("revision") != self.revision()):
            return None
        return file.read_text(encoding="utf-8")

    def keep_licence(self, text: str) -> None:
        """Keep a licence text beside the weights."""
        with replacing(self.path / LICENCE_FILE) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def replace_weights(self, incoming: Path, target: Path, facts: dict[str, Any]) -> None:
        """Put weights in place by rename, with their facts, instead of any earlier ones."""
        with disk_errors(target):
            place(incoming, target)
            write_sidecar(target, {**facts, "checked": stamp(target)})
            for other in map(self.target, SUFFIXES):
                if other != target:
                    other.unlink(missing_ok=True)
                    sidecar_path(other).unlink(missing_ok=True)

    @contextmanager
    def locked(self, progress: Progress) -> Iterator[None]:
        """Let one process at a time change the model; the others wait and can be cancelled."""
        from filelock import FileLock  # with torch and the hub's client; listing models must do without

        self._create()
        lock = FileLock(self._home / "models" / f".{self.entry.name}.lock")
        while not self._acquired(lock):
            progress.update(0.0, f"Waiting for another process that works on {self.entry.name}")
        try:
            self._create()  # a deletion that held the lock before has removed the folder
            yield
        finally:
            with suppress(OSError):  # remove the folder if it stayed empty
                self.path.rmdir()
            lock.release()

    def _acquired(self, lock: FileLock) -> bool:
        from filelock import Timeout

        with disk_errors(self.path):
            try:
                lock.acquire(timeout=0.2)
            except Timeout:
                return False
        return True

    def _create(self) -> None:
        """Create the folders, for the user alone."""
        with disk_errors(self.path):
            self._home.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self._home, self._home / "models", self.path):
                folder.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """:raises OutputError: for an error of the disk."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"'{path}' cannot be changed: {error.strerror or error}.") from error


def stamp(path: Path) -> dict[str, int]:
    """Return what tells cheaply whether a file changed since its hash was computed."""
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}
