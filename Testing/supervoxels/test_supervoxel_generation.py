"""From a CT to supervoxels: every generator, every wish that cannot be met."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.generation import PRESETS, Details, check_parameters, choose_generator, compute_supervoxels
from VISTA3DCore.supervoxels.quality import measure_quality


@pytest.mark.parametrize("generator", ["graph", "identity"])
def test_supervoxels_lie_on_the_grid_and_leave_out_the_air(phantom, identity, generator):
    volume, _ = phantom
    made = compute_supervoxels(volume, identity if generator == "identity" else generator, segments=40)

    assert made.labels.shape == volume.shape
    assert made.labels.dtype == np.int32
    assert (made.affine == volume.affine).all()
    assert 10 <= made.count <= 60
    assert set(np.unique(made.labels)) == set(range(made.count + 1))
    assert made.labels[0, 0, 0] == 0
    assert made.report["generator"] == generator
    assert made.report["peak_memory_mb"] > 0
    json.dumps(made.report)


def test_supervoxels_follow_borders_better_than_chance(phantom, identity):
    volume, reference = phantom
    made = compute_supervoxels(volume, identity, segments=60, compactness=0.1)
    quality = measure_quality(made.labels, reference, volume.spacing, 0.0)

    assert quality.boundary_recall > 1.25 * quality.chance


@pytest.mark.parametrize("generator", ["graph", "identity"])
def test_the_same_twice(phantom, identity, generator):
    source = identity if generator == "identity" else generator
    once, again = (compute_supervoxels(phantom[0], source, segments=30).labels for _ in range(2))

    assert (once == again).all()


def test_large_volumes_are_worked_on_coarsely_and_restored(phantom, identity):
    volume, _ = phantom
    made = compute_supervoxels(volume, identity, segments=20, details=Details(most_voxels=8000))

    assert np.prod(made.report["working_shape"]) <= 8000
    assert made.labels.shape == volume.shape
    assert made.count >= 5


def test_auto_says_what_it_took(monkeypatch, tmp_path):
    monkeypatch.setenv("VISTA3D_HOME", str(tmp_path))
    generator, reason = choose_generator("auto", Details())

    assert generator == "graph"
    assert "light encoder" in reason


def test_auto_takes_the_light_encoder_where_its_weights_are(light_weights):
    encoder, reason = choose_generator("auto", Details(device="cpu"))

    assert encoder.name == "medsam-lite"
    assert "light encoder" in reason


def test_presets_are_the_papers_and_the_codes_numbers():
    assert PRESETS["paper"]["segments"] == 100
    assert PRESETS["code"] == {"segments": 400, "compactness": 0.01, "sigma": 3.0}


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        ({"generator": "magic"}, "generator 'magic'"),
        ({"segments": 1}, "from 2 to 60000"),
        ({"segments": 70000}, "from 2 to 60000"),
        ({"compactness": 0.0}, "compactness"),
        ({"compactness": float("nan")}, "compactness"),
        ({"sigma": -1.0}, "sigma"),
        ({"details": replace(Details(), slice_mm=0.0)}, "distance between slices"),
        ({"details": replace(Details(), spacing_mm=float("inf"))}, "spacing"),
    ],
)
def test_wishes_that_cannot_be_met_are_one_sentence(wish, word):
    usual = {"generator": "graph", "segments": 100, "compactness": 0.01, "sigma": 3.0, "details": Details()}
    with pytest.raises(InputError, match=word):
        check_parameters(**(usual | wish))


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.full((8, 8, 8), -1000, np.int16), "nothing but air"),
        (np.zeros((8, 8, 1), np.int16), "at least two"),
        (np.full((8, 8, 8), np.nan, np.float32), "NaN"),
    ],
)
def test_volumes_that_cannot_be_used_are_one_sentence(array, word):
    with pytest.raises(InputError, match=word):
        compute_supervoxels(Volume(array, np.eye(4)), "graph")


def test_more_supervoxels_than_voxels_are_as_many_as_there_are():
    volume = Volume(np.arange(64, dtype=np.int16).reshape(4, 4, 4) * 50, np.diag([3.0, 3.0, 3.0, 1.0]))

    assert compute_supervoxels(volume, "graph", segments=500).count <= 64


def test_work_can_be_cancelled(phantom, identity):
    progress = Progress(lambda update: progress.cancel() if update.fraction > 0.2 else None)
    with pytest.raises(Cancelled):
        compute_supervoxels(phantom[0], identity, progress=progress)
