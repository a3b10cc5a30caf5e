"""Files appear complete or not at all. Every result is written here."""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from VISTA3DCore.atomic_files import HiddenFolder, keep_beside, place
from VISTA3DCore.errors import Cancelled, OutputError
from VISTA3DCore.progress import Progress

Encoder = Callable[[BinaryIO], None]


def write_files(
    files: Mapping[Path, Encoder],
    progress: Progress | None = None,
    optional: Collection[Path] = (),
    obsolete: Iterable[Path] = (),
    folder: Path | None = None,
) -> list[Path]:
    """Write several files; they take their places by rename after all of them are complete.

    A link is followed: the file that it names is replaced. Where another program refuses the rename for longer than
    some seconds, the file is kept under another name.

    :param files: for each path the function that writes its content.
    :param progress: reports and cancels between files.
    :param optional: those of the files whose failure is a warning and costs no other file.
    :param obsolete: files of an earlier result, removed once the new one is in place.
    :param folder: made first if it is missing; the one above it must exist.
    :return: the files written.
    :raises OutputError: if a folder is missing or something cannot be written; nothing is left behind, except a file
        that could not take its place: the sentence says where it is.
    :raises Cancelled: if ``progress`` was cancelled; nothing is left behind.
    """
    progress = Progress.of(progress)
    with _made(folder), _Staging() as staging:
        check_targets(path for path in files if path not in optional)
        parts: dict[Path, Path] = {}
        for done, (path, encode) in enumerate(files.items()):
            progress.update(done / len(files), "Writing", path.name)
            with _tolerated(path, path in optional), _as_output_error(path):
                _check_target(path)
                part = staging.part(path)
                with part.open("xb") as file:
                    encode(file)
                parts[path] = part
        progress.check()
        written = _placed(parts)
        for path in obsolete:
            with contextlib.suppress(OSError):
                path.unlink()
    progress.update(1.0, "Writing")
    return written


def bytes_encoder(content: bytes) -> Encoder:
    """Return what writes a file whose content is in memory."""

    def encode(file: BinaryIO) -> None:
        file.write(content)

    return encode


def check_targets(paths: Iterable[Path]) -> None:
    """Check what can be known of places for files without writing anything.

    :raises OutputError: if a folder is missing or not writable, or a place is taken by a folder, a device or a file
        that is protected against writing, or two paths name one file.
    """
    named: dict[Path, Path] = {}
    for path in paths:
        _check_target(path)
        other = named.setdefault(_real(path), path)
        if other is not path:
            raise OutputError(f"'{other}' and '{path}' are the same file; choose different names for the outputs.")


def try_targets(paths: Iterable[Path]) -> None:
    """Check as :func:`check_targets`, and find out by empty files whether the names can be used.

    :raises OutputError: naming the path that cannot be written, and why.
    """
    paths = list(paths)
    check_targets(paths)
    with _Staging() as staging:
        for path in paths:
            try:
                staging.part(path).touch()
            except OSError as error:  # noqa: PERF203 - the sentence names the path
                reason = error.strerror or str(error)
                raise OutputError(f"'{path}' cannot be written ({reason}); choose another name or folder.") from error


class _Staging:
    """One hidden folder for each folder that files go to; a context manager."""

    def __enter__(self) -> _Staging:
        self._stack = contextlib.ExitStack()
        self._folders: dict[Path, HiddenFolder] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def part(self, path: Path) -> Path:
        """Return where to write what becomes a file.

        :raises OSError: if the hidden folder cannot be made.
        """
        target = _real(path)
        if target.parent not in self._folders:
            self._folders[target.parent] = self._stack.enter_context(HiddenFolder(target.parent))
        return self._folders[target.parent].path / target.name


def _real(path: Path) -> Path:
    """Return the file that a path names, after links."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path.absolute()  # noqa: PTH114


def _check_target(path: Path) -> None:
    # The functions of os.path answer for names that are too long, where those of Path raise.
    target = _real(path)
    if not os.path.isdir(target.parent):  # noqa: PTH112
        raise OutputError(f"The folder '{path.parent}' does not exist; create it first.")
    if os.path.isdir(target):  # noqa: PTH112
        raise OutputError(f"'{path}' is a folder; give a file name.")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"The folder '{target.parent}' is not writable; choose another one.")
    if not os.path.exists(target):  # noqa: PTH110
        return
    mode = target.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OutputError(f"'{path}' is a device, not a file; choose another name.")
    if not mode & 0o222 or not os.access(target, os.W_OK):
        raise OutputError(f"'{path}' exists and is read-only; make it writable, or choose another name.")


def _placed(parts: Mapping[Path, Path]) -> list[Path]:
    """Move complete files to their places.

    :raises OutputError: if one cannot be placed; it is kept elsewhere, and the others are placed all the same.
    """
    problems = []
    for path, part in parts.items():
        try:
            place(part, _real(path))
        except OSError as error:  # noqa: PERF203 - the others are placed all the same
            problems.append(_kept(path, part, error))
    if problems:
        raise OutputError(" ".join(problems))
    return list(parts)


def _kept(path: Path, part: Path, refusal: OSError) -> str:
    reason = refusal.strerror or str(refusal)
    try:
        kept = keep_beside(part, _real(path))
    except OSError:
        return f"'{path}' cannot be written ({reason}); nothing was left behind."
    return f"'{path}' cannot be replaced ({reason}); is it open in another program? The result is in '{kept}'."


@contextlib.contextmanager
def _made(folder: Path | None) -> Iterator[None]:
    """Make a folder, and remove it again if what is to come into it fails."""
    if folder is None or folder.is_dir():
        yield
        return
    if folder.exists():
        raise OutputError(f"'{folder}' is a file; give a folder for one file per structure.")
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f"The folder '{folder}' cannot be created ({error.strerror}).") from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # a file that could not take its place may have been kept in it
            folder.rmdir()
        raise


@contextlib.contextmanager
def _tolerated(path: Path, tolerated: bool) -> Iterator[None]:
    """Turn any failure of an optional file into a warning."""
    try:
        yield
    except Exception as error:
        if not tolerated or isinstance(error, Cancelled):
            raise
        reason = str(error).rstrip(".") if isinstance(error, OutputError) else f"{type(error).__name__}: {error}"
        warnings.warn(f"'{path.name}' was not written ({reason}); the other results were.", UserWarning, stacklevel=3)


@contextlib.contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"'{path}' cannot be written ({reason}); nothing was left behind.") from error
