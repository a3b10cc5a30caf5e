"""The result of a segmentation on the grid of the input, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from VISTA3DCore.anatomy import naming
from VISTA3DCore.errors import InputError, UnknownStructureError
from VISTA3DCore.imaging.formats.seg_nrrd import encode_seg_nrrd
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.imaging.output import Encoder, write_files
from VISTA3DCore.imaging.result_files import FORMATS, SEAL, ResultFiles
from VISTA3DCore.imaging.writers import Slices, encode_mha, encode_nifti, encode_nrrd, label_dtype
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.anatomy.catalogue import Structure

__all__ = ["FORMATS", "Partial", "Segmentation"]


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
    :param masks: bool arrays of the structures that may overlap others, by catalogue index; kept as a bit for each
        voxel, so that each access makes a new array.
    :param structures: what was asked for, in order; those without voxels included.
    :param affine: 4x4, voxel index -> RAS mm.
    :param provenance: model, revision, hash, licence, preset, version ...; written into files that can hold it.
    :raises InputError: if the shapes do not agree.
    """

    labels: np.ndarray
    masks: Mapping[int, np.ndarray]
    structures: tuple[Structure, ...]
    affine: np.ndarray
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = np.asarray(self.labels).astype(np.uint16, copy=False)
        self.structures = tuple(self.structures)
        self.affine = np.array(self.affine, dtype=np.float64)
        if self.labels.ndim != 3 or any(shape != self.labels.shape for shape in self._shapes_of_masks()):
            raise InputError("The labels and masks of a segmentation must be three-dimensional and of one shape.")
        self.masks = BitMasks.of(self.masks, self.labels.shape)

    def _plane(self, index: int, k: int) -> np.ndarray:
        """Return slice k of a structure's own mask, bool [i, j]."""
        assert isinstance(self.masks, BitMasks)  # made so by __post_init__
        return self.masks.plane(index, k)

    def _shapes_of_masks(self) -> list[tuple[int, ...]]:
        if isinstance(self.masks, BitMasks):
            return [self.masks.shape]
        return [np.shape(mask) for mask in self.masks.values()]

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
          overlap others becomes a file of its own beside it, ``<stem>_<name>`` with values 0 and 1. If all of them may,
          the first one is in the label map.
        - a folder (``format="separate"``, or a path that ends in ``/`` or is a folder): ``<name>.nii.gz`` for each
          structure, with values 0 and 1. The folder is created; the one above it must exist.

        Masks beside a label map, or in a folder, replace those of an earlier result and no other files.

        :param format: one of :data:`FORMATS` (the dot may be missing) or ``"separate"``; None: from the path.
        :return: the files written.
        :raises OutputError: if the type is unknown, a mask would replace a file that is no part of an earlier result,
            or something cannot be written; nothing is left behind.
        """
        files = self.files(path, format)
        return write_files(self.encoders(files), progress, obsolete=files.obsolete(), folder=files.folder)

    def files(self, path: str | PathLike[str], format: str | None = None) -> ResultFiles:  # noqa: A002
        """Return the files that :meth:`write` writes.

        :raises OutputError: if the type is unknown, or a mask would replace a file that is no part of an earlier
            result.
        """
        files = ResultFiles.of(path, format, self.structures, self.masks)
        files.check()
        return files

    def encoders(self, files: ResultFiles) -> dict[Path, Encoder]:
        """Return what writes each of the files."""
        main = {} if files.is_folder else {files.place: self.encoder(files.suffix)}
        return main | {path: self._mask_encoder(files, structure) for path, structure in files.parts.items()}

    def encoder(self, suffix: str = ".seg.nrrd") -> Encoder:
        """Return what writes everything as ``.seg.nrrd``, or the label map as another type of file."""
        if suffix == ".seg.nrrd":
            return lambda file: encode_seg_nrrd(
                file, self.labels, self.masks, self.structures, self.affine, self.provenance
            )
        return lambda file: self._encode(file, suffix, self._label_map())

    def _label_map(self) -> Slices:
        highest = max((structure.index for structure in self.structures), default=0)
        dtype = label_dtype(max(highest, int(self.labels.max(initial=0))))
        first = next(iter(self.structures), None)
        if first is None or not all(structure.index in self.masks for structure in self.structures):
            return Slices(self.labels.shape, dtype, lambda k: self.labels[:, :, k])

        def plane(k: int) -> np.ndarray:
            return np.where(self._plane(first.index, k), dtype.type(first.index), self.labels[:, :, k])

        return Slices(self.labels.shape, dtype, plane)

    def _mask_encoder(self, files: ResultFiles, structure: Structure) -> Encoder:
        index = structure.index

        def plane(k: int) -> np.ndarray:
            return self._plane(index, k) if index in self.masks else self.labels[:, :, k] == index

        mask = Slices(self.labels.shape, np.dtype(np.uint8), plane)
        return lambda file: self._encode(file, files.suffix, mask, files.seal(mask))

    def _encode(self, file: BinaryIO, suffix: str, image: Slices, seal: str = "") -> None:
        entries = {f"VISTA3D_{key}": str(value) for key, value in self.provenance.items()}
        entries |= {SEAL: seal} if seal else {}
        if suffix == ".nrrd":
            encode_nrrd(file, [image], self.affine, entries)
        elif suffix == ".mha":
            encode_mha(file, image, self.affine, entries)
        else:
            encode_nifti(file, image, self.affine, suffix == ".nii.gz", _description(self.provenance, seal))


def _answers_to(structure: Structure, wanted: str | int) -> bool:
    if not isinstance(wanted, str):
        return structure.index == wanted
    names = (structure.name, structure.display_name, *structure.synonyms)
    return naming.key(wanted) in map(naming.key, names)


def _description(provenance: Mapping[str, str], seal: str) -> str:
    about = " ".join(str(provenance[key]) for key in ("model", "version", "preset") if key in provenance)
    return f"{about[:60]} #{seal}" if seal else about[:79]
