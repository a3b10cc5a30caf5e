"""The working grid and the way back to the volume's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from VISTA3DCore.imaging.averaging import averaged, coarse_edges
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.supervoxels.grid import WorkingGrid, body_mask, working_grid
from VISTA3DCore.supervoxels.restoring import restore


@given(st.integers(1, 300), st.floats(0.01, 1.0))
def test_coarse_voxels_share_all_fine_ones(size, factor):
    coarse = max(round(size * factor), 1)
    edges = coarse_edges(size, coarse)

    assert edges[0] == 0
    assert edges[-1] == size
    assert np.diff(edges).min() >= 1


def test_averages_are_means():
    array = np.random.default_rng(0).integers(-1000, 1000, (12, 10, 8)).astype(np.int16)
    found = averaged(array, (slice(0, 12), slice(0, 10), slice(0, 8)), (4, 5, 8))
    expected = array.reshape(4, 3, 5, 2, 8).mean(axis=(1, 3))

    assert found == pytest.approx(expected, abs=1e-3)


def test_the_grid_has_at_most_the_voxels_that_memory_allows():
    volume = Volume(np.zeros((60, 60, 60), np.int16), np.diag([1.0, 1.0, 5.0, 1.0]))
    fine, coarse = working_grid(volume, 2.0, 10**6), working_grid(volume, 2.0, 5000)

    assert fine.image.shape == (30, 30, 60)  # voxels that are coarse already stay
    assert fine.spacing == pytest.approx((2.0, 2.0, 5.0))
    assert coarse.image.size <= 5000
    assert max(coarse.spacing) / min(coarse.spacing) < 1.4


def test_air_around_the_body_goes_and_lungs_stay():
    image = np.full((40, 40, 30), -1000.0)
    image[8:32, 8:32] = 40.0
    image[12:18, 12:28] = -850.0  # a lung that is cut by the upper and the lower border
    image[22:26, 20:24, 10:20] = -1000.0  # gas in the bowel
    image[36, 18:22] = 60.0  # a piece of the table
    body = body_mask(image)

    assert not body[:7].any()
    assert body[8:32, 8:32].all()
    assert not body[35:].any()


def test_an_image_without_air_is_all_body():
    assert body_mask(np.full((5, 6, 7), 30.0)).all()


def test_labels_of_the_same_grid_return_unchanged():
    labels = np.random.default_rng(0).integers(0, 9, (8, 7, 6)).astype(np.int32)
    volume = Volume(np.zeros((10, 7, 6), np.int16), np.eye(4))
    box = (slice(1, 9), slice(0, 7), slice(0, 6))
    found = restore(labels, WorkingGrid(np.zeros(labels.shape, np.float32), labels > 0, box, (1, 1, 1)), volume)

    assert (found[box] == labels).all()
    assert not found[0].any()
    assert not found[9].any()


def test_borders_follow_the_edge_of_the_image():
    """An edge in the middle of a coarse voxel: nearest neighbours would miss it by up to two fine ones."""
    array = np.zeros((48, 12, 12), np.int16)
    array[26:] = 200
    grid = working_grid(Volume(array, np.eye(4)), 4.0, 10**6)
    labels = np.where(grid.image > 60, 2, 1).astype(np.int32)
    found = restore(labels, grid, Volume(array, np.eye(4)))

    assert (found == np.where(array > 0, 2, 1)).all()
