"""`vista3d segment` from end to end, with a tiny network of random weights."""

from __future__ import annotations

import csv
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from VISTA3DCore.inference.automatic.cleanup import Cleanup
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_at_once(vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    result = vista3d(
        "segment", ct_file, "-o", out / "a.seg.nrrd", "--classes", "everything", "--model", tiny_model,
        "--device", "cpu", "--statistics", out / "a.csv", "--preview", out / "a.png", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert _names(out) == ["a.csv", "a.png", "a.seg.nrrd"]
    summary = json.loads(result.stdout)
    assert sorted(summary["files"]) == [str(out / name) for name in _names(out)]
    assert [row["index"] for row in summary["structures"]] == [1, 3, 5, 14]  # 23 is not in "everything"
    assert (summary["device"], summary["preset"]) == ("cpu", "bundle")
    rows = list(csv.DictReader((out / "a.csv").open()))
    assert [int(row["voxels"]) for row in rows] == [row["voxels"] for row in summary["structures"]]
    assert sitk.ReadImage(str(out / "a.seg.nrrd")).GetSize() == (40, 32, 36)
    assert imread(out / "a.png").shape[0] > 500


def test_shortcuts_are_told_in_the_result(vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = vista3d(
        "segment", ct_file, "-o", tmp_path / "a.seg.nrrd", "-c", "liver", "-m", tiny_model, "--body-crop", "--localize",
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    provenance = json.loads(result.stdout)["provenance"]
    assert (provenance["body_crop"], provenance["localize"]) == ("yes", "yes")
    assert "VISTA3D.localize:yes" in (tmp_path / "a.seg.nrrd").read_bytes()[:20_000].decode("latin-1")


def test_specks_are_removed_and_the_files_say_so(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Of a copy of the model that is called as the small one, whose default is to remove them."""
    named_mini = tmp_path / "named.safetensors"
    config, state = load_checkpoint(tiny_model)
    save_checkpoint(named_mini, replace(config, name="mini"), state)
    said, voxels = {}, {}
    for name, model, options in (
        ("default", tiny_model, ()),
        ("off", named_mini, ("--no-cleanup",)),
        ("on", tiny_model, ("--cleanup",)),
        ("small", named_mini, ()),
    ):
        output = tmp_path / f"{name}.seg.nrrd"
        result = vista3d("segment", ct_file, "-o", output, "-c", "liver,spleen", "-m", model, "--json", *options)
        assert result.exit_code == 0, result.stderr
        said[name] = json.loads(result.stdout)["provenance"]["cleanup"]
        assert f"VISTA3D.cleanup:{said[name]}" in output.read_bytes()[:20_000].decode("latin-1")
        voxels[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(output)))
    assert said == {"default": "no", "off": "no", "on": str(Cleanup()), "small": str(Cleanup())}
    np.testing.assert_array_equal(voxels["off"], voxels["default"])
    np.testing.assert_array_equal(voxels["small"], voxels["on"])


def test_the_help_says_what_a_speck_is_and_so_does_a_run(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    values = Cleanup()
    text = vista3d("segment", "--help").stdout
    assert f"pieces under {100 * values.share:g} %" in text
    assert f"under {values.minimum_ml:g} ml" in text
    arguments = ("segment", ct_file, "-o", tmp_path / "a.nii.gz", "-c", "liver", "-m", tiny_model)
    assert f"Removed specks ({values})" in vista3d(*arguments, "--cleanup").stderr
    assert "specks" not in vista3d(*arguments, "--no-cleanup").stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--runtime", "torch"), ("torch", "float32")),
        (("--runtime", "openvino", "--precision", "float32"), ("openvino", "float32")),
    ],
)
def test_the_runtime_is_the_one_asked_for_and_the_result_says_so(
    vista3d: Callable,
    ct_file: Path,
    tiny_model: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    expected: tuple[str, str],
) -> None:
    output = tmp_path / "a.nii.gz"
    result = vista3d(
        "segment", ct_file, "-o", output, "-c", "liver", "-m", tiny_model, "--device", "cpu", *options, "--json"
    )
    assert result.exit_code == 0, result.stderr
    provenance = json.loads(result.stdout)["provenance"]
    assert (provenance["runtime"], provenance["precision"]) == expected
    assert f"Runtime {expected[0]}, {expected[1]}: as asked for" in result.stderr


def test_an_unknown_runtime_is_wrong_usage(vista3d: Callable, ct_file: Path, tmp_path: Path) -> None:
    result = vista3d("segment", ct_file, "-o", tmp_path / "a.nii.gz", "--runtime", "tensorrt")
    assert result.exit_code == 2
    assert "openvino" in result.stderr


def test_labels_lie_on_the_input_grid_and_agree_with_the_statistics(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = vista3d(
        "segment", ct_file, "-o", tmp_path / "a.nii.gz", "-c", "liver,milz", "-c", "14", "-m", tiny_model,
        "--restoration", "smooth", "--preset", "paper", "--json",
    )  # fmt: skip
    if result.exit_code == 2:  # a catalogue without German synonyms
        result = vista3d(
            "segment", ct_file, "-o", tmp_path / "a.nii.gz", "-c", "liver,3", "-c", "14", "-m", tiny_model, "--json"
        )
    assert result.exit_code == 0, result.stderr
    labels, ct = nibabel.load(tmp_path / "a.nii.gz"), nibabel.load(ct_file)
    np.testing.assert_allclose(labels.affine, ct.affine, atol=1e-4)
    array, image = np.asarray(labels.dataobj), ct.get_fdata()
    structures = json.loads(result.stdout)["structures"]
    assert [row["index"] for row in structures] == [1, 3, 14]
    for row in structures:
        inside = array == row["index"]
        assert row["voxels"] == inside.sum()
        if inside.any():
            assert row["mean_hu"] == pytest.approx(image[inside].mean(), abs=1e-3)


def test_region_limits_the_work(vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    corners = ("-60", "-60", "-60", "0", "0", "0")
    result = vista3d("segment", ct_file, "-o", tmp_path / "a.nii.gz", "-m", tiny_model, "--roi", *corners)
    assert result.exit_code == 0, result.stderr
    labels = nibabel.load(tmp_path / "a.nii.gz")
    inside = np.argwhere(np.asarray(labels.dataobj) > 0)
    positions = nibabel.affines.apply_affine(labels.affine, inside)
    half = np.array(labels.header.get_zooms()) / 2 + 1e-3
    assert inside.size == 0 or ((positions > -60 - half) & (positions < half)).all()


def test_one_file_per_structure(vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = vista3d("segment", ct_file, "-o", f"{tmp_path}/masks/", "-c", "liver, lung tumor", "-m", tiny_model)
    assert result.exit_code == 0, result.stderr
    files = _names(tmp_path / "masks")
    assert len(files) == 2
    assert any("liver" in name for name in files)


def test_a_table_for_people_and_nothing_when_quiet(
    vista3d: Callable, ct_file: Path, tiny_model: Path, tmp_path: Path
) -> None:
    arguments = ("segment", ct_file, "-o", tmp_path / "a.nrrd", "-m", tiny_model)
    spoken = vista3d(*arguments)
    assert "structures looked for" in spoken.stderr
    assert f"Wrote {tmp_path / 'a.nrrd'}" in spoken.stderr
    quiet = vista3d(*arguments, "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


def test_small_model_is_the_default_and_says_what_it_is(vista3d: Callable, ct_file: Path, tmp_path: Path) -> None:
    result = vista3d(
        "segment", ct_file, "-o", tmp_path / "a.nrrd", "-c", "liver", "--roi", "0", "0", "0", "9", "9", "9"
    )
    assert "small demonstration model 'mini'" in result.stderr
    assert result.exit_code in (0, 4)  # 4 in a checkout without the bundled model


def _slow_ct(folder: Path) -> Path:
    """Write a CT that takes the tiny network many seconds: 3 mm voxels would not, 0.5 m of scan at 12 mm does."""
    path = folder / "slow.nii.gz"
    noise = np.random.default_rng(0).normal(0, 200, (128, 128, 128)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.diag([24.0, 24.0, 24.0, 1.0])), path)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="signals work differently there")
def test_ctrl_c_stops_and_leaves_nothing(vista3d_process: Callable, tiny_model: Path, tmp_path: Path) -> None:
    ct = _slow_ct(tmp_path)
    process = vista3d_process("segment", ct, "-o", tmp_path / "a.seg.nrrd", "-m", tiny_model, "--preset", "paper")
    while "Running on" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "Canceled" in process.stderr.read()
    assert _names(tmp_path) == ["slow.nii.gz"]


@pytest.mark.parametrize("case", ["ts_example_ct", "crlm_ct_1004_dicom", "openkbp_pt_2"])
def test_real_cts(vista3d: Callable, ct_data: Path, tiny_model: Path, tmp_path: Path, case: str) -> None:
    image = ct_data / case / "ct.nii.gz"
    image = image if image.exists() else image.parent
    result = vista3d(
        "segment", image, "-o", tmp_path / "a.seg.nrrd", "-m", tiny_model, "--preview", tmp_path / "a.png",
        "--statistics", tmp_path / "a.csv",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert _names(tmp_path) == ["a.csv", "a.png", "a.seg.nrrd"]
