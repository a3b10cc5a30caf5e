"""Reading a DICOM series: which files belong together, and whether they fill a regular grid."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.formats.itk import from_sitk, openable, quiet_itk
from VISTA3DCore.imaging.geometry import lps_to_ras

_FEWEST_SLICES = 3
# Scanners store positions with 2-6 decimals: up to 1 % of irregularity is rounding; above 10 %, shapes suffer.
_ROUNDING, _IRREGULAR, _MISSING = 0.01, 0.1, 1.5
_LARGEST_TILT = np.radians(0.2)


@dataclass(frozen=True)
class _Header:
    """What matters of one DICOM file; lengths in mm, positions in LPS."""

    path: Path
    series: str
    number: str
    description: str
    modality: str
    image_type: str
    size: tuple[int, ...]
    pixel_spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    rescale: tuple[str, str]

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.image_type.upper()

    @property
    def frames(self) -> int:
        return self.size[2] if len(self.size) > 2 else 1


class _Series:
    """Files with the same series UID and orientation."""

    def __init__(self, headers: list[_Header]) -> None:
        self.headers = headers
        self.first = headers[0]
        self.slices = sum(header.frames for header in headers)

    @property
    def title(self) -> str:
        name = " ".join(part for part in (self.first.number, f"'{self.first.description}'") if part)
        return f"{self.first.modality} series {name} ({self.slices} slices)"


def is_dicom(path: Path) -> bool:
    """Whether a file is in the DICOM file format (it has the preamble of PS3.10)."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_series(path: Path) -> tuple[np.ndarray, np.ndarray, str, str | None]:
    """Read the largest CT series of a folder and its subfolders, or the series that one given file belongs to.

    Without any CT the largest series of another modality is read; ``Volume.modality`` tells.

    :raises InputError: if there is no series, several are equally large, or the slices do not form a regular grid.
    """
    folder = path if path.is_dir() else path.parent
    headers = _scan(folder)
    if path.is_file():
        own = [header.series for header in headers if header.path == path]
        headers = [header for header in headers if header.series in own]
    return _load(_choose(headers, path))


def _scan(folder: Path) -> list[_Header]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if not files:
        raise InputError(f"The folder '{folder}' is empty.")
    headers = [header for file in files if is_dicom(file) and (header := _read_header(file)) is not None]
    if not headers:
        raise InputError(
            f"The folder '{folder}' holds no DICOM images; give a folder with a CT series or an image file."
        )
    return headers


def _read_header(path: Path) -> _Header | None:
    """Return the header of a DICOM image, None for other DICOM objects (reports, structure sets, directories)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    try:
        with openable([path]) as (name,):
            reader.SetFileName(name)
            reader.ReadImageInformation()
    except RuntimeError:
        return None

    def text(tag: str) -> str:
        return reader.GetMetaData(tag).strip().strip("\0") if reader.HasMetaDataKey(tag) else ""

    def numbers(tag: str) -> tuple[float, ...]:
        return tuple(float(part) for part in text(tag).split("\\") if part.strip())

    return _Header(
        path=path,
        series=text("0020|000e"),
        number=text("0020|0011"),
        description=text("0008|103e"),
        modality=text("0008|0060"),
        image_type=text("0008|0008"),
        size=tuple(reader.GetSize()),
        pixel_spacing=numbers("0028|0030"),
        orientation=numbers("0020|0037"),
        position=numbers("0020|0032"),
        rescale=(text("0028|1053"), text("0028|1052")),
    )


def _choose(headers: list[_Header], path: Path) -> _Series:
    images = [header for header in headers if not header.is_localizer]
    if not images:
        raise InputError(f"'{path.name}' holds only localizers (scout images); give the CT series itself.")
    groups = defaultdict(list)
    for header in images:
        groups[header.series, tuple(np.round(header.orientation, 2))].append(header)
    series = [_Series(group) for group in groups.values()]
    stacks = [entry for entry in series if entry.slices >= _FEWEST_SLICES]
    if not stacks:
        longest = max(entry.slices for entry in series)
        raise InputError(
            f"The DICOM series in '{path.name}' has only {longest} slice(s); give the folder of a whole CT."
        )
    candidates = [entry for entry in stacks if entry.first.modality == "CT"] or stacks
    return _largest(candidates, len(series))


def _largest(candidates: list[_Series], total: int) -> _Series:
    candidates = sorted(candidates, key=lambda entry: -entry.slices)
    rivals = [entry for entry in candidates if entry.slices == candidates[0].slices]
    if len(rivals) > 1:
        names = "; ".join(f"{entry.title}, e.g. {entry.first.path.name}" for entry in rivals)
        raise InputError(f"The folder holds equally large series: {names}. Give one file of the series to use.")
    if total > 1:
        warnings.warn(f"The folder holds {total} series; the largest is used: {rivals[0].title}.", UserWarning, 2)
    return rivals[0]


def _load(series: _Series) -> tuple[np.ndarray, np.ndarray, str, str | None]:
    name, modality = series.title, series.first.modality or None
    if len(series.headers) == 1:
        array, affine = _read_pixels([series.first], multiframe=True)
        return array, affine, name, modality
    _check_sizes(series)
    headers, affine = _sorted_grid(series)
    array, _ = _read_pixels(headers)
    return array, lps_to_ras(affine), name, modality


def _check_sizes(series: _Series) -> None:
    sizes = Counter((header.size[:2], tuple(np.round(header.pixel_spacing, 4))) for header in series.headers)
    if len(sizes) > 1:
        shown = " and ".join(f"{size[0]} x {size[1]} ({count} slices)" for (size, _), count in sizes.most_common(2))
        raise InputError(f"The {series.title} mixes images of different sizes or pixel spacings: {shown}.")
    if any(
        len(header.position) != 3 or len(header.orientation) != 6 or len(header.pixel_spacing) != 2
        for header in series.headers
    ):
        raise InputError(f"The {series.title} lacks image positions or orientations, so it cannot be placed in space.")


def _sorted_grid(series: _Series) -> tuple[list[_Header], np.ndarray]:
    """Sort the slices along their normal and return their affine, voxel index -> LPS mm."""
    row, column = np.reshape(series.first.orientation, (2, 3))
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    headers = sorted(series.headers, key=lambda header: float(np.dot(header.position, normal)))
    positions = np.array([header.position for header in headers])
    spacing = _slice_spacing(positions @ normal, series)
    _check_tilt(positions[-1] - positions[0], normal, series)
    affine = np.eye(4)
    # PixelSpacing is (between rows, between columns): the column index i runs along the row direction.
    affine[:3, 0] = row * headers[0].pixel_spacing[1]
    affine[:3, 1] = column * headers[0].pixel_spacing[0]
    affine[:3, 2] = normal * spacing
    affine[:3, 3] = positions[0]
    return headers, affine


def _slice_spacing(distances: np.ndarray, series: _Series) -> float:
    steps = np.diff(distances)
    typical = float(np.median(steps))
    if np.min(steps) < 0.01 * max(typical, 1e-3):
        raise InputError(
            f"The {series.title} has several images at the same position (phases or copies); separate them."
        )
    gaps = int(np.sum(np.rint(steps[steps > _MISSING * typical] / typical) - 1))
    if gaps:
        raise InputError(
            f"The {series.title} has missing slices: about {gaps} of {len(steps) + 1 + gaps}. Export it again."
        )
    irregularity = float(np.max(np.abs(steps - typical))) / typical
    if irregularity > _IRREGULAR:
        raise InputError(
            f"The {series.title} has uneven slice distances ({steps.min():.2f} to {steps.max():.2f} mm); "
            "resample it to a regular grid first."
        )
    if irregularity > _ROUNDING:
        warnings.warn(f"The {series.title} has slightly uneven slice distances; their mean is used.", UserWarning, 2)
    return float(distances[-1] - distances[0]) / (len(distances) - 1)


def _check_tilt(stacking: np.ndarray, normal: np.ndarray, series: _Series) -> None:
    tilt = np.arccos(np.clip(np.dot(stacking, normal) / np.linalg.norm(stacking), -1.0, 1.0))
    if tilt > _LARGEST_TILT:
        raise InputError(
            f"The {series.title} was acquired with a gantry tilt of {np.degrees(tilt):.1f} degrees; "
            "resample it to a regular grid first (Slicer: Acquisition geometry regularization)."
        )


def _read_pixels(headers: list[_Header], multiframe: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return HU [i, j, k] and, as ITK sees it, the affine to RAS."""
    # The first slice decides about the type of all; with a rescaling of their own the others may need decimals.
    kind = sitk.sitkFloat32 if len({header.rescale for header in headers}) > 1 else sitk.sitkUnknown
    try:
        with quiet_itk(), openable([header.path for header in headers]) as paths:
            image = sitk.ReadImage(paths[0] if multiframe else paths, outputPixelType=kind, imageIO="GDCMImageIO")
    except RuntimeError as error:
        raise InputError(
            f"The pixels of the DICOM series of '{headers[0].path.name}' cannot be read: a file is damaged or uses an "
            "unsupported compression."
        ) from error
    array, affine = from_sitk(image, headers[0].path.name)
    return _narrowed(array), affine


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Return 32-bit integers (GDCM's type for rescaled pixels) as 16-bit ones where they fit: half the memory."""
    limits = np.iinfo(np.int16)
    fits = array.dtype.kind in "iu" and array.min() >= limits.min and array.max() <= limits.max
    return array.astype(np.int16) if fits else array
