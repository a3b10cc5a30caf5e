"""``vista3d supervoxels``."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from VISTA3DCore.cli.main import app
from VISTA3DCore.imaging.writers import encode_nifti


@pytest.fixture
def ct(phantom, tmp_path):
    path = tmp_path / "ct.nii.gz"
    with path.open("wb") as file:
        encode_nifti(file, np.rint(phantom[0].array).astype(np.int16), phantom[0].affine, compressed=True)
    return path


def _run(*arguments: object):
    return CliRunner().invoke(app, ["supervoxels", *map(str, arguments)])


def test_writes_labels_picture_and_report(ct, tmp_path):
    outputs = [tmp_path / name for name in ("sv.nii.gz", "sv.png", "sv.json")]
    done = _run(ct, "-o", outputs[0], "-g", "graph", "-n", 30, "--preview", outputs[1], "--report", outputs[2])
    assert done.exit_code == 0, done.output
    labels, report = nibabel.load(outputs[0]), json.loads(outputs[2].read_text(encoding="utf-8"))

    assert labels.get_data_dtype() == np.uint8
    assert np.allclose(labels.affine, nibabel.load(ct).affine)
    assert np.asarray(labels.dataobj).max() == report["count"] == 30
    assert outputs[1].read_bytes().startswith(b"\x89PNG")
    assert {"seconds", "peak_memory_mb", "settings", "generator", "reason"} <= set(report)
    assert "Generator 'graph'" in done.output


def test_says_which_generator_auto_took(ct, tmp_path, monkeypatch):
    monkeypatch.setenv("VISTA3D_HOME", str(tmp_path / "home"))
    done = _run(ct, "-o", tmp_path / "sv.nii", "--preset", "code")

    assert done.exit_code == 0
    assert "weights of the light encoder are not on this computer" in done.output


def test_prints_json_for_programs(ct, tmp_path):
    done = _run(ct, "-o", tmp_path / "sv.nii.gz", "-g", "graph", "--json")

    assert json.loads(done.stdout)["settings"]["segments"] == 100


@pytest.mark.parametrize(
    ("output", "extra", "code", "words"),
    [
        ("sv.nrrd", [], 6, "NIfTI only"),
        ("ct.nii.gz", [], 6, "would be overwritten"),
        ("none/sv.nii.gz", [], 6, "does not exist"),
        ("sv.nii.gz", ["-n", "1"], 3, "from 2 to 60000"),
        ("sv.nii.gz", ["--preview", "sv.jpg"], 6, ".png"),
        ("sv.nii.gz", ["--device", "abacus", "-g", "medsam-lite"], 5, "abacus"),
    ],
)
def test_wrong_wishes_leave_nothing_behind(ct, tmp_path, request, output, extra, code, words):
    if "abacus" in extra:
        request.getfixturevalue("light_weights")
    before = ct.read_bytes()
    done = _run(ct, "-o", tmp_path / output, *extra)

    assert done.exit_code == code
    assert words in " ".join(done.output.split())
    assert ct.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]
