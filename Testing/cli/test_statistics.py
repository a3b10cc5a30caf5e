"""Volumes, HU and Dice against numbers that can be computed by hand."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError, OutputError
from VISTA3DCore.evaluation.statistics import CSV_COLUMNS, csv_encoder, dice, measure
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.imaging.volume import Volume

AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def _case() -> tuple[Volume, SimpleNamespace]:
    """Return liver = 4 voxels of 40, 50, 60, 70 HU, spleen = 1 voxel of 30 HU, lung tumor over liver and spleen."""
    image, labels = np.full((4, 5, 6), -1000.0, np.float32), np.zeros((4, 5, 6), np.uint16)
    image[1, 1, 1:5], labels[1, 1, 1:5] = (40, 50, 60, 70), 1
    image[2, 2, 2], labels[2, 2, 2] = 30, 3
    structures = tuple(catalogue()[name] for name in ("spleen", "liver", "lung tumor", "aorta"))
    tumor = np.zeros(labels.shape, bool)
    tumor[1, 1, 4] = tumor[2, 2, 2] = True
    return Volume(image, AFFINE), SimpleNamespace(
        labels=labels, masks={23: tumor}, structures=structures, affine=AFFINE
    )


def test_volume_mean_and_deviation_in_the_order_asked_for() -> None:
    volume, segmentation = _case()
    spleen, liver, tumor, aorta = measure(volume, segmentation)
    assert [row.structure for row in (spleen, liver, tumor, aorta)] == ["spleen", "liver", "lung tumor", "aorta"]
    assert (liver.voxels, liver.volume_ml, liver.mean_hu) == (4, pytest.approx(4 * 24 / 1000), 55.0)
    assert liver.sd_hu == pytest.approx(np.std([40, 50, 60, 70], ddof=1))
    assert (spleen.voxels, spleen.mean_hu, spleen.sd_hu) == (1, 30.0, 0.0)
    assert (tumor.voxels, tumor.mean_hu) == (2, 50.0)
    assert (aorta.voxels, aorta.volume_ml, aorta.mean_hu, aorta.sd_hu) == (0, 0.0, None, None)


def test_oblique_voxels_have_the_volume_of_the_determinant() -> None:
    volume, segmentation = _case()
    angle = np.radians(30)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, -1]])
    segmentation.affine = np.eye(4)
    segmentation.affine[:3, :3] = rotation @ np.diag([2.0, 3.0, 4.0])
    assert measure(volume, segmentation)[1].volume_ml == pytest.approx(0.096)


def test_dice_against_a_reference() -> None:
    volume, segmentation = _case()
    reference = np.zeros_like(segmentation.labels)
    reference[1, 1, 3:6] = 1
    spleen, liver, tumor, aorta = measure(volume, segmentation, reference)
    assert liver.dice == pytest.approx(2 * 2 / (4 + 3))
    assert spleen.dice == 0.0
    assert tumor.dice == 0.0
    assert aorta.dice is None
    assert dice(reference == 1, reference == 1) == 1.0


def test_grids_must_agree() -> None:
    volume, segmentation = _case()
    with pytest.raises(InputError, match="grids differ"):
        measure(volume, segmentation, np.zeros((4, 5, 7), np.uint16))


def test_csv_has_one_line_per_structure_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    rows = measure(*_case())
    write_files({tmp_path / "out.csv": csv_encoder(rows)})
    lines = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert tuple(lines[0]) == CSV_COLUMNS
    assert [line["structure"] for line in lines] == ["spleen", "liver", "lung tumor", "aorta"]
    assert (lines[1]["voxels"], lines[1]["mean_hu"], lines[3]["mean_hu"]) == ("4", "55.00", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_csv_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_files({tmp_path / "missing" / "out.csv": csv_encoder([])})
