"""Which files a segmentation becomes, and how those that the user did not name are told from files of others.

A label map holds each voxel once, so structures that overlap others become masks beside it; a folder holds masks alone.
Each of these masks carries a seal: a checksum of its voxels and of the name that the user gave. Only a mask whose seal
fits is a part of the result that is replaced; everything else in its place belongs to somebody and stays.
"""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from VISTA3DCore.errors import InputError, OutputError
from VISTA3DCore.imaging.formats.nifti import read_nifti
from VISTA3DCore.imaging.writers import DESCRIPTION, Image, voxel_bytes
from VISTA3DCore.paths import expanded

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.structure import Structure

#: Formats by file name ending; the first that fits counts.
FORMATS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
SEPARATE = "separate"
SEAL = "VISTA3D_seal"

_SEAL = re.compile(rb"(?:#|VISTA3D_seal\s*:?=\s*)([0-9a-f]{16})(?![0-9a-f])")
_HEADER_BYTES = 1 << 16
_LONGEST_NAME = 60  # letters; of four bytes each, a file system that takes 255 bytes still has room for the stem


@dataclass(frozen=True)
class ResultFiles:
    """The files of one segmentation.

    :param place: the file or folder that the user named.
    :param suffix: one of :data:`FORMATS`, of every file.
    :param parts: the masks beside a label map, or in a folder: which structure each holds.
    :param is_folder: whether ``place`` is a folder.
    """

    place: Path
    suffix: str
    parts: dict[Path, Structure]
    is_folder: bool = False

    @classmethod
    def of(
        cls,
        path: str | PathLike[str],
        format: str | None,  # noqa: A002
        structures: Sequence[Structure],
        overlapping: Collection[int],
    ) -> ResultFiles:
        """Name the files of a segmentation.

        Beside a label map there is a mask for each structure that may overlap others; if all of them may, the label map
        holds the first one.

        :param format: see :meth:`VISTA3DCore.imaging.segmentation.Segmentation.write`.
        :param overlapping: indices of the structures that may overlap others.
        :raises OutputError: if the type of file is unknown.
        """
        place = expanded(path)
        if format == SEPARATE or (format is None and (str(path).endswith(("/", "\\")) or place.is_dir())):
            names = zip(_file_names(structures), structures, strict=True)
            parts = {place / f"{name}.nii.gz": structure for name, structure in names}
            return cls(place, ".nii.gz", parts, is_folder=True)
        suffix = suffix_of(place, format)
        apart = [structure for structure in structures if structure.index in overlapping]
        if len(apart) == len(structures):
            apart = apart[1:]
        stem = place.name[: -len(suffix)] if place.name.lower().endswith(suffix) else place.name
        beside = [] if suffix == ".seg.nrrd" else apart
        names = zip(_file_names(beside), beside, strict=True)
        return cls(place, suffix, {place.with_name(f"{stem}_{name}{suffix}"): structure for name, structure in names})

    @property
    def folder(self) -> Path | None:
        """The folder that the user named, or None."""
        return self.place if self.is_folder else None

    def check(self) -> None:
        """Check that no file is replaced, and none is left among the new ones, that the user did not name.

        :raises OutputError: naming such a file, and what to do.
        """
        for path in self.parts:
            if path.exists() and not self._is_own(path):
                kind = "" if self.is_folder else "; or write a .seg.nrrd file, which holds everything"
                raise OutputError(
                    f"'{path}' exists and would be replaced, although it is no part of an earlier result here; move it,"
                    f" or choose another name for the output{kind}."
                )
        if self.is_folder and (rest := self._own_rest(self.place.glob("*.nii.gz"))):
            raise OutputError(
                f"The folder '{self.place}' holds masks of an earlier run that this one would not replace "
                f"({_listed(rest)}); remove them, or choose another folder."
            )

    def obsolete(self) -> list[Path]:
        """Return masks of the label map that is replaced which the new one does not have."""
        if self.is_folder or self.suffix == ".seg.nrrd":
            return []
        stem = self.place.name[: -len(self.suffix)]
        return self._own_rest(self.place.parent.glob(f"{glob.escape(stem)}_*{self.suffix}"))

    def seal(self, mask: Image) -> str:
        """Return what marks a mask as a part of this result: 16 characters.

        :param mask: its voxels [i, j, k], uint8.
        """
        return f"{_checksum(voxel_bytes(mask))}{self._owner}"

    @property
    def _owner(self) -> str:
        name = "/" if self.is_folder else self.place.name
        return _checksum([name.encode("utf-8", "surrogateescape")])

    def _own_rest(self, paths: Iterable[Path]) -> list[Path]:
        return sorted(path for path in paths if path not in self.parts and self._is_own(path))

    def _is_own(self, path: Path) -> bool:
        """Whether a file is a mask of this result exactly as it was written."""
        try:
            voxels, seal = _voxels_and_seal(path)
        except (OSError, EOFError, zlib.error, InputError):
            return False
        return seal is not None and seal[8:] == self._owner and seal[:8] == _checksum(voxels())


def suffix_of(path: Path, format: str | None) -> str:  # noqa: A002
    """Return the type of a file, by its format or else its name.

    :raises OutputError: if it is none of :data:`FORMATS`.
    """
    name = path.name.lower() if format is None else f".{format.lower().lstrip('.')}"
    for suffix in FORMATS:
        if name.endswith(suffix):
            return suffix
    asked = f"'{path.name}'" if format is None else f"The format '{format}'"
    raise OutputError(f"{asked} is not a known type of file; use {', '.join(FORMATS)}, or a folder.")


def _file_names(structures: Sequence[Structure]) -> list[str]:
    """Return a name for each structure that every file system can hold; no two differ by upper and lower case alone."""
    names: dict[str, str] = {}
    for structure in structures:
        plain = "".join(letter if letter.isalnum() else "_" for letter in structure.name)[:_LONGEST_NAME]
        name, number = plain or str(structure.index), 2
        while name.casefold() in names:
            name, number = f"{plain}_{number}", number + 1
        names[name.casefold()] = name
    return list(names.values())


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")


def _checksum(pieces: Iterable[bytes]) -> str:
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return f"{value:08x}"


def _voxels_and_seal(path: Path) -> tuple[Callable[[], Iterable[bytes]], str | None]:
    """Return how to read the voxels of a mask, and the seal in its header."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if compressed else path.open("rb") as opened:
        header = opened.read(_HEADER_BYTES)
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    found = _SEAL.search(header[DESCRIPTION] if is_nifti else header)

    def voxels() -> Iterable[bytes]:
        if is_nifti:
            return voxel_bytes(read_nifti(path)[0])
        # SimpleITK, which Slicer's own process does without, is loaded when it is needed.
        from VISTA3DCore.imaging.formats.itk import read_with_itk

        return voxel_bytes(read_with_itk(path)[0])

    return voxels, found and found[1].decode()
