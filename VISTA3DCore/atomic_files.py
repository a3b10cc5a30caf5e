"""Complete files beside their places, and rename them into place: every file appears whole or not at all.

:func:`replacing` writes one file. :class:`HiddenFolder` holds several until all of them are complete; it is locked
while its process lives, and the next process removes what a killed one left, because that is unlocked.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from VISTA3DCore.errors import OutputError

PREFIX = ".vista3d-"
# Antivirus scanners and programs that synchronize folders open new files for moments: together about five seconds.
_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 1.6)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY)
_LOCK_FILE = ".lock"  # Windows alone, which locks no folders
_OLD_S = 86400.0  # of a folder whose lock says nothing
_DOUBLE_SUFFIXES = (".seg.nrrd", ".nii.gz", ".mrk.json")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; it takes its place when the block succeeds, and vanishes when it fails.

    :raises OutputError: if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def publish(part: Path, target: Path) -> None:
    """Rename a complete file once it is on the disk, so that a power cut never leaves a hole in its place.

    :raises OSError: if it cannot be written or renamed.
    """
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    place(part, target)


class HiddenFolder:
    """A folder of this process beside files to come; a context manager, which removes it at the end.

    Leftovers of killed processes in the same place are removed first.

    :raises OSError: if it cannot be made.
    """

    def __init__(self, parent: Path) -> None:
        remove_leftovers(parent)
        self.path, self._lock = _locked_folder(parent)

    def __enter__(self) -> HiddenFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Remove hidden folders of this user that no running process holds."""
    with suppress(OSError):
        for path in list(parent.glob(f"{PREFIX}*")):
            with suppress(OSError):
                _remove_if_abandoned(path)


def place(part: Path, target: Path) -> None:
    """Rename a file; wait for some seconds while another program refuses it.

    :raises OSError: if it stays refused.
    """
    for pause in _PAUSES_S:
        try:
            part.replace(target)
        except OSError as error:  # noqa: PERF203 - that is what the loop is for
            if error.errno not in _REFUSED:
                raise
            time.sleep(pause)
        else:
            return
    part.replace(target)


def keep_beside(part: Path, target: Path) -> Path:
    """Save a complete file that cannot take its place: beside it under another name, else in the temporary folder.

    :return: where it is.
    :raises OSError: if there is no way.
    """
    beside, elsewhere = (_free_name(folder, target.name) for folder in (target.parent, Path(tempfile.gettempdir())))
    with suppress(OSError):
        return part.replace(beside)
    with suppress(OSError):
        return Path(shutil.copyfile(part, beside))
    return Path(shutil.copyfile(part, elsewhere))


def _free_name(folder: Path, name: str) -> Path:
    suffix = next((one for one in _DOUBLE_SUFFIXES if name.lower().endswith(one)), Path(name).suffix)
    stem = name[: len(name) - len(suffix)]
    suffix = name[len(stem) :]
    names = (f"{stem}_new{number or ''}{suffix}" for number in itertools.count())
    return next(path for path in map(folder.joinpath, names) if not os.path.lexists(path))


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
            lock = _opened(path)
            if _lock(lock) is not False and path.is_dir():
                return path, lock
            os.close(lock)


def _opened(path: Path) -> int:
    if os.name == "nt":
        return os.open(path / _LOCK_FILE, os.O_CREAT | os.O_RDWR)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _lock(descriptor: int) -> bool | None:
    """Lock a folder as long as the descriptor is open; return False if another one has it, None without locks."""
    if os.name == "nt":
        return True  # Windows removes no open file, which is lock enough
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network drives know no locks
        return None
    return True


def _remove_if_abandoned(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
        return
    is_old = time.time() - found.st_mtime > _OLD_S
    if os.name == "nt":
        if (path / _LOCK_FILE).exists():
            (path / _LOCK_FILE).unlink()
        elif not is_old:
            return
        shutil.rmtree(path, ignore_errors=True)
        return
    lock = _opened(path)
    try:
        is_free = _lock(lock)
        if is_free or (is_free is None and is_old):
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
