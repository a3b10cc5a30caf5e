"""What the commands write beside what was named: inputs, files of others and finished work are safe."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

TUMOR = 23  # lung tumor: it may overlap others


@pytest.fixture
def ct(ct_file: Path, tmp_path: Path) -> Path:
    """A CT that is called as a mask of the result P.nii.gz would be."""
    return Path(shutil.copy(ct_file, tmp_path / "P_lung_tumor.nii.gz"))


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_no_mask_replaces_the_image(vista3d: Callable, ct: Path, tiny_model: Path, tmp_path: Path) -> None:
    before = _contents(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for place in (tmp_path / "P.nii.gz", tmp_path / "link" / "P.nii.gz"):
        result = vista3d("segment", ct, "-o", place, "-c", "liver,lung tumor", "-m", tiny_model)
        assert result.exit_code == 6, result.stderr
        assert "is the input" in result.stderr
        assert "Loading" not in result.stderr
    assert _contents(tmp_path) == before


def test_no_mask_replaces_what_somebody_drew(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "case_lung_tumor.nii.gz"
    drawn.write_text("drawn by hand")
    result = vista3d("segment", ct_file, "-o", tmp_path / "case.nii.gz", "-c", "liver,lung tumor", "-m", tiny_model)
    assert result.exit_code == 6
    assert "case_lung_tumor.nii.gz' exists" in result.stderr
    assert _contents(tmp_path) == {drawn.name: b"drawn by hand"}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_no_mask_replaces_image_or_base_of_a_click(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path, suffix: str
) -> None:
    """Whether the spleen of the base overlaps the liver is not known before the work, so its name is kept free."""
    image = sitk.ReadImage(str(ct_file))
    labels = sitk.Cast(image * 0, sitk.sitkUInt8)
    labels[5:9, 5:9, 5:9] = 3
    labels[15:20, 15:20, 15:20] = 1
    ct, base = tmp_path / f"P_spleen{suffix}", tmp_path / f"Q_spleen{suffix}"
    sitk.WriteImage(image, str(ct))
    sitk.WriteImage(labels, str(base))
    before = _contents(tmp_path)
    for stem in ("P", "Q"):
        more = ("--base", base, "-c", "liver", "--voxel", "-p", "16,16,16", "-m", tiny_model)
        result = vista3d("click", ct, "-o", tmp_path / f"{stem}{suffix}", *more)
        assert result.exit_code == 6, result.stderr
        assert "is the input" in result.stderr
    assert _contents(tmp_path) == before


def test_what_was_asked_for_is_in_the_file_that_was_named_and_other_files_are_named_before_the_work(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def run(output: str, names: str) -> str:
        result = vista3d("segment", ct_file, "-o", tmp_path / output, "-c", names, "-m", tiny_model)
        assert result.exit_code == 0, result.stderr
        return result.stderr

    run("v.nii.gz", "lung tumor")
    assert np.unique(nibabel.load(tmp_path / "v.nii.gz").dataobj).tolist() == [0, TUMOR]
    assert [path.name for path in tmp_path.iterdir()] == ["v.nii.gz"]
    said = run("both.nii.gz", "liver,lung tumor")
    assert said.index(str(tmp_path / "both_lung_tumor.nii.gz")) < said.index("Running on cpu")
    run("both.nii.gz", "liver")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.nii.gz", "v.nii.gz"]


def test_names_are_text_and_a_broken_preview_costs_no_segmentation(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Path(shutil.copy(ct_file, tmp_path / r"Abd $\frac{1 art$ x_{.nii.gz"))
    out = tmp_path / "out"
    out.mkdir()
    files = ("-o", out / "a.seg.nrrd", "--preview", out / "a.png", "-c", "liver", "-m", tiny_model)
    result = vista3d("segment", odd, *files)
    assert result.exit_code == 0, result.stderr
    assert min(imread(out / "a.png").shape[:2]) > 500
    for path in out.iterdir():
        path.unlink()

    def broken(*_: object) -> None:
        raise MemoryError("no room for a picture")

    monkeypatch.setattr("VISTA3DCore.cli.preview.render", broken)
    result = vista3d("segment", odd, *files)
    assert result.exit_code == 0, result.stderr
    assert "'a.png' was not written (MemoryError: no room for a picture)" in result.stderr
    assert [path.name for path in out.iterdir()] == ["a.seg.nrrd"]


@pytest.mark.parametrize(
    ("option", "name", "sentence"),
    [
        ("-o", "x" * 260 + ".nii.gz", "too long"),
        ("-o", "protected.nii.gz", "read-only"),
        ("-o", "full.nii.gz", "device"),
        ("--statistics", "protected.csv", "read-only"),
        ("--preview", "x" * 260 + ".png", "too long"),
    ],
)
def test_places_that_cannot_be_written_are_known_before_the_work(
    vista3d: Callable, tmp_path: Path, option: str, name: str, sentence: str
) -> None:
    for file in ("protected.nii.gz", "protected.csv"):
        (tmp_path / file).write_text("mine")
        (tmp_path / file).chmod(0o444)
    (tmp_path / "full.nii.gz").symlink_to("/dev/full")
    given = {"-o": tmp_path / "a.nii.gz", option: tmp_path / name}
    result = vista3d("segment", "nowhere.nii.gz", *(part for pair in given.items() for part in pair), "-m", "mini")
    assert result.exit_code == 6
    assert sentence in " ".join(result.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full.nii.gz", "protected.csv", "protected.nii.gz"]


def test_the_next_run_sweeps_what_a_killed_one_left(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The process is killed while the preview is drawn; the child is a fork, which loads nothing anew."""
    from VISTA3DCore.imaging.output import write_files

    child = os.fork()
    if child == 0:
        files = {
            tmp_path / "a.seg.nrrd": lambda file: file.write(b"finished"),
            tmp_path / "a.png": lambda _: os.kill(os.getpid(), signal.SIGKILL),
        }
        try:
            write_files(files)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert len(list(tmp_path.glob(".vista3d-*/a.seg.nrrd"))) == 1
    result = vista3d("segment", ct_file, "-o", tmp_path / "b.seg.nrrd", "-c", "liver", "-m", tiny_model)
    assert result.exit_code == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["b.seg.nrrd"]
