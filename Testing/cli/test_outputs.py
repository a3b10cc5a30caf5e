"""Destinations are checked before the work, and results appear together or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from VISTA3DCore.cli.outputs import Outputs
from VISTA3DCore.errors import OutputError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("output", "format_", "name", "kind"),
    [
        ("a.seg.nrrd", None, "a.seg.nrrd", None),
        ("a.NII.GZ", None, "a.NII.GZ", None),
        ("a", "mha", "a.mha", None),
        ("a.mha", "mha", "a.mha", None),
        ("masks/", None, "masks", "separate"),
        ("masks", "separate", "masks", "separate"),
        ("present", None, "present", "separate"),
    ],
)
def test_suffix_or_format_tell_what_is_written(image: Path, output: str, format_: str, name: str, kind: str) -> None:
    (image.parent / "present").mkdir()
    outputs = Outputs.checked(image, str(image.parent) + os.sep + output, format_, None, None)
    assert (outputs.segmentation.name, outputs.format) == (name, kind)


@pytest.mark.parametrize(
    ("output", "statistics", "preview", "sentence"),
    [
        ("a.png", None, None, "tells no format"),
        ("a", None, None, "tells no format"),
        ("ct.nii.gz", None, None, "is the input"),
        ("../{folder}/ct.nii.gz", None, None, "is the input"),
        ("missing/a.nrrd", None, None, "does not exist"),
        ("ct.nii.gz/", None, None, "is a file"),
        ("./", None, None, "holds the input"),
        ("a.nrrd", "taken.csv", None, "is a folder"),
        ("a.nrrd", "a.xlsx", None, "does not end with .csv"),
        ("a.nrrd", "missing/a.csv", None, "does not exist"),
        ("a.nrrd", None, "a.jpg", "does not end with .png"),
        ("ct.nii.gz/a.nrrd", None, None, "does not exist"),
    ],
)
def test_bad_destinations(image: Path, output: str, statistics: str, preview: str, sentence: str) -> None:
    (image.parent / "taken.csv").mkdir()
    output = f"{image.parent}/{output.format(folder=image.parent.name)}"
    extras = [image.parent / name if name else None for name in (statistics, preview)]
    with pytest.raises(OutputError, match=sentence):
        Outputs.checked(image, output, None, *extras)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(image: Path) -> None:
    folder = image.parent / "closed"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="not writable"):
        Outputs.checked(image, str(folder / "a.nrrd"), None, None, None)
