"""The result of a segmentation on the grid of the input, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from VISTA3DCore.anatomy import naming
from VISTA3DCore.errors import InputError, OutputError, UnknownStructureError
from VISTA3DCore.imaging.output import Encoder, write_files
from VISTA3DCore.imaging.seg_nrrd import encode_seg_nrrd
from VISTA3DCore.imaging.writers import encode_mha, encode_nifti, encode_nrrd, label_dtype
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Structure

#: Formats by file name ending; the first that fits counts.
FORMATS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
SEPARATE = "separate"


@dataclass(frozen=True, eq=False)
class Partial:
    """What is known of a result while windows run.

    :param fraction: the windows that have run, of all; 0: coarse labels only.
    :param segmentation: makes the segmentation as it is now; takes about as long as reading a volume.
    """

    fraction: float
    segmentation: Callable[[], Segmentation]


@dataclass
class Segmentation:
    """Which voxel belongs to which structure.

    :param labels: [i, j, k] of the input grid, value = catalogue index, 0 = background (kept as uint16).
    :param masks: bool arrays of the structures that may overlap others, by catalogue index.
    :param structures: what was asked for, in order; those without voxels included.
    :param affine: 4x4, voxel index -> RAS mm.
    :param provenance: model, revision, hash, licence, preset, version ...; written into files that can hold it.
    :raises InputError: if the shapes do not agree.
    """

    labels: np.ndarray
    masks: dict[int, np.ndarray]
    structures: tuple[Structure, ...]
    affine: np.ndarray
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels).astype(np.uint16, copy=False)
        self.masks = {int(index): np.asarray(mask).astype(bool, copy=False) for index, mask in self.masks.items()}
        self.structures = tuple(self.structures)
        self.affine = np.array(self.affine, dtype=np.float64)
        if self.labels.ndim != 3 or any(mask.shape != self.labels.shape for mask in self.masks.values()):
            raise InputError("The labels and masks of a segmentation must be three-dimensional and of one shape.")

    def structure(self, key: str | int | Structure) -> Structure:
        """Return one of the structures by index, official name, display name or synonym.

        :raises UnknownStructureError: if it was not segmented.
        """
        wanted = key if isinstance(key, (str, int, np.integer)) else key.index
        for structure in self.structures:
            if _answers_to(structure, wanted):
                return structure
        held = ", ".join(structure.name for structure in self.structures[:8])
        more = ", ..." if len(self.structures) > 8 else ""
        raise UnknownStructureError(f"'{wanted}' is not in this segmentation; it holds: {held}{more}.")

    def __getitem__(self, key: str | int | Structure) -> np.ndarray:
        """Return the structure's voxels as a bool array [i, j, k].

        :raises UnknownStructureError: if it was not segmented.
        """
        index = self.structure(key).index
        mask = self.masks.get(index)
        return self.labels == index if mask is None else mask

    def write(
        self,
        path: str | PathLike[str],
        format: str | None = None,  # noqa: A002
        progress: Progress | None = None,
    ) -> list[Path]:
        """Write the segmentation; every file appears complete or not at all, several only together.

        - ``.seg.nrrd``: one segment per structure, with names, colours, terminology, overlaps and provenance.
        - ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``: one label map, value = catalogue index; each structure that may
          overlap others becomes a file of its own beside it, ``<stem>_<name>`` with values 0 and 1.
        - a folder (``format="separate"``, or a path that ends in ``/`` or is a folder): ``<name>.nii.gz`` for each
          structure, with values 0 and 1. The folder is created; the one above it must exist.

        :param format: one of :data:`FORMATS` (the dot may be missing) or ``"separate"``; None: from the path.
        :return: the files written.
        :raises OutputError: if the type is unknown or something cannot be written; nothing is left behind.
        """
        folder = str(path).endswith(("/", "\\")) or Path(path).expanduser().is_dir()
        path = Path(path).expanduser()
        if format == SEPARATE or (format is None and folder):
            return _write_folder(path, self, progress)
        suffix = _suffix(path, format)
        files = {path: self._encoder(suffix)}
        if suffix != ".seg.nrrd":
            files |= self._overlap_files(path, suffix)
        write_files(files, progress)
        return list(files)

    def _encoder(self, suffix: str) -> Encoder:
        if suffix == ".seg.nrrd":
            return lambda file: encode_seg_nrrd(
                file, self.labels, self.masks, self.structures, self.affine, self.provenance
            )
        highest = max((structure.index for structure in self.structures), default=0)
        dtype = label_dtype(max(highest, int(self.labels.max(initial=0))))
        return self._array_encoder(suffix, lambda: self.labels.astype(dtype, copy=False))

    def _mask_encoder(self, suffix: str, structure: Structure) -> Encoder:
        return self._array_encoder(suffix, lambda: self[structure].view(np.uint8))

    def _array_encoder(self, suffix: str, array: Callable[[], np.ndarray]) -> Encoder:
        """Return the writer of one array, which is made only when its turn has come."""
        entries = {f"VISTA3D_{key}": str(value) for key, value in self.provenance.items()}

        def encode(file: BinaryIO) -> None:
            if suffix == ".nrrd":
                encode_nrrd(file, [array()], self.affine, entries)
            elif suffix == ".mha":
                encode_mha(file, array(), self.affine, entries)
            else:
                encode_nifti(file, array(), self.affine, suffix == ".nii.gz", _description(self.provenance))

        return encode

    def _overlap_files(self, path: Path, suffix: str) -> Mapping[Path, Encoder]:
        stem = path.name[: -len(suffix)] if path.name.lower().endswith(suffix) else path.name
        return {
            path.with_name(f"{stem}_{_file_name(structure)}{suffix}"): self._mask_encoder(suffix, structure)
            for structure in self.structures
            if structure.index in self.masks
        }


def _write_folder(folder: Path, segmentation: Segmentation, progress: Progress | None) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file; give a folder for one file per structure.")
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder '{folder}' cannot be created ({error.strerror}).") from error
    files = {
        folder / f"{_file_name(structure)}.nii.gz": segmentation._mask_encoder(".nii.gz", structure)
        for structure in segmentation.structures
    }
    try:
        write_files(files, progress)
    except BaseException:
        if made:
            folder.rmdir()
        raise
    return list(files)


def _suffix(path: Path, format: str | None) -> str:  # noqa: A002
    name = path.name.lower() if format is None else f".{format.lower().lstrip('.')}"
    for suffix in FORMATS:
        if name.endswith(suffix):
            return suffix
    asked = f"'{path.name}'" if format is None else f"The format '{format}'"
    raise OutputError(f"{asked} is not a known type of file; use {', '.join(FORMATS)}, or a folder.")


def _answers_to(structure: Structure, wanted: str | int) -> bool:
    if not isinstance(wanted, str):
        return structure.index == wanted
    names = (structure.name, structure.display_name, *structure.synonyms)
    return naming.key(wanted) in map(naming.key, names)


def _file_name(structure: Structure) -> str:
    return "".join(character if character.isalnum() else "_" for character in structure.name)


def _description(provenance: Mapping[str, str]) -> str:
    return " ".join(str(provenance[key]) for key in ("model", "version", "preset") if key in provenance)[:79]
