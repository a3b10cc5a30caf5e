"""What the tests of evaluation share: a small case that has several windows for the tiny model, as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import pytest
from evaluation_cases import AFFINE, paint_case

from VISTA3DCore.inference.segmenter import Segmenter


@pytest.fixture(scope="session")
def tiny_segmenter(tiny_model: Path) -> Segmenter:
    """Return the tiny model, loaded."""
    return Segmenter.from_pretrained(tiny_model, device="cpu")


@pytest.fixture
def write_list(tmp_path: Path) -> Callable[..., Path]:
    """Write cases and their data list: ``write_list("name", count=2, testing=[...more entries])`` -> its path."""

    def write(name: str = "phantoms", count: int = 2, **more: object) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        entries = []
        for number in range(count):
            volume, labels = paint_case(number)
            for kind, array in (("ct", volume.array), ("label", labels)):
                nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / f"{kind}{number}.nii.gz")
            entries.append({"name": f"case {number}", "image": f"ct{number}.nii.gz", "label": f"label{number}.nii.gz"})
        content = {"name": name, "labels": {"1": 1, "3": 3, "5": 5, "7": 14}, "testing": entries, **more}
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder / "dataset.json"

    return write
