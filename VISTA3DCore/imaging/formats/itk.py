"""What SimpleITK reads, in our convention."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import lps_to_ras

# Types of header whose voxels are in files beside them.
_DETACHED = (".mhd", ".nhdr")


def read_with_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a file of a format that ITK knows: array [i, j, k] and affine to RAS.

    :raises InputError: if it is not a scalar volume or damaged.
    """
    return from_sitk(_image(path), path.name)


def read_layers(path: Path) -> tuple[list[np.ndarray], np.ndarray, dict[str, str]]:
    """Read a file whose voxels may hold several values, such as a segmentation with overlapping layers.

    :return: one array [i, j, k] for each value of a voxel, the affine to RAS mm, and the header's keys and values.
    :raises InputError: if it is not a volume or damaged.
    """
    image = _image(path)
    entries = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    if image.GetNumberOfComponentsPerPixel() == 1:
        array, affine = from_sitk(image, path.name)
        return [array], affine, entries
    if image.GetDimension() != 3:
        raise InputError(f"'{path.name}' has {image.GetDimension()} dimensions; a volume with three is needed.")
    return list(sitk.GetArrayFromImage(image).T), _affine_of(image), entries


def _image(path: Path) -> sitk.Image:
    try:
        with quiet_itk(), openable([path]) as (name,):
            return sitk.ReadImage(name)
    except RuntimeError as error:
        raise InputError(_reason(path, str(error))) from error


def from_sitk(image: sitk.Image, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return array [i, j, k] and affine to RAS of a SimpleITK image; trailing axes of length 1 are dropped.

    :raises InputError: if it is not a scalar volume.
    """
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"'{name}' is a color or vector image; a CT in Hounsfield units is needed.")
    if image.GetDimension() != 3:
        raise InputError(f"'{name}' has {image.GetDimension()} dimensions; a volume with three is needed.")
    return sitk.GetArrayFromImage(image).T, _affine_of(image)


def _affine_of(image: sitk.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return lps_to_ras(affine)


def _reason(path: Path, message: str) -> str:
    """Turn ITK's message into a sentence for people."""
    if "spacing" in message:
        return f"'{path.name}' has an unusable voxel spacing (zero or negative); correct its header."
    if "determinant" in message or "direction" in message.lower():
        return f"'{path.name}' has a singular orientation matrix; correct its header."
    if "size is zero" in message:
        return f"'{path.name}' has no voxels."
    return f"'{path.name}' cannot be read: it is damaged, or not an image (NIfTI, NRRD, MHA/MHD, DICOM)."


@contextlib.contextmanager
def openable(paths: Sequence[Path]) -> Iterator[list[str]]:
    """Give names under which ITK finds files, in the same order.

    ITK takes names as UTF-8 alone; a byte that is none, or another encoding of the file system, would end the process.
    Links in a temporary folder stand for such files.

    :raises InputError: if links cannot be made.
    """
    if all(map(_is_utf8, paths)):
        yield [str(path) for path in paths]
        return
    with tempfile.TemporaryDirectory(prefix="vista3d-links-") as folder:
        try:
            names = [str(path if _is_utf8(path) else _linked(path, Path(folder))) for path in paths]
        except OSError as error:
            raise InputError(f"The path '{paths[0]}' holds a letter that is not UTF-8; rename it.") from error
        yield names


def _is_utf8(path: Path) -> bool:
    try:
        return str(path).encode("utf-8") == os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _linked(path: Path, folder: Path) -> Path:
    """Link a file, with its folder where the name allows that: a header may name other files there."""
    number = len(os.listdir(folder))  # noqa: PTH208 - of names alone
    if _is_utf8(Path(path.name)):
        link, file = folder / str(number), path.name
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        return link / file
    place = folder / str(number)
    place.mkdir()
    if path.suffix.lower() in _DETACHED:
        for beside in path.absolute().parent.iterdir():
            (place / beside.name).symlink_to(beside)
    link = place / f"image{path.suffix}"
    link.symlink_to(path.absolute())
    return link


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings off the terminal; errors are raised all the same."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
