"""Write the card's figures of data that chose nothing: the demonstration CT, a DICOM series, and the test split.

    pip download --no-deps --no-binary :all: totalsegmentator==2.18.0
    python report.py MODEL --shared ../shared --package totalsegmentator-2.18.0.tar.gz [--before MODEL] > figures.md

Automatic results of all structures that the model was trained for, claimed or not.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.evaluation.data_list import DataItem, read_data_list
from VISTA3DCore.imaging.samples import with_catalogue_values
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.training.cases import case_of
from VISTA3DCore.training.datasets import coded, label_volume, unions_of

Reference = tuple[Volume, np.ndarray]
Figures = dict[int, list[float]]
INVENTED_ML = 0.2


def main() -> None:
    """Print the section as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--before", help="Another model, to compare with.")
    parser.add_argument("--shared", type=Path, required=True, help="Folder with the test data ('data').")
    parser.add_argument("--package", type=Path, required=True, help="Source distribution of totalsegmentator 2.18.0.")
    options = parser.parse_args()
    models = [Segmenter.from_pretrained(one, claimed_only=False) for one in (options.before, options.model) if one]
    classes = set(models[-1].config.classes)
    sections, rows = [], []
    for title, cases in references(options.shared / "data", options.package).items():
        found = [figures(model, cases, classes) for model in models]
        rows.append(summary(title, found))
        sections.append(details(title, found))
    columns = ["now"] if len(models) == 1 else ["before", "now"]
    print(
        "\n".join(
            [f"| Data | structures | {' | '.join(columns)} | invented |", f"|---|--:|{'--:|' * len(columns)}--:|"]
        )
    )
    print("\n".join([*rows, "", *sections]))


def references(data: Path, package: Path) -> dict[str, list[Reference]]:
    """Return CTs with reference labels (values of the catalogue), by title."""
    items = read_data_list(data)
    demonstration = [item for some in items.sections.values() for item in some if item.name == "ts_example_ct"]
    test = [item for item in items.testing if any(item.classes.values())]
    return {
        "demonstration CT (abdomen and pelvis, no contrast; n = 1)": [_reference(item) for item in demonstration],
        "DICOM series of TotalSegmentator (20 slices of 2 mm; n = 1)": [_dicom(package)],
        f"test split ({len(test)} cases)": [_reference(item) for item in test],
    }


def figures(segmenter: Segmenter, cases: list[Reference], classes: set[int]) -> tuple[Figures, int]:
    """Return the Dice of each structure of the references by case, and how many structures are invented."""
    found, invented = defaultdict(list), 0
    for volume, label in cases:
        with warnings.catch_warnings(), segmenter.open(volume) as session:
            warnings.simplefilter("ignore")
            result = session.segment(list(segmenter.config.classes))
        masks = {one.index: result[one.name] for one in result.structures}
        present = set(np.unique(label).tolist()) & classes
        for index in present:
            mask, truth = masks.get(index, np.zeros((), bool)), label == index
            found[index].append(2 * np.count_nonzero(mask & truth) / (np.count_nonzero(mask) + np.count_nonzero(truth)))
        voxel = float(np.prod(volume.spacing)) / 1000
        complete = len(present) > 20
        invented += sum(
            complete and index not in present and np.count_nonzero(mask) * voxel > INVENTED_ML
            for index, mask in masks.items()
        )
    return dict(found), invented


def summary(title: str, found: list[tuple[Figures, int]]) -> str:
    """Return a row: mean Dice over the structures of all references."""
    means = [f"{np.mean([np.mean(values) for values in one.values()]):.2f}" for one, _ in found]
    means[-1] = f"**{means[-1]}**"
    return f"| {title} | {len(found[-1][0])} | {' | '.join(means)} | {found[-1][1]} |"


def details(title: str, found: list[tuple[Figures, int]]) -> str:
    """Return a table of all structures, best first."""
    names = ["now"] if len(found) == 1 else ["before", "now"]
    lines = [f"<details><summary>{title}: all structures</summary>", "", f"| Structure | {' | '.join(names)} |"]
    lines.append(f"|---|{'--:|' * len(names)}")
    for index in sorted(found[-1][0], key=lambda one: -np.mean(found[-1][0][one])):
        values = " | ".join(f"{np.mean(one[index]):.2f}" for one, _ in found)
        lines.append(f"| {catalogue()[index].name} | {values} |")
    return "\n".join([*lines, "", "</details>", ""])


def _reference(item: DataItem) -> Reference:
    case: Any = case_of(item)
    volume = Volume.read(case.image)
    label = label_volume(case.label, volume, f"label of '{case.name}'").array
    return volume, coded(label, case.classes, unions_of(case.classes))


def _dicom(package: Path) -> Reference:
    """Return the DICOM series of the package with its labels, brought to the series' grid."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(package) as archive:
        wanted = [one for one in archive.getmembers() if "/example_ct_dicom/" in one.name or "seg_dicom" in one.name]
        archive.extractall(folder, wanted, filter="data")
        files = Path(folder) / "totalsegmentator-2.18.0" / "tests" / "reference_files"
        volume, path = Volume.read(files / "example_ct_dicom"), files / "example_seg_dicom.nii.gz"
        stored = label_volume(path, volume, "label of the series")
        flipped = [axis for axis in range(3) if stored.affine[:3, axis] @ volume.affine[:3, axis] < 0]
        return volume, np.flip(with_catalogue_values(stored.array, path), flipped)


if __name__ == "__main__":
    main()
