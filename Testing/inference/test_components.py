"""Connected components, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.components import ComponentsOnDemand, bounding_box, label_components

NEIGHBOURS = {6: ndimage.generate_binary_structure(3, 1), 26: np.ones((3, 3, 3))}
MASKS = arrays(bool, array_shapes(min_dims=3, max_dims=3, max_side=7))


@settings(max_examples=100)
@given(MASKS, st.sampled_from([6, 26]))
def test_labels_are_scipys(mask, connectivity):
    labels, count = label_components(mask, connectivity)
    expected, expected_count = ndimage.label(mask, NEIGHBOURS[connectivity])

    assert (labels.dtype, count) == (np.int32, expected_count)
    np.testing.assert_array_equal(labels, expected)


@settings(max_examples=60)
@given(
    MASKS,
    st.sampled_from([6, 26]),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
)
def test_any_layout_in_memory_has_the_same_components(mask, connectivity, order, steps):
    view = mask[tuple(slice(None, None, step) for step in steps)].transpose(order)
    before = view.copy()
    labels, count = label_components(view, connectivity)
    expected, expected_count = ndimage.label(view, NEIGHBOURS[connectivity])

    assert count == expected_count
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(expected))
    np.testing.assert_array_equal(view, before)


@given(MASKS)
def test_the_bounding_box_holds_every_voxel_and_is_tight(mask):
    box = bounding_box(mask)
    if box is None:
        assert not mask.any()
        return
    voxels = np.argwhere(mask)
    np.testing.assert_array_equal([part.start for part in box], voxels.min(axis=0))
    np.testing.assert_array_equal([part.stop for part in box], voxels.max(axis=0) + 1)


def _structures(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return blobs, a thin snake through the whole array, and specks."""
    random = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(random.standard_normal(shape), 3.0) > 0.03
    mask &= random.random(shape) < 0.9
    snake = np.zeros(shape, dtype=bool)
    snake[2, 2::4], snake[2, :, ::4] = True, False
    snake[2, 2, :], snake[2:, 2, -3], snake[-3, 2:, -3] = True, True, True
    return mask & ~ndimage.binary_dilation(snake, iterations=2) | snake


@pytest.mark.parametrize("connectivity", [6, 26])
@pytest.mark.parametrize("order", ["C", "F"])
def test_components_on_demand_are_whole_wherever_the_search_begins(connectivity, order):
    mask = np.asarray(_structures((150, 130, 120), seed=1), order=order)
    labels, _ = ndimage.label(mask, NEIGHBOURS[connectivity])
    voxels = np.argwhere(mask)
    voxels = np.vstack([voxels[np.random.default_rng(2).choice(len(voxels), 40)], [[2, 2, 5], [147, 100, 117]]])
    components = ComponentsOnDemand(mask, connectivity)

    for voxel in voxels:
        component = components.at(voxel)
        found = np.zeros_like(mask)
        found[component.box] = component.mask
        np.testing.assert_array_equal(found, labels == labels[tuple(voxel)])
        assert component.voxel_count() == np.count_nonzero(found)
        assert component.holds(voxel)
        assert components.at(voxel) is component


def test_a_component_holds_its_own_voxels_only():
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[1, 1, 1:4] = mask[3, 1, 1] = True
    component = ComponentsOnDemand(mask).at((1, 1, 2))

    assert [component.holds(voxel) for voxel in [(1, 1, 3), (3, 1, 1), (1, 1, 4), (0, 0, 0)]] == [
        True,
        False,
        False,
        False,
    ]


def test_an_empty_mask_has_no_components():
    for shape in [(4, 5, 6), (0, 5, 6)]:
        labels, count = label_components(np.zeros(shape, dtype=bool))
        assert (labels.shape, labels.any(), count) == (shape, False, 0)


def test_what_cannot_be_labelled_is_said():
    with pytest.raises(InputError, match="18 is not possible; use 6 or 26"):
        label_components(np.ones((2, 2, 2), dtype=bool), connectivity=18)
    with pytest.raises(InputError, match="three dimensions"):
        label_components(np.ones((2, 2), dtype=bool))
