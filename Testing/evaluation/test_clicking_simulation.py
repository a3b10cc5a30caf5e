"""Simulated clicks on masks whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms.utils import get_largest_connected_component_mask, sample_points_from_label
from monai.transforms.utils_morphological_ops import erode
from scipy import ndimage

from VISTA3DCore.errors import InputError
from VISTA3DCore.evaluation.simulation import center_click, eroded, largest_component, next_click, random_click
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine

SHAPE = (40, 36, 30)


def _ellipsoid(center: tuple[float, ...], radii: tuple[float, ...], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return sum(((x - c) / r) ** 2 for x, c, r in zip(axes, center, radii, strict=True)) <= 1.0


def _oblique(angle: float = 25.0, spacing: tuple[float, ...] = (0.8, 1.1, 2.5)) -> np.ndarray:
    turn = np.radians(angle)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, -1]] @ np.diag(spacing)
    affine[:3, 3] = (-120.0, 35.5, 410.0)
    return affine


def _voxel(click: Click, affine: np.ndarray) -> tuple[int, ...]:
    index = apply_affine(np.linalg.inv(affine), np.array(click.position))
    np.testing.assert_allclose(index, np.rint(index), atol=1e-6)  # a voxel's center
    return tuple(np.rint(index).astype(int).tolist())


def test_first_click_is_the_middle_of_an_ellipsoid() -> None:
    affine = _oblique()
    click = center_click(_ellipsoid((21, 17, 14), (11, 7, 5)), affine)
    assert click.positive
    assert _voxel(click, affine) == (21, 17, 14)


def test_first_click_lies_inside_a_horseshoe() -> None:
    shoe = _ellipsoid((20, 18, 15), (15, 14, 9)) & ~_ellipsoid((20, 18, 15), (9, 8, 20))
    shoe[:, 24:] = False
    voxel = _voxel(center_click(shoe, np.eye(4)), np.eye(4))
    assert eroded(shoe)[voxel]


def test_first_click_takes_the_larger_of_two_pieces_and_survives_thin_ones() -> None:
    two = _ellipsoid((10, 10, 10), (6, 6, 6)) | _ellipsoid((30, 25, 20), (4, 4, 4))
    assert _voxel(center_click(two, np.eye(4)), np.eye(4)) == (10, 10, 10)
    thin = np.zeros(SHAPE, dtype=bool)
    thin[3:8, 5, 5] = True  # erosion by 3 x 3 x 3 leaves nothing of it
    assert _voxel(center_click(thin, np.eye(4)), np.eye(4)) == (5, 5, 5)


@given(seed=st.integers(0, 10_000))
def test_first_click_is_that_of_the_reference(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(24, 22, 20)), 2.5)
    target = noise > np.percentile(noise, 80)
    region = get_largest_connected_component_mask(erode(target[None, None].astype(np.float32))[0, 0])
    sizes = np.bincount(
        ndimage.label(erode(target[None, None].astype(np.float32))[0, 0], np.ones((3, 3, 3)))[0].ravel()
    )
    if not region.any() or np.count_nonzero(sizes[1:] == sizes[1:].max()) > 1:
        return
    points, _ = sample_points_from_label(torch.from_numpy(target.astype(np.int64))[None, None], [1], use_center=True)
    ours = np.array(_voxel(center_click(target, np.eye(4)), np.eye(4)))
    centroid = np.argwhere(region).mean(axis=0)
    assert region[tuple(ours)]
    assert np.linalg.norm(ours - centroid) == pytest.approx(np.linalg.norm(points[0, 0].numpy() - centroid), abs=1e-3)


def test_empty_target_is_one_sentence() -> None:
    with pytest.raises(InputError, match="empty"):
        center_click(np.zeros(SHAPE, dtype=bool), np.eye(4))
    with pytest.raises(InputError, match="empty"):
        random_click(np.zeros(SHAPE, dtype=bool), np.eye(4), np.random.default_rng(0))


def test_no_error_no_click() -> None:
    target = _ellipsoid((20, 18, 15), (8, 8, 8))
    assert next_click(target, target.copy(), np.eye(4)) is None


def test_a_miss_is_clicked_positive_at_its_deepest_voxel() -> None:
    affine, target = _oblique(), _ellipsoid((20, 18, 15), (16, 9, 7))
    current = target & ~_ellipsoid((14, 18, 15), (5, 5, 5))
    click = next_click(target, current, affine)
    assert click.positive
    assert _voxel(click, affine) == (14, 18, 15)


def test_a_spill_is_clicked_negative_and_the_larger_error_wins() -> None:
    target = _ellipsoid((12, 18, 15), (8, 8, 8))
    spill, miss = _ellipsoid((32, 18, 15), (5, 5, 5)), _ellipsoid((12, 18, 15), (3, 3, 3))
    click = next_click(target, target & ~miss | spill, np.eye(4))
    assert not click.positive
    assert _voxel(click, np.eye(4)) == (32, 18, 15)
    large_miss = _ellipsoid((12, 18, 15), (6, 6, 6))
    assert next_click(target, target & ~large_miss | spill, np.eye(4)).positive


def test_equal_errors_are_clicked_positive() -> None:
    target, spill = _ellipsoid((10, 10, 10), (4, 4, 4)), _ellipsoid((25, 20, 15), (4, 4, 4))
    assert next_click(target, spill, np.eye(4)).positive


def test_a_solid_error_wins_over_a_thin_one_with_more_voxels() -> None:
    target = np.zeros(SHAPE, dtype=bool)
    target[2:38, 2:34, 3:5] = True  # a sheet that erosion removes
    target[10:15, 10:15, 12:17] = True
    click = next_click(target, np.zeros_like(target), np.eye(4))
    assert _voxel(click, np.eye(4)) == (12, 12, 14)


def test_thin_errors_are_clicked_where_nothing_else_is_wrong() -> None:
    target = _ellipsoid((20, 18, 15), (8, 8, 8))
    current = target.copy()
    current[20, 18, 15] = False
    click = next_click(target, current, np.eye(4))
    assert click == Click((20.0, 18.0, 15.0), True)


def test_depth_is_measured_in_millimetres() -> None:
    target = np.zeros(SHAPE, dtype=bool)
    target[5:14, 5:14, 5:8] = True  # 9 x 9 x 3 voxels of 1 x 1 x 10 mm: the deepest column is (9, 9)
    target[14:17, 8:11, 5:8] = True
    affine = np.diag([1.0, 1.0, 10.0, 1.0])
    click = next_click(target, np.zeros_like(target), affine)
    error = np.pad(eroded(target), 1)
    depth = ndimage.distance_transform_edt(error, sampling=(1.0, 1.0, 10.0))[1:-1, 1:-1, 1:-1]
    assert depth[_voxel(click, affine)] == depth.max()


@given(seed=st.integers(0, 10_000))
def test_deepest_voxel_is_that_of_the_distance_transform(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(20, 18, 16)), 2.0)
    target, affine = noise > np.percentile(noise, 75), _oblique()
    click = next_click(target, np.zeros_like(target), affine)
    thick = eroded(target)
    region = largest_component(thick if thick.any() else target)
    depth = ndimage.distance_transform_edt(np.pad(region.mask, 1), sampling=(0.8, 1.1, 2.5))[1:-1, 1:-1, 1:-1]
    inside = np.array(_voxel(click, affine)) - [side.start for side in region.box]
    assert region.mask[tuple(inside)]
    assert depth[tuple(inside)] == pytest.approx(depth.max(), abs=2e-3)


def test_an_error_that_stayed_is_clicked_elsewhere_until_every_voxel_was() -> None:
    target = np.zeros(SHAPE, dtype=bool)
    target[4:6, 7, 7] = True
    placed: list[Click] = []
    while (click := next_click(target, np.zeros_like(target), np.eye(4), earlier=placed)) is not None:
        placed.append(click)
    assert {_voxel(click, np.eye(4)) for click in placed} == {(4, 7, 7), (5, 7, 7)}
    ball = _ellipsoid((20, 18, 15), (8, 8, 8))
    first = next_click(ball, np.zeros_like(ball), np.eye(4))
    second = next_click(ball, np.zeros_like(ball), np.eye(4), earlier=[first])
    assert np.linalg.norm(np.subtract(first.position, second.position)) > 2.5


def test_the_axis_of_a_vessel_is_clicked_in_its_middle() -> None:
    target = np.zeros(SHAPE, dtype=bool)
    target[3:38, 10:15, 10:15] = True
    assert _voxel(next_click(target, np.zeros_like(target), np.eye(4)), np.eye(4)) == (20, 12, 12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipped_arrays_are_clicked_at_the_same_place_in_the_patient(axis: int) -> None:
    affine = _oblique()
    target = _ellipsoid((20, 17.5, 14.5), (12, 8, 6))
    current = _ellipsoid((14, 17.5, 14.5), (9, 8, 6))
    flipped = affine.copy()
    flipped[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
    flipped[:3, axis] *= -1.0
    for mirrored, straight in (
        (center_click(np.flip(target, axis), flipped), center_click(target, affine)),
        (next_click(np.flip(target, axis), np.flip(current, axis), flipped), next_click(target, current, affine)),
    ):
        assert mirrored.positive == straight.positive
        np.testing.assert_allclose(mirrored.position, straight.position, atol=1e-6)


def test_random_clicks_lie_in_the_error_and_repeat_with_their_seed() -> None:
    affine, target = _oblique(), _ellipsoid((20, 18, 15), (10, 9, 7))
    current = target & ~_ellipsoid((14, 18, 15), (6, 6, 6))
    draws = [next_click(target, current, affine, rng=np.random.default_rng(seed)) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
    assert all(eroded(target & ~current)[_voxel(click, affine)] for click in draws)


@given(seed=st.integers(0, 10_000), cut=st.integers(20, 95))
def test_erosion_is_that_of_the_reference(seed: int, cut: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(9, 8, 7)), 1.0)
    mask = noise > np.percentile(noise, cut)
    np.testing.assert_array_equal(eroded(mask), erode(mask[None, None].astype(np.float32))[0, 0] > 0)


def test_largest_component_counts_corners_as_neighbours() -> None:
    mask = np.zeros((8, 8, 8), dtype=bool)
    mask[[1, 2, 3], [1, 2, 3], [1, 2, 3]] = True
    mask[5:7, 6, 6] = True
    component = largest_component(mask)
    assert component.voxel_count() == 3
    assert component.box == (slice(1, 4),) * 3
    assert largest_component(np.zeros((3, 3, 3), dtype=bool)) is None
