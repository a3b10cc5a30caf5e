"""The state of a run on disk: written by rename, a few kept, the newest readable one resumed from."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import InputError, OutputError
from VISTA3DCore.training.file_marks import is_unchanged, mark

State = dict[str, Any]

_PATTERN = "step-*.pt"


class RunFolder:
    """A folder that holds one run.

    ``recipe.yaml`` and ``run.json`` say what it is, ``checkpoints/`` holds its states, ``model.safetensors`` its
    result, ``last.safetensors`` the last weights where the result is an earlier, better model, ``tensorboard/`` its
    curves.

    :param keep: states that are kept.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self.path, self._keep = path, keep
        self.states, self.curves = path / "checkpoints", path / "tensorboard"
        self.model, self.last = path / "model.safetensors", path / "last.safetensors"
        self._lock = FileLock(path / ".lock", timeout=0)

    def begin(
        self, recipe: str, identity: Mapping[str, Any], write: bool, files: Mapping[str, Path] | None = None
    ) -> None:
        """Make the folder, or check that the run in it is the same one. The folder then is this process's.

        :param recipe: YAML, for people.
        :param identity: what decides about the weights; plain JSON.
        :param write: False in the processes that write no files.
        :param files: what is read, by name; their content decides about the weights, too.
        :raises InputError: if the folder holds another run, a file has changed since, or another process uses it.
        :raises OutputError: if it cannot be made.
        """
        file, wanted = self.path / "run.json", json.loads(json.dumps(identity))
        if write:
            try:
                self.states.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"The run folder '{self.path}' cannot be made: {error.strerror}.") from error
            self._acquire()
        if file.exists() and self.saved():
            found = _read(file)
            marks = found.pop("files", {})
            self._same(found, wanted)
            self._unchanged(marks, files or {})
        elif write:
            _write(self.path / "recipe.yaml", recipe)
            marks = {name: mark(path) for name, path in (files or {}).items()}
            _write(file, json.dumps({**wanted, "files": marks}, indent=2) + "\n")

    @contextmanager
    def held(self, write: bool) -> Iterator[None]:
        """Keep other processes out of the folder, and let them in at the end.

        :param write: False in the processes that write no files.
        :raises InputError: if another process uses it.
        """
        if write:
            self._acquire()
        try:
            yield
        finally:
            self._lock.release()

    def saved(self) -> list[Path]:
        """Return the states that are there, the newest first."""
        return sorted(self.states.glob(_PATTERN), reverse=True)

    def save(self, state: State) -> Path:
        """Write a state, then remove the oldest ones beyond those that are kept.

        :param state: holds ``step``; tensors and plain values.
        :raises OutputError: if it cannot be written; the states before stay as they are.
        """
        path = self.states / f"step-{state['step']:08d}.pt"
        try:
            with replacing(path) as temporary:
                _save(state, temporary)
        except OutputError as error:
            last = next(iter(self.saved()), None)
            left = f"the last good one, '{last.name}', is unharmed" if last else "there is no earlier one"
            raise OutputError(f"{str(error).rstrip('.')}; {left}. Free some space and go on.") from error
        for old in self.saved()[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> State | None:
        """Return the newest state that can be read, or None; damaged ones are skipped with a warning."""
        for path in self.saved():
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # noqa: PERF203 - a damaged file can raise anything
                warnings.warn(f"'{path}' is damaged and left out ({type(error).__name__}).", UserWarning, stacklevel=2)
        return None

    def _acquire(self) -> None:
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"Another process trains in '{self.path}'; wait until it ends, or give another folder."
            ) from None
        except (OSError, NotImplementedError) as error:  # some network drives know no locks
            warnings.warn(
                f"'{self.path}' cannot be locked ({error}); let no second run use it.", UserWarning, stacklevel=2
            )

    def _unchanged(self, marks: Mapping[str, Mapping[str, Any]], files: Mapping[str, Path]) -> None:
        for name, path in files.items():
            if name in marks and not is_unchanged(path, marks[name]):
                raise InputError(
                    f"The {name} has changed since the run in '{self.path}' began ('{path}'); restore it, or begin a "
                    "new run in another folder."
                )

    def _same(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        for key in sorted({*found, *wanted}):
            if found.get(key) != wanted.get(key):
                raise InputError(
                    f"'{self.path}' holds another run ({_difference(key, found.get(key), wanted.get(key))}); "
                    "give a new folder, or the same settings to go on with it."
                )


def _difference(key: str, found: Any, wanted: Any) -> str:
    """Return in a few words where two settings differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        inner = next(one for one in sorted({*found, *wanted}) if found.get(one) != wanted.get(one))
        return _difference(f"{key}.{inner}", found.get(inner), wanted.get(inner))
    shown = [text if len(text := str(one)) <= 60 else text[:57] + "..." for one in (found, wanted)]
    return f"{key} is {shown[0]} there and {shown[1]} here"


def _save(state: State, path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch's own, about its position in the file; the disk's is what it came from
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__
        raise cause or OSError(str(error).splitlines()[0]) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); give a new run folder.") from error


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
