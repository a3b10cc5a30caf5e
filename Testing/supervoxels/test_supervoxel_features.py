"""Slices along three axes become one volume of features, in the right place and in true proportions."""

from __future__ import annotations

import numpy as np
import pytest

from VISTA3DCore.errors import Cancelled, OutputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.features import Slicing, _reserve, _View, accumulate, feature_file
from VISTA3DCore.supervoxels.grid import working_grid


def _volume(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Volume:
    """Return a smooth image without air, different along each axis."""
    i, j, k = np.meshgrid(*(np.linspace(0, 1, size) for size in shape), indexing="ij")
    return Volume((400 * i - 300 * j + 200 * k).astype(np.int16), np.diag([*spacing, 1.0]))


def _features(volume: Volume, encoder, slicing: Slicing) -> tuple[np.ndarray, np.ndarray, int]:
    grid = working_grid(volume, 1.0, 10**6)
    result = np.zeros((*grid.image.shape, encoder.channels), np.float16)
    count = accumulate(result, volume.array, grid, encoder, slicing)
    return result.astype(np.float32), grid.image, count


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (2.0, 0.5, 1.0)])
def test_every_voxel_gets_the_sum_of_its_three_slices(identity, spacing):
    found, image, count = _features(_volume((40, 34, 28), spacing), identity, Slicing(distance_mm=0.1))
    expected = 3 * (image + 1000) / 2000

    assert count == sum(image.shape)
    inner = (slice(3, -3),) * 3  # the encoder's pixels blur the border
    assert np.abs(found[..., 0] - expected)[inner].max() < 0.02


def test_slices_that_are_left_out_are_interpolated(identity):
    volume = _volume((40, 34, 28), (1.0, 1.0, 1.0))
    dense, _, all_slices = _features(volume, identity, Slicing(distance_mm=1.0))
    sparse, _, fewer = _features(volume, identity, Slicing(distance_mm=6.0))

    assert fewer == 8 + 7 + 6  # every sixth and the last one
    assert all_slices == 40 + 34 + 28
    assert np.abs(dense - sparse)[..., 0].max() < 0.01  # linear in the image, hence exact but for rounding


def test_slices_have_their_true_proportions_unless_asked_otherwise(identity):
    volume = _volume((20, 20, 10), (1.0, 1.0, 4.0))
    grid = working_grid(volume, 1.0, 10**6)
    physical = _View(volume.array, grid, identity, Slicing(), axis=0)
    voxels = _View(volume.array, grid, identity, Slicing(physical_aspect=False), axis=0)

    assert physical._drawn == (32, 64)  # 20 mm x 40 mm
    assert voxels._drawn == (64, 32)  # 20 x 10 voxels, as the published code


def test_the_feature_file_is_private_and_vanishes(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with feature_file((3, 4, 5, 2)) as features:
        assert features.dtype == np.float16
        assert not features.any()
        features[1] = 2.0
        assert features.sum() == 80.0
        del features
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence():
    try:
        full = open("/dev/full", "wb", buffering=0)  # noqa: PTH123, SIM115 - a device of Linux that is always full
    except OSError:
        pytest.skip("no /dev/full here")
    with full, pytest.raises(OutputError, match="has no room for"):
        _reserve(full, 1 << 20)


def test_encoding_stops_within_a_slice(identity):
    volume = _volume((20, 20, 20), (1.0, 1.0, 1.0))
    grid = working_grid(volume, 1.0, 10**6)
    progress = Progress(lambda update: progress.cancel() if update.fraction > 0.3 else None)
    with pytest.raises(Cancelled):
        accumulate(np.zeros((*grid.image.shape, 2), np.float16), volume.array, grid, identity, Slicing(), progress)
