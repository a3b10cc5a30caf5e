"""Reading NIfTI-1 and NIfTI-2 files (.nii, .nii.gz).

ITK would do most of it, but it reads a truncated file as if its missing end were zeros, and it refuses affines that are
not exactly orthonormal. The affine is taken as nibabel, hence MONAI, takes it: sform, else qform.
"""

from __future__ import annotations

import gzip
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import SHEAR_LIMIT, shear_of, spacing_of

# NIfTI-1 datatype codes of real scalars (nifti1.h).
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOUR_CODES = (128, 2304)
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class _Layout:
    """Where a NIfTI version keeps its fields: total size and (offset, struct format) of each."""

    size: int
    fields: dict[str, tuple[int, str]]


_LAYOUTS = {
    1: _Layout(
        348,
        {
            "dim": (40, "8h"),
            "datatype": (70, "h"),
            "pixdim": (76, "8f"),
            "vox_offset": (108, "f"),
            "scaling": (112, "2f"),
            "codes": (252, "2h"),
            "quaternion": (256, "3f"),
            "qoffset": (268, "3f"),
            "sform": (280, "12f"),
        },
    ),
    2: _Layout(
        540,
        {
            "dim": (16, "8q"),
            "datatype": (12, "h"),
            "pixdim": (104, "8d"),
            "vox_offset": (168, "q"),
            "scaling": (176, "2d"),
            "codes": (344, "2i"),
            "quaternion": (352, "3d"),
            "qoffset": (376, "3d"),
            "sform": (400, "12d"),
        },
    ),
}


def is_nifti(path: Path) -> bool:
    """Whether the file is a single-file NIfTI, whatever its name; an unreadable gzip file named .nii.gz is one too."""
    try:
        with _opened(path) as file:
            return _version_and_order(file.read(348)) is not None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return path.name.lower().endswith(".nii.gz")


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI file.

    :return: array in the file's axis order (Fortran memory order; float32 if the file scales its values, else the
        stored type) and the affine, voxel index -> RAS mm. Trailing axes of length 1 beyond the third are dropped.
    :raises InputError: if the file is damaged, truncated, or not a scalar image.
    """
    try:
        with _opened(path) as file:
            header, order = _read_header(file, path)
            array = _read_array(file, header, order, path)
            while file.read(_CHUNK_BYTES):
                pass  # gzip compares its checksum only at the end of the stream
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise InputError(f"'{path.name}' is damaged or incomplete; download or copy it again.") from error
    return array, _affine(header, path)


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb") if compressed else path.open("rb"))


def _version_and_order(start: bytes) -> tuple[int, str] | None:
    for version, layout in _LAYOUTS.items():
        magic = start[344:348] if version == 1 else start[4:8]
        if magic[:3] == b"n+%d" % version:
            return version, "<" if struct.unpack("<i", start[:4])[0] == layout.size else ">"
    return None


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, tuple], str]:
    start = file.read(348)
    found = _version_and_order(start)
    if found is None:
        raise InputError(f"'{path.name}' is not a NIfTI file.")
    version, order = found
    layout = _LAYOUTS[version]
    start += file.read(layout.size - len(start))
    header = {name: struct.unpack_from(order + form, start, at) for name, (at, form) in layout.fields.items()}
    file.read(max(0, int(header["vox_offset"][0]) - layout.size))
    return header, order


def _shape(header: dict[str, tuple], path: Path) -> tuple[int, ...]:
    dim = header["dim"]
    shape = dim[1 : 1 + dim[0]] if 1 <= dim[0] <= 7 else ()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(f"'{path.name}' has {len(shape)} dimensions; a volume with three is needed.")
    if min(shape) < 1:
        raise InputError(f"'{path.name}' has no voxels (its size is {' x '.join(map(str, shape))}).")
    return shape


def _read_array(file: BinaryIO, header: dict[str, tuple], order: str, path: Path) -> np.ndarray:
    code = header["datatype"][0]
    if code not in _DTYPES:
        kind = "a color image" if code in _COLOUR_CODES else f"of an unsupported type (code {code})"
        raise InputError(f"'{path.name}' is {kind}; a CT in Hounsfield units is needed.")
    shape = _shape(header, path)
    dtype = np.dtype(order + _DTYPES[code])
    raw = _read_exactly(file, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, path)
    array = raw.view(dtype).reshape(shape, order="F")
    return _scaled(array.astype(dtype.newbyteorder("="), copy=False), *header["scaling"])


def _read_exactly(file: BinaryIO, count: int, path: Path) -> np.ndarray:
    """Read ``count`` bytes in chunks that grow with the data, so that a wrong header cannot exhaust the memory."""
    data = bytearray()
    while len(data) < count:
        chunk = file.read(min(count - len(data), _CHUNK_BYTES))
        if not chunk:
            missing = count - len(data)
            raise InputError(
                f"'{path.name}' is incomplete ({missing:,} of {count:,} bytes are missing); download or copy it again."
            )
        data += chunk
    return np.frombuffer(data, dtype=np.uint8)


def _scaled(array: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if slope == 0.0 or not np.isfinite([slope, intercept]).all() or (slope, intercept) == (1.0, 0.0):
        return array
    result = np.empty(array.shape, dtype=np.float32, order="F")
    for k in range(array.shape[2]):
        result[:, :, k] = array[:, :, k] * np.float64(slope) + np.float64(intercept)
    return result


def _affine(header: dict[str, tuple], path: Path) -> np.ndarray:
    qform_code, sform_code = header["codes"]
    sform = np.vstack([np.reshape(header["sform"], (3, 4)), (0.0, 0.0, 0.0, 1.0)]).astype(np.float64)
    if sform_code > 0 and (qform_code <= 0 or _is_regular(sform)):
        if qform_code > 0:
            # A qform that nobody uses may be as wrong as it likes.
            with suppress(InputError):
                _warn_if_different(sform, _qform(header, path), header["dim"][1:4], path)
        return sform
    if qform_code > 0:
        if sform_code > 0:
            warnings.warn(f"The sform of '{path.name}' is not a regular grid; its qform is used.", UserWarning, 2)
        return _qform(header, path)
    x, y, z = _spacing(header, path)
    return np.diag([-x, -y, z, 1.0])  # ITK's choice for a header without orientation: axes along L, P, S


def _is_regular(affine: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(affine)) and np.all(spacing_of(affine) > 0) and shear_of(affine) <= SHEAR_LIMIT)


def _warn_if_different(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...], path: Path) -> None:
    corner = np.append(np.array(shape) - 1.0, 1.0)
    distance = max(np.linalg.norm((sform - qform) @ corner), np.linalg.norm((sform - qform)[:3, 3]))
    if distance > 0.5:
        warnings.warn(
            f"The sform and qform of '{path.name}' differ by up to {distance:.1f} mm; the sform is used.",
            UserWarning,
            2,
        )


def _spacing(header: dict[str, tuple], path: Path) -> np.ndarray:
    spacing = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not np.all(spacing > 0):
        sizes = " x ".join(f"{length:g}" for length in spacing)
        raise InputError(f"'{path.name}' has a voxel spacing of {sizes} mm; correct its header.")
    return spacing


def _qform(header: dict[str, tuple], path: Path) -> np.ndarray:
    """Return the affine of the quaternion fields (nifti1.h, method 2)."""
    b, c, d = (float(value) for value in header["quaternion"])
    remainder = 1.0 - (b * b + c * c + d * d)
    if remainder < -1e-6 or not np.isfinite(remainder):
        raise InputError(f"'{path.name}' has an invalid orientation (qform); correct its header.")
    a = float(np.sqrt(max(remainder, 0.0)))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handedness = -1.0 if header["pixdim"][0] < 0 else 1.0
    result = np.eye(4)
    result[:3, :3] = rotation * _spacing(header, path) * (1.0, 1.0, handedness)
    result[:3, 3] = header["qoffset"]
    return result
