"""Arrays travel as ``.npy`` files in a private directory that the client owns; messages only name them.

Nothing but a regular file directly in that directory is ever opened: names have no separators, links are refused, and
where the platform allows it every file is opened relative to the directory's descriptor, so that exchanging the
directory's path for another one leads nowhere. Files are never unpickled.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import weakref
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from VISTA3DCore.engine.errors import InvalidParamsError
from VISTA3DCore.engine.messages import Affine, ArrayRef
from VISTA3DCore.errors import InputError, OutputError

#: Names of the directories that clients make.
FOLDER_PREFIX = "vista3d-arrays-"
RESULT_PREFIX = "result-"
SUFFIX, PART_SUFFIX = ".npy", ".npy.part"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.npy")
# Windows opens these devices instead of a file, whatever the directory and the suffix.
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_KINDS = "biuf"
# Windows has no descriptors of directories, no O_NOFOLLOW and no permission bits (its temporary folder is private).
_BY_DESCRIPTOR = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_READ = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_WORTH_MAPPING = 4 * 2**20
# What is written at a time: some milliseconds of work.
_STEP_BYTES = 16 * 2**20
# A directory this young may belong to a client that has not locked it yet.
_SETTLED_S = 60.0


class ArrayFolder:
    """A shared directory as both sides see it.

    :param path: an existing directory.
    :param stem: the beginning of the names of files written here.
    :raises InputError: if it is no directory of our own, or if others can read or write it.
    """

    def __init__(self, path: Path, stem: str) -> None:
        self.path, self._stem, self._numbers = path, stem, itertools.count(1)
        self._folder = _open_private(path)

    def put(self, array: np.ndarray, affine: np.ndarray | None = None, name: str | None = None) -> ArrayRef:
        """Write an array (bool, integers or floats); the file appears complete or not at all.

        :param affine: 4x4, voxel index -> RAS mm.
        :param name: of the file; by default a new one.
        :raises OutputError: if it cannot be written, e.g. because the disk is full; nothing is left behind.
        """
        steps = self.put_in_steps(array, affine, name)
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            return stop.value

    def put_in_steps(
        self, array: np.ndarray, affine: np.ndarray | None = None, name: str | None = None
    ) -> Generator[None, None, ArrayRef]:
        """As :meth:`put`, a piece at a time; closing the generator before its end leaves nothing behind."""
        array = np.asarray(array)
        if array.dtype.kind not in _KINDS:
            raise InputError(f"An array of type {array.dtype} cannot be sent to the engine; real numbers are needed.")
        name = _checked(name or f"{self._stem}{next(self._numbers)}{SUFFIX}")
        place = None if affine is None else _rows(affine)
        try:
            yield from self._write(array, name)
        except OSError as error:
            reason = error.strerror or "the disk may be full"
            raise OutputError(
                "An array cannot be written to '{folder}' ({reason})",
                hint="free-temporary-space",
                facts={"folder": str(self.path), "reason": reason},
            ) from error
        return ArrayRef(name, array.shape, array.dtype.name, place)

    def get(self, ref: ArrayRef) -> np.ndarray:
        """Return an array, mapped read-only.

        :raises InvalidParamsError: if there is no such file, or it does not hold what the reference says.
        """
        return self._map(ref, "r")

    def stamp(self, ref: ArrayRef) -> tuple[int, ...]:
        """Return numbers that change when an array's file is replaced by another one.

        :raises InvalidParamsError: if there is no such file.
        """
        name = _checked(ref.file)
        try:
            found = os.lstat(self._at(name)) if self._folder is None else os.lstat(name, dir_fd=self._folder)
        except OSError as error:
            raise InvalidParamsError(f"The array file '{name}' cannot be opened ({error.strerror}).") from error
        return found.st_ino, found.st_size, found.st_mtime_ns

    def delete(self, name: str) -> None:
        """Delete a file if it is there.

        :raises InvalidParamsError: if the name is none of an array file.
        """
        self._unlink(_checked(name))

    def remove(self) -> None:
        """Delete the arrays and the directory; what others put there stays."""
        for name in self._names():
            if name.endswith((SUFFIX, PART_SUFFIX)):
                self._unlink(name)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def close(self) -> None:
        """Let the directory go; arrays from :meth:`get` stay valid."""
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)

    def _write(self, array: np.ndarray, name: str) -> Iterator[None]:
        part = name.removesuffix(SUFFIX) + PART_SUFFIX
        self._unlink(part)
        try:
            with os.fdopen(os.open(self._at(part), _CREATE, 0o600, dir_fd=self._folder), "wb") as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                for piece in _pieces(array):
                    file.write(piece)
                    yield
            os.replace(self._at(part), self._at(name), src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            self._unlink(part)
            raise

    def _map(self, ref: ArrayRef, mode: Literal["r", "r+", "c"]) -> np.ndarray:
        with self._open(_checked(ref.file)) as file:
            try:
                shape, fortran, dtype = _read_header(file)
                _check_content(ref, shape, dtype)
                order: Literal["F", "C"] = "F" if fortran else "C"
                if 0 in shape:
                    return np.zeros(shape, dtype, order)
                # The mapping outlives the descriptor.
                return np.memmap(file, dtype, mode, file.tell(), shape, order).view(np.ndarray)
            except (OSError, ValueError, EOFError) as error:
                raise InvalidParamsError(f"The array file '{ref.file}' is damaged ({error}).") from error

    def _open(self, name: str) -> BinaryIO:
        try:
            if not _BY_DESCRIPTOR:
                _require_regular(os.lstat(self._at(name)), name)
            file = os.fdopen(os.open(self._at(name), _READ, dir_fd=self._folder), "rb")
        except OSError as error:
            raise InvalidParamsError(f"The array file '{name}' cannot be opened ({error.strerror}).") from error
        try:
            _require_regular(os.fstat(file.fileno()), name)
        except InvalidParamsError:
            file.close()
            raise
        return file

    def _unlink(self, name: str) -> None:
        # Windows refuses while somebody maps the file; it then goes with the directory.
        with contextlib.suppress(OSError):
            os.unlink(self._at(name), dir_fd=self._folder)

    def _names(self) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(self.path if self._folder is None else self._folder)  # noqa: PTH208
        return []

    def _at(self, name: str) -> str:
        return name if self._folder is not None else str(self.path / name)


class SharedDirectory(ArrayFolder):
    """The client's side: makes the directory (0700), owns it and removes it, at the latest when the interpreter exits.

    What a client leaves that was killed together with its engine is removed by the next client.

    :param base: where to make it; by default the platform's folder for temporary files.
    :raises OutputError: if it cannot be made.
    """

    def __init__(self, base: str | os.PathLike[str] | None = None) -> None:
        import tempfile

        try:
            path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
        except OSError as error:
            place = base or tempfile.gettempdir()
            raise OutputError(f"A folder for arrays cannot be made in '{place}' ({error.strerror}).") from error
        super().__init__(path, "array-")
        if self._folder is not None:
            _lock(self._folder)
        self._finalizer = weakref.finalize(self, _remove_own, path, os.getpid())
        remove_abandoned(path.parent)

    @classmethod
    def create(cls, base: str | os.PathLike[str] | None = None) -> SharedDirectory:
        """Make a directory; see the class."""
        return cls(base)

    def __enter__(self) -> SharedDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, ref: ArrayRef) -> np.ndarray:
        """Return a result as a writable array of its own, and delete its file.

        :raises InvalidParamsError: as :meth:`get` does.
        """
        array = self._map(ref, "c")
        # A mapping holds a descriptor, so it must be worth it; and Windows deletes no file that is mapped.
        if array.nbytes <= _WORTH_MAPPING or not _BY_DESCRIPTOR:
            array = array.copy(order="K")
        self.delete(ref.file)
        return array

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Delete what a killed engine left: results that were never announced, halves of files.

        :param keep: names of results that are still wanted.
        """
        for name in self._names():
            if name.startswith(RESULT_PREFIX) and name not in keep:
                self._unlink(name)

    def close(self) -> None:
        """Delete the directory with everything in it; mapped arrays stay valid, except on Windows."""
        if self._finalizer.detach() is not None:
            _remove_own(self.path, os.getpid())
        super().close()


def open_shared(path: str | os.PathLike[str]) -> ArrayFolder:
    """Return the engine's side of the directory that ``initialize`` names.

    :raises InputError: if it is not there, not our own, a link, or if others can read or write it.
    """
    return ArrayFolder(Path(path), f"{RESULT_PREFIX}{os.getpid()}-")


def remove_abandoned(base: Path) -> None:
    """Remove directories whose clients are gone; those of running ones are locked. POSIX only."""
    if not _BY_DESCRIPTOR:
        return
    for path in _settled_folders(base):
        with contextlib.suppress(OSError, InputError):
            folder = ArrayFolder(path, "")
            try:
                if folder._folder is not None and _lock(folder._folder):
                    folder.remove()
            finally:
                folder.close()


def _settled_folders(base: Path) -> Iterator[Path]:
    import time

    limit = time.time() - _SETTLED_S
    with contextlib.suppress(OSError):
        for path in list(base.glob(f"{FOLDER_PREFIX}????????")):
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime < limit:
                    yield path


def _lock(folder: int) -> bool:
    """Lock a directory for as long as this process lives; return whether it was free."""
    import fcntl

    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_own(path: Path, pid: int) -> None:
    """Remove a directory that the process ``pid`` made."""
    if pid == os.getpid():  # a forked child is not the owner
        import shutil

        shutil.rmtree(path, ignore_errors=True)  # follows no links


def _open_private(path: Path) -> int | None:
    """Return a descriptor of a directory that only we can use; None on Windows.

    :raises InputError: if it is another kind of place.
    """
    refused = f"The shared directory '{path}' cannot be used"
    try:
        if not _BY_DESCRIPTOR:
            if not stat.S_ISDIR(os.lstat(path).st_mode) or _is_reparse_point(os.lstat(path)):
                raise InputError(f"{refused}: it is no directory.")
            return None
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise InputError(f"{refused} ({getattr(error, 'strerror', None) or error}).") from error
    found = os.fstat(folder)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(folder)
        raise InputError(f"{refused}: others can read or write it; it must be the user's own, with mode 0700.")
    return folder


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or _DEVICE.fullmatch(name):
        raise InvalidParamsError(f"{name[:120]!r} is not the name of an array file.")
    return name


def _require_regular(found: os.stat_result, name: str) -> None:
    # A second name of the file would be a way out of the directory, too.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or _is_reparse_point(found):
        raise InvalidParamsError(f"The array file '{name}' is a link or no regular file.")


def _is_reparse_point(found: os.stat_result) -> bool:
    return bool(getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format is not supported")
    return readers[version](file)


def _check_content(ref: ArrayRef, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if dtype.kind not in _KINDS:
        raise InvalidParamsError(f"The array file '{ref.file}' does not hold real numbers.")
    if shape != tuple(ref.shape) or dtype.name != ref.dtype:
        raise InvalidParamsError(
            f"The array file '{ref.file}' holds {dtype.name} {shape}, not {ref.dtype} {tuple(ref.shape)} as announced."
        )


def _pieces(array: np.ndarray) -> Iterator[memoryview]:
    """Cut an array's bytes, in the order in which the format wants them."""
    if array.flags.c_contiguous or array.flags.f_contiguous:
        values = array.reshape(-1, order="A").view(np.uint8)
        yield from (values[start : start + _STEP_BYTES].data for start in range(0, len(values), _STEP_BYTES))
        return
    rows = max(1, _STEP_BYTES * len(array) // max(array.nbytes, 1))
    for start in range(0, len(array), rows):
        yield np.ascontiguousarray(array[start : start + rows]).reshape(-1).view(np.uint8).data


def _rows(affine: np.ndarray) -> Affine:
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.all(np.isfinite(affine)):
        raise InputError("The affine of an array is not a valid 4x4 matrix.")
    return cast("Affine", tuple(map(tuple, affine.tolist())))
