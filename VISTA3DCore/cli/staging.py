"""Results that appear together, complete, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from VISTA3DCore.errors import OutputError


class Staging:
    """Collects files in hidden folders beside their destinations; :meth:`commit` moves them there.

    A context manager: what was not committed when it ends is removed.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for staged in self._folders.values():
            shutil.rmtree(staged, ignore_errors=True)
        if isinstance(error, OutputError) and (sentence := self._without_hidden_folders(str(error))) != str(error):
            raise type(error)(sentence) from error

    def _without_hidden_folders(self, sentence: str) -> str:
        """Name files by where they were to go: the hidden folders are gone when somebody reads it."""
        for folder, staged in self._folders.items():
            sentence = sentence.replace(str(staged), str(folder))
        return sentence

    def path(self, destination: Path) -> Path:
        """Return where to write what shall become ``destination``; files written beside it come along.

        :raises OutputError: if the destination's folder is not writable.
        """
        folder = destination.parent
        if folder not in self._folders:
            try:
                self._folders[folder] = Path(tempfile.mkdtemp(prefix=".vista3d-", dir=folder))
            except OSError as error:
                raise OutputError(f"Nothing can be written to the folder '{folder}': {error.strerror}.") from error
        return self._folders[folder] / destination.name

    def commit(self) -> list[Path]:
        """Move everything to its destination and return the files' paths, relative where the destinations were.

        :raises OutputError: if a file cannot be placed.
        """
        placed = []
        for folder, staged in self._folders.items():
            for file in sorted(path for path in staged.rglob("*") if path.is_file()):
                target = folder / file.relative_to(staged)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
                except OSError as error:
                    raise OutputError(f"'{target}' cannot be written: {error.strerror}.") from error
                placed.append(target)
        return placed
