"""`vista3d demo`: its figures agree with the files that it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging import samples
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.models.claims import Claim, Claims, with_claims


class Written:
    """What a demonstration wrote, read without the project's readers."""

    def __init__(self, folder: Path) -> None:
        self.figures = json.loads((folder / "demo.json").read_text())
        self.files = {purpose: folder / name for purpose, name in self.figures["files"].items()}
        self.ct, self.found, self.reference = map(self.array, ("ct", "segmentation", "reference"))

    def image(self, purpose: str) -> sitk.Image:
        return sitk.ReadImage(str(self.files[purpose]))

    def array(self, purpose: str) -> np.ndarray:
        return sitk.GetArrayFromImage(self.image(purpose)).astype(int)

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.image("ct").GetSpacing())) / 1000.0

    def dice(self, labels: np.ndarray, index: int) -> float:
        a, b = labels == index, self.reference == index
        return 2.0 * (a & b).sum() / (a.sum() + b.sum())


def _check_structures(written: Written) -> None:
    for row in written.figures["structures"]:
        inside, expected = written.found == row["index"], written.reference == row["index"]
        assert row["voxels"] == inside.sum()
        assert row["volume_ml"] == pytest.approx(inside.sum() * written.voxel_ml)
        assert row["reference_ml"] == pytest.approx(expected.sum() * written.voxel_ml)
        if inside.any():
            assert row["mean_hu"] == pytest.approx(written.ct[inside].mean(), abs=1e-3)
        if inside.any() or expected.any():
            assert row["dice"] == pytest.approx(written.dice(written.found, row["index"]))


def _check_summary(written: Written) -> None:
    figures = written.figures
    claimed = {row["index"]: row["structure"] for row in figures["structures"]}
    there = set(np.unique(written.reference)) - {0}
    assert figures["compared"] == len(there & set(claimed))
    dices = [written.dice(written.found, index) for index in there & set(claimed)]
    assert figures["mean_dice"] == pytest.approx(np.mean(dices))
    volumes = {index: (written.found == index).sum() * written.voxel_ml for index in set(claimed) - there}
    extra = {claimed[index] for index, volume in volumes.items() if volume > 0.2}
    assert set(figures["not_in_reference"]) == extra
    assert {catalogue()[name].index for name in figures["not_claimed"]} == there - set(claimed)


def _check_correction(written: Written) -> None:
    correction, corrected = written.figures["correction"], written.array("corrected")
    index = correction["index"]
    assert correction["dice_before"] == pytest.approx(written.dice(written.found, index))
    assert correction["dice_after"] == pytest.approx(written.dice(corrected, index))
    assert correction["dice_after"] == correction["clicks"][-1]["dice"]
    others = (corrected != index) & (written.found != index)
    np.testing.assert_array_equal(corrected[others], written.found[others])
    gain = correction["dice_after"] - correction["dice_before"]
    assert all(gain >= other["dice_after"] - other["dice_before"] for other in correction["others"])
    first = correction["clicks"][0]
    x, y, z = first["position"]
    voxel = written.image("ct").TransformPhysicalPointToIndex((-x, -y, z))[::-1]  # from RAS to LPS
    assert (written.reference[voxel] == index) == first["positive"]
    assert (written.found[voxel] == index) != first["positive"]


def _check(written: Written) -> None:
    grids = [written.image(purpose) for purpose in ("ct", "segmentation", "reference")]
    assert len({grid.GetSize() for grid in grids}) == 1
    assert grids[1].GetOrigin() == pytest.approx(grids[0].GetOrigin(), abs=1e-3)
    _check_structures(written)
    _check_summary(written)
    _check_correction(written)
    for purpose in ("picture", "correction_picture"):
        picture = imread(written.files[purpose])
        assert min(picture.shape[:2]) > 600
        assert picture[..., :3].std() > 0.1


@pytest.fixture
def claiming_model(tiny_model: Path, tmp_path: Path) -> Path:
    """Return the tiny model with claims: liver and kidneys; the spleen is not good enough."""
    path = tmp_path / "claiming.safetensors"
    shutil.copy(tiny_model, path)
    figures = {1: 0.9, 3: 0.6, 5: 0.8, 14: 0.8}
    with_claims(path, Claims(0.7, {index: Claim(dice, 5, painted=False) for index, dice in figures.items()}))
    return path


def test_without_a_network_a_phantom_is_used(vista3d: Callable, claiming_model: Path, tmp_path: Path) -> None:
    result = vista3d("demo", "-o", tmp_path / "demo", "--model", claiming_model, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "SYNTHETIC PHANTOM" in result.stderr
    assert "Liver" in result.stdout
    assert "Correction by clicks" in result.stdout
    unclaimed = next(line for line in result.stdout.splitlines() if "not claimed by the model" in line)
    assert "Aorta" in unclaimed
    assert "Spleen" in unclaimed
    assert "Liver" not in unclaimed
    written = Written(tmp_path / "demo")
    assert [row["index"] for row in written.figures["structures"]] == [1, 5, 14]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "demo.json", "phantom.png", "phantom.seg.nrrd", "phantom_corrected.seg.nrrd", "phantom_correction.png",
        "phantom_ct.nii.gz", "phantom_reference.seg.nrrd",
    ]  # fmt: skip
    assert written.ct.min() < -900
    _check(written)


def test_for_programs(vista3d: Callable, tiny_model: Path, tmp_path: Path) -> None:
    result = vista3d("demo", "--phantom", "-o", tmp_path / "demo", "--model", tiny_model, "--json")
    summary = json.loads(result.stdout)
    assert summary["synthetic"]
    assert summary == json.loads((tmp_path / "demo" / "demo.json").read_text())


def test_a_model_without_clicks_shows_the_automatic_half(vista3d: Callable, tiny_model: Path, tmp_path: Path) -> None:
    config, state = load_checkpoint(tiny_model)
    automatic = tmp_path / "automatic.safetensors"
    save_checkpoint(automatic, replace(config, click_branch=False), dict(state))
    result = vista3d("demo", "--phantom", "-o", tmp_path / "demo", "--model", automatic)
    assert result.exit_code == 0, result.stderr
    assert "Correction" not in result.stdout
    assert json.loads((tmp_path / "demo" / "demo.json").read_text())["correction"] is None


@pytest.mark.slow
def test_the_bundled_model_on_the_demonstration_ct(
    vista3d: Callable, ct_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ct_data / "ts_example_ct"
    sample = samples.Sample(
        volume=Volume.read(folder / "ct.nii.gz"),
        reference=np.asarray(nibabel.load(folder / "label_vista3d.nii.gz").dataobj).astype(np.uint16),
        origin="A real CT.",
        reference_origin="Labels of TotalSegmentator.",
        synthetic=False,
    )
    monkeypatch.setattr(samples, "demonstration_ct", lambda **_: sample)
    result = vista3d("demo", "-o", tmp_path / "demo", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    written = Written(tmp_path / "demo")
    _check(written)
    assert written.figures["correction"]["dice_after"] > written.figures["correction"]["dice_before"]
