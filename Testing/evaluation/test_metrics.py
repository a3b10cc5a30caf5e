"""Metrics against shapes whose values are known, against brute force, and for every way of being empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage
from scipy.spatial.distance import cdist

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.metrics import ABSENT, BOTH, INVENTED, MISSED, agreement

ISOTROPIC = np.ones(3)


def _ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: np.ndarray) -> np.ndarray:
    """Return a ball; centre and radius in mm."""
    axes = np.meshgrid(*(np.arange(size) * step for size, step in zip(shape, spacing, strict=True)), indexing="ij")
    return sum((axis - place) ** 2 for axis, place in zip(axes, centre, strict=True)) <= radius**2


def _block(start: tuple[int, ...], stop: tuple[int, ...], shape: tuple[int, ...] = (40, 40, 40)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(map(slice, start, stop))] = True
    return mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5), (3.0, 1.0, 1.5)])
def test_concentric_balls(spacing: tuple[float, ...]) -> None:
    steps = np.array(spacing)
    shape = tuple(int(np.ceil(90 / step)) for step in spacing)
    inner, outer = (_ball(shape, (44.0, 44.0, 44.0), radius, steps) for radius in (25.0, 31.0))
    found = agreement(outer, inner, steps, tolerance_mm=6.0 + steps.max())
    small, large = 25.0**3, 31.0**3
    assert found.dice == pytest.approx(2 * small / (small + large), rel=0.01)
    assert found.hd95_mm == pytest.approx(6.0, abs=0.6 * steps.max())
    assert found.volume_error == pytest.approx(large / small - 1, rel=0.03)
    assert found.reference_ml == pytest.approx(4 / 3 * np.pi * small / 1000, rel=0.01)
    assert (found.outcome, found.surface_dice) == (BOTH, 1.0)
    assert agreement(outer, inner, steps, tolerance_mm=max(6.0 - 2 * steps.max(), 0.0)).surface_dice < 0.02


def test_surface_dice_counts_areas_in_mm() -> None:
    # A box of 10 x 10 x 10 mm against 10 x 10 x 14 mm: both share 5 faces but for the longer sides; at tolerance 0 the
    # far face of each (100 mm2) and 4 strips of 10 x 4 mm of the longer box disagree.
    short, long = _block((10, 10, 10), (20, 20, 20)), _block((10, 10, 10), (20, 20, 24))
    found = agreement(long, short, ISOTROPIC, tolerance_mm=0.0)
    expected = 1.0 - (2 * 100 + 4 * 40) / (600 + 760)
    assert found.surface_dice == pytest.approx(expected, abs=0.03)
    assert found.hd95_mm == pytest.approx(4.0)
    assert agreement(long, short, ISOTROPIC, tolerance_mm=4.0).surface_dice == 1.0
    assert found.volume_error == pytest.approx(0.4)
    assert agreement(short, long, ISOTROPIC).volume_error == pytest.approx(-4 / 14)


def test_identical_masks_are_perfect_wherever_they_lie() -> None:
    for mask in (_block((0, 0, 0), (40, 40, 40)), _block((0, 12, 39), (1, 13, 40)), _block((5, 5, 0), (6, 30, 40))):
        found = agreement(mask, mask.copy(), np.array([0.5, 2.0, 3.0]))
        assert (found.dice, found.surface_dice, found.hd95_mm, found.volume_error) == (1.0, 1.0, 0.0, 0.0)


def test_nothing_depends_on_the_volume_around_the_masks_or_their_memory() -> None:
    spacing = np.array([0.8, 1.2, 2.0])
    first, second = (_ball((40, 40, 40), centre, 12.0, spacing) for centre in ((15, 20, 30), (17, 21, 34)))
    alone = agreement(first, second, spacing)
    wide = [np.pad(mask, ((31, 7), (2, 50), (12, 1))) for mask in (first, second)]
    assert agreement(*wide, spacing) == alone
    assert agreement(np.asfortranarray(wide[0]), wide[1], spacing) == alone
    turned = [mask.transpose(2, 0, 1) for mask in wide]
    other = agreement(*turned, spacing[[2, 0, 1]])
    for name in ("dice", "hd95_mm", "volume_error", "reference_ml"):
        assert getattr(other, name) == pytest.approx(getattr(alone, name), rel=1e-5)
    assert other.surface_dice == pytest.approx(alone.surface_dice, rel=1e-3)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_cropping_changes_nothing_and_the_distance_is_that_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.5, 3.0, 3)
    masks = [ndimage.gaussian_filter(rng.normal(size=(18, 16, 14)), 2.0) > 0.05 for _ in range(2)]
    found = agreement(*masks, spacing)
    tensors = [torch.from_numpy(mask)[None, None] for mask in masks]
    steps = spacing.tolist()
    whole = compute_surface_dice(*tensors, [3.0], include_background=True, spacing=steps, use_subvoxels=True)
    assert found.surface_dice == pytest.approx(float(whole), abs=1e-6)
    distance = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=steps)
    assert found.hd95_mm == pytest.approx(float(distance), abs=1e-5)
    surfaces = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in masks]
    between = cdist(*surfaces)
    brute = max(np.percentile(between.min(axis=axis), 95) for axis in (0, 1))
    assert found.hd95_mm == pytest.approx(brute, abs=1e-3)


@given(shift=st.tuples(*[st.integers(-5, 5)] * 3))
def test_both_directions_agree(shift: tuple[int, int, int]) -> None:
    first = _block((10, 12, 14), (20, 20, 20))
    second = np.roll(first, shift, (0, 1, 2))
    there, back = agreement(first, second, ISOTROPIC), agreement(second, first, ISOTROPIC)
    assert (there.dice, there.hd95_mm) == (back.dice, back.hd95_mm)
    assert there.surface_dice == pytest.approx(back.surface_dice)
    assert there.hd95_mm <= np.linalg.norm(shift) + 1e-4


def test_empty_masks_are_said_not_scored() -> None:
    empty, some = np.zeros((5, 5, 5), dtype=bool), _block((1, 1, 1), (3, 3, 3), (5, 5, 5))
    missed = agreement(empty, some, 10 * ISOTROPIC)
    assert (missed.outcome, missed.dice, missed.surface_dice, missed.hd95_mm) == (MISSED, 0.0, 0.0, None)
    assert (missed.volume_error, missed.reference_ml, missed.predicted_ml) == (-1.0, 8.0, 0.0)
    invented = agreement(some, empty, 10 * ISOTROPIC)
    assert (invented.outcome, invented.dice, invented.volume_error) == (INVENTED, None, None)
    assert (invented.reference_ml, invented.predicted_ml) == (0.0, 8.0)
    absent = agreement(empty, empty, ISOTROPIC)
    assert (absent.outcome, absent.dice, absent.surface_dice, absent.hd95_mm) == (ABSENT, None, None, None)


def test_apart_masks_have_no_overlap_but_a_distance() -> None:
    found = agreement(_block((0, 0, 0), (2, 2, 2)), _block((30, 0, 0), (32, 2, 2)), ISOTROPIC)
    assert (found.outcome, found.dice, found.surface_dice) == (BOTH, 0.0, 0.0)
    assert found.hd95_mm == pytest.approx(30.0, abs=1.0)


def test_bad_input_is_one_sentence() -> None:
    mask = _block((1, 1, 1), (3, 3, 3))
    with pytest.raises(InputError, match="grids differ"):
        agreement(mask, mask[1:], ISOTROPIC)
    with pytest.raises(InputError, match="tolerance"):
        agreement(mask, mask, ISOTROPIC, tolerance_mm=-1.0)
