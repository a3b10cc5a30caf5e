"""The demonstration CT: a real abdomen that a public Python package carries, or a synthetic phantom.

The CT and its labels are test files in the source distribution of TotalSegmentator 2.18.0 (Apache-2.0). The labels are
predictions of TotalSegmentator's 3 mm model, no expert's contours: a Dice against them is agreement with that program.
"""

from __future__ import annotations

import gzip
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import UnknownStructureError
from VISTA3DCore.imaging.packages import DataPackage, fetch_files
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.paths import user_data_dir
from VISTA3DCore.progress import Progress

CT_FILE, LABEL_FILE = "example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"
_FOLDER = "totalsegmentator-2.18.0/tests/reference_files"
PACKAGE = DataPackage(
    name="totalsegmentator",
    version="2.18.0",
    archive="totalsegmentator-2.18.0.tar.gz",
    sha256="5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    members={
        f"{_FOLDER}/{CT_FILE}": "dbd3ae6d614d1d7ef3a46925c30c70038ed52da6b37fdd6afdc7b9b71387e3e1",
        f"{_FOLDER}/{LABEL_FILE}": "e8097758e56e73099075b6caaebce23ef11bc6fad66a4ec3753b9406846558c7",
    },
    title="the demonstration CT",
)


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
    files = fetch_files(PACKAGE, folder, progress)
    return Sample(
        volume=Volume.read(files[CT_FILE]),
        reference=with_catalogue_values(Volume.read(files[LABEL_FILE]).array, files[LABEL_FILE]),
        origin="A real CT of abdomen and pelvis from the tests of TotalSegmentator 2.18.0 (Apache-2.0).",
        reference_origin="The reference labels are predictions of TotalSegmentator, not contours of an expert.",
        synthetic=False,
    )


def phantom_sample() -> Sample:
    """Return the synthetic phantom with the labels that it was painted from."""
    volume, labels = paint_phantom()
    return Sample(
        volume=replace(volume, array=np.rint(volume.array)),  # whole HU, as files hold them
        reference=labels,
        origin="A synthetic phantom: ellipsoids at the HU of organs, no anatomy of a person.",
        reference_origin="The reference labels are the bodies that the phantom was painted from.",
        synthetic=True,
    )


def with_catalogue_values(array: np.ndarray, path: Path) -> np.ndarray:
    """Return a label map of TotalSegmentator with the values of our catalogue; structures without a class become 0.

    :param array: the label map [i, j, k].
    :param path: its file, whose header holds the names of its values.
    """
    labels = np.asarray(array).astype(np.int64)
    lookup = np.zeros(int(labels.max()) + 1, np.uint16)
    for value, name in _label_names(path).items():
        if value < len(lookup):
            lookup[value] = class_index(name)
    return lookup[labels]


def class_index(name: str) -> int:
    """Return the index of the structure that a data set's name means, 0 if there is none."""
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
