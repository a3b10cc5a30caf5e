"""The refinement beside MONAI's: parity of the variant "reference", and the defects that ours does not share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from monai.networks.nets.vista3d import VISTA3D
from monai.transforms.utils import keep_merge_components_with_points

from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.inference.clicks.refinement import refine

IDENTITY = np.eye(4)
NETWORK = SimpleNamespace(NINF_VALUE=-9999)


def _logits(*masks: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.where(np.stack(masks), 2.0, -3.0)).float()[:, None]


def _prompts(*lists: list[Click]) -> dict[str, torch.Tensor]:
    """Return coordinates and labels of as many clicks for each object."""
    return {
        "point_coords": torch.tensor([[click.position for click in clicks] for clicks in lists]),
        "point_labels": torch.tensor([[int(click.positive) for click in clicks] for clicks in lists]),
    }


def _monai(base: np.ndarray, interactive: np.ndarray, clicks: list[Click], logits: torch.Tensor | None = None):
    """Return MONAI's mask for one object; the voxel grid is RAS with 1 mm."""
    logits = _logits(base) if logits is None else logits
    combined = VISTA3D.connected_components_combine(
        NETWORK, logits, _logits(interactive), mapping_index=torch.tensor([True]), **_prompts(clicks)
    )
    return (combined[0, 0] > 0).numpy()


def _ours(base, interactive, clicks, **options) -> np.ndarray:
    return refine(base, interactive, clicks, IDENTITY, **options).mask


def _mask(*pieces, shape=(12, 9, 9)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for piece in pieces:
        mask[piece] = True
    return mask


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[Click]]:
    """Two random masks and clicks that the reference can bear: rounded, they lie in the array."""
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=7))
    base, interactive = draw(arrays(bool, shape)), draw(arrays(bool, shape))
    quarters = st.tuples(*[st.integers(-1, 4 * (size - 1) + 1) for size in shape])
    chosen = draw(st.lists(st.tuples(quarters, st.booleans()), min_size=1, max_size=5))
    return base, interactive, [Click(tuple(np.array(place) / 4), positive) for place, positive in chosen]


@settings(max_examples=200)
@given(scenes(), st.sampled_from("CF"))
def test_the_variant_reference_equals_monais_masks(scene, order):
    base, interactive, clicks = scene
    layouts = [np.asarray(mask, order=order) for mask in (base, interactive)]

    np.testing.assert_array_equal(_ours(*layouts, clicks, variant="reference"), _monai(base, interactive, clicks))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("share", [0.03, 0.1, 0.5])
def test_the_variant_reference_equals_monais_masks_with_many_components(share, order):
    random = np.random.default_rng(5)
    base, interactive = (np.asarray(random.random((30, 28, 26)) < share, order=order) for _ in range(2))
    for _ in range(10):
        clicks = [Click(tuple(random.uniform(0, 25, 3)), bool(random.random() < 0.5)) for _ in range(6)]
        expected = _monai(base, interactive, clicks)
        np.testing.assert_array_equal(_ours(base, interactive, clicks, variant="reference"), expected)


def test_b3_objects_do_not_bleed_into_each_other():
    """The reference labels all objects as one 5-D array, so a component of one joins two components of another."""
    two_blocks, bridge = _mask((slice(0, 4), 0, 0), (slice(6, 10), 0, 0)), _mask((slice(0, 10), 0, 0))
    empty, clicks = _mask(), [Click((1.0, 0.0, 0.0))]
    coordinates = _prompts(clicks, clicks)
    additions = torch.from_numpy(np.stack([two_blocks, bridge]))[:, None]

    reference = keep_merge_components_with_points(additions, torch.zeros_like(additions), **coordinates)
    assert reference[0].sum() == 8

    ours = _ours(empty, two_blocks, clicks)
    assert ours.sum() == 4
    np.testing.assert_array_equal(ours, _mask((slice(0, 4), 0, 0)))


@pytest.mark.parametrize("variant", ["paper", "permissive", "reference"])
def test_b6_click_in_the_last_half_voxel_selects_the_last_voxels_component(variant):
    """The reference rounds such a click to an index that does not exist."""
    interactive, clicks = _mask((slice(9, 12), 4, 4)), [Click((11.75, 4.0, 4.0))]

    with pytest.raises(IndexError):
        _monai(_mask(), interactive, clicks)
    np.testing.assert_array_equal(_ours(_mask(), interactive, clicks, variant=variant), interactive)


@pytest.mark.parametrize("variant", ["paper", "permissive", "reference"])
def test_b6_click_before_the_first_voxel_does_not_count_from_the_other_end(variant):
    """In the reference the index -1 is the last voxel; that is in the base, so the click adds through the base."""
    base, interactive = _mask((slice(4, 8), 4, 4), (11, 4, 4)), _mask((slice(0, 10), 4, 4))
    clicks = [Click((-0.75, 4.0, 4.0))]

    np.testing.assert_array_equal(_monai(base, interactive, clicks), base | interactive)
    np.testing.assert_array_equal(
        _ours(base, interactive, clicks, variant=variant), _mask((slice(0, 8), 4, 4), (11, 4, 4))
    )


def test_b7_nearest_component_wins():
    """The reference takes the component with the highest number in a cube: the last one in scan order."""
    near, far = (4, 4, 3), (slice(5, 9), 5, 5)
    interactive, clicks = _mask(near, far), [Click((4.0, 4.0, 4.0))]

    np.testing.assert_array_equal(_monai(_mask(), interactive, clicks), _mask(far))
    np.testing.assert_array_equal(_ours(_mask(), interactive, clicks), _mask(near))


def test_b7_nearest_is_in_millimetres_not_in_voxels():
    """Four voxels along a fine axis are nearer than one along a coarse axis; the reference looks two voxels far."""
    affine = np.diag([0.5, 1.0, 3.0, 1.0])
    fine, coarse = (slice(6, 9), 4, 4), (2, 4, 5)
    result = refine(_mask(), _mask(fine, coarse), [Click((1.0, 4.0, 12.0))], affine)

    np.testing.assert_array_equal(_monai(_mask(), _mask(fine, coarse), [Click((2.0, 4.0, 4.0))]), _mask(coarse))
    np.testing.assert_array_equal(result.mask, _mask(fine))


@pytest.mark.parametrize("variant", ["paper", "permissive"])
def test_b12_negative_click_does_not_switch_what_positive_clicks_add(variant):
    """In the reference any click inside the base lets all positive clicks add through it."""
    base = _mask((slice(4, 8), 4, 4))
    interactive = _mask((slice(1, 11), 4, 4))
    positive, negative_inside = Click((2.0, 4.0, 4.0)), Click((5.0, 4.0, 4.0), positive=False)
    expected = _mask((slice(1, 8), 4, 4))

    np.testing.assert_array_equal(_monai(base, interactive, [positive]), expected)
    np.testing.assert_array_equal(_monai(base, interactive, [positive, negative_inside]), interactive)
    np.testing.assert_array_equal(_ours(base, interactive, [positive, negative_inside], variant=variant), expected)


def test_b19_inputs_stay_as_they_are():
    """The reference writes into the logits that it was given, so a second trial starts from the first one's result."""
    base, interactive, clicks = _mask((4, 4, 4)), _mask((slice(1, 3), 4, 4)), [Click((1.0, 4.0, 4.0))]
    logits = _logits(base)
    _monai(base, interactive, clicks, logits)
    assert not torch.equal(logits, _logits(base))

    copies = base.copy(), interactive.copy()
    _ours(base, interactive, clicks)
    np.testing.assert_array_equal(base, copies[0])
    np.testing.assert_array_equal(interactive, copies[1])
