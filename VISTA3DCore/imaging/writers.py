"""Label maps as NIfTI, NRRD and MetaImage, written slice by slice with an affine from voxel index to RAS mm.

Own encoders instead of ITK's, because they report a full disk, need no second copy of the image, and put the exact
affine into the file.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from VISTA3DCore.imaging.formats.compression import gzipped, zlibbed
from VISTA3DCore.imaging.geometry import lps_to_ras, spacing_of

_NIFTI_CODES = {"uint8": 2, "int16": 4, "uint16": 512}
_NRRD_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short"}
#: Where the description is in the header of a NIfTI-1 file.
DESCRIPTION = slice(148, 228)
_META_TYPES = {"uint8": "MET_UCHAR", "uint16": "MET_USHORT"}


class Slices:
    """An image that is made while it is written, one slice after the other.

    :param shape: [i, j, k]. :param dtype: of its voxels.
    :param make: returns the slice [i, j] of an index k.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype, make: Callable[[int], np.ndarray]) -> None:
        self.shape, self.dtype, self._make = tuple(shape), np.dtype(dtype), make

    def at(self, k: int) -> np.ndarray:
        """Return a slice [i, j]."""
        return self._make(k).astype(self.dtype, copy=False)


Image = np.ndarray | Slices


def label_dtype(highest: int) -> np.dtype:
    """Return the smallest type of voxel for labels up to ``highest``."""
    return np.dtype(np.uint8 if highest <= 255 else np.uint16)


def encode_nifti(file: BinaryIO, array: Image, affine: np.ndarray, compressed: bool, description: str = "") -> None:
    """Write a NIfTI-1 image whose sform and qform both hold the affine.

    :param array: [i, j, k]; uint8 or uint16 for label maps, int16 for a CT.
    :param affine: 4x4, voxel index -> RAS mm.
    :param description: up to 79 ASCII characters about the origin of the image.
    """
    header = _nifti_header(array, np.asarray(affine, dtype=np.float64), description)
    pieces = itertools.chain([header], voxel_bytes(array))
    file.writelines(gzipped(pieces) if compressed else pieces)


def _nifti_header(array: Image, affine: np.ndarray, description: str) -> bytes:
    code, bits = _NIFTI_CODES[array.dtype.name], array.dtype.itemsize * 8
    spacing = spacing_of(affine)
    handedness, quaternion = _quaternion(affine[:3, :3] / spacing)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *array.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, handedness, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2  # millimetres
    struct.pack_into("<79s", header, 148, description.encode("ascii", "replace"))
    struct.pack_into("<2h", header, 252, 1, 1)  # qform and sform: scanner coordinates
    struct.pack_into("<6f", header, 256, *quaternion, *affine[:3, 3])
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _quaternion(directions: np.ndarray) -> tuple[float, np.ndarray]:
    """Return NIfTI's qfac (-1 for a left-handed grid) and quaternion b, c, d (with a >= 0) of the closest rotation."""
    handedness = 1.0 if np.linalg.det(directions) > 0 else -1.0
    r = directions * (1.0, 1.0, handedness)
    # The eigenvector of the largest eigenvalue is the quaternion (Bar-Itzhack 2000); stable for every rotation.
    symmetric = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], 0, 0, 0],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], 0, 0],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    quaternion = np.linalg.eigh(symmetric, UPLO="L")[1][:, -1]
    return handedness, quaternion[1:] * (1.0 if quaternion[0] >= 0 else -1.0)


def encode_nrrd(file: BinaryIO, layers: Sequence[Image], affine: np.ndarray, entries: Mapping[str, str]) -> None:
    """Write a gzip-compressed NRRD; several layers become a first, fastest axis of kind ``list``, as in Slicer.

    :param layers: images [i, j, k] of one shape and type (uint8 or uint16).
    :param affine: 4x4, voxel index -> RAS mm.
    :param entries: key/value pairs of the header.
    """
    first = layers[0]
    several = len(layers) > 1
    lps = lps_to_ras(affine)
    sizes = [len(layers), *first.shape] if several else list(first.shape)
    directions = " ".join(_vector(lps[:3, axis]) for axis in range(3))
    lines = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[first.dtype.name]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {'none ' if several else ''}{directions}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
        *(f"{key}:={_one_line(value)}" for key, value in entries.items()),
    ]
    file.write(_utf8("\n".join(lines) + "\n\n"))
    file.writelines(gzipped(_interleaved(layers) if several else voxel_bytes(first)))


def _vector(values: Iterable[float]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _utf8(header: str) -> bytes:
    """Encode a header; bytes of file names that are no text, which Python carries as surrogates, become ``?``."""
    return header.encode("utf-8", "replace")


def _one_line(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def encode_mha(file: BinaryIO, array: Image, affine: np.ndarray, entries: Mapping[str, str]) -> None:
    """Write a compressed MetaImage label map; ``entries`` become fields of its header."""
    data = b"".join(zlibbed(voxel_bytes(array)))
    lps = lps_to_ras(affine)
    spacing = spacing_of(lps)
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": str(len(data)),
        "TransformMatrix": _numbers((lps[:3, :3] / spacing).T.ravel()),
        "Offset": _numbers(lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": _numbers(spacing),
        "DimSize": " ".join(map(str, array.shape)),
        **{key: " ".join(value.split()) for key, value in entries.items()},
        "ElementType": _META_TYPES[array.dtype.name],
        "ElementDataFile": "LOCAL",
    }
    file.write(_utf8("".join(f"{key} = {value}\n" for key, value in fields.items())))
    file.write(data)


def _numbers(values: Iterable[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _slice(image: Image, k: int) -> np.ndarray:
    return image.at(k) if isinstance(image, Slices) else image[:, :, k]


def voxel_bytes(image: Image) -> Iterator[bytes]:
    """Yield the bytes of each slice of an image [i, j, k] as files hold them: i fastest, little-endian."""
    dtype = image.dtype.newbyteorder("<")
    for k in range(image.shape[2]):
        yield _slice(image, k).astype(dtype).tobytes(order="F")


def _interleaved(layers: Sequence[Image]) -> Iterator[bytes]:
    dtype = layers[0].dtype.newbyteorder("<")
    for k in range(layers[0].shape[2]):
        yield np.stack([_slice(layer, k) for layer in layers]).astype(dtype).tobytes(order="F")
