"""Orientation, affines, regions and volumes, against nibabel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.geometry import (
    Region,
    apply_affine,
    axis_codes,
    from_ras,
    lps_to_ras,
    orthonormalised,
    ras_orientation,
    shear_of,
    spacing_of,
    to_ras,
)
from VISTA3DCore.imaging.volume import Volume


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any rotation, axis order, flips, spacing and origin."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6.0)] * 3))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    result = np.eye(4)
    result[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, signs))
    result[:3, :3] = result[:3, draw(st.permutations([0, 1, 2]))]
    result[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return result


@settings(max_examples=60, deadline=None)
@given(affines())
def test_orientation_is_nibabels(affine: np.ndarray) -> None:
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    expected = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.int16), affine))
    view, new_affine = to_ras(array, affine)
    np.testing.assert_array_equal(view, np.asarray(expected.dataobj))
    np.testing.assert_allclose(new_affine, expected.affine, atol=1e-9)
    assert axis_codes(affine) == "".join(nib.aff2axcodes(affine))
    np.testing.assert_array_equal(from_ras(view, affine), array)


@pytest.mark.parametrize("degrees", [45.0, 44.999999, 45.000001, 90.0, 135.0])
def test_ties_between_axes_are_decided_like_nibabel(degrees: float) -> None:
    for axis in "xyz":
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix() * (0.7, 0.7, 2.0)
        permutation, flips = ras_orientation(affine)
        expected = nib.io_orientation(affine)
        assert [list(permutation).index(axis) for axis in range(3)] == expected[:, 0].tolist()
        assert [-1.0 if flip else 1.0 for flip in flips] == expected[:, 1].tolist()


@settings(max_examples=30, deadline=None)
@given(affines(), st.floats(1e-4, 0.04))
def test_slightly_sheared_axes_are_straightened_in_place(affine: np.ndarray, shear: float) -> None:
    bent = affine.copy()
    bent[:3, 1] += shear * np.linalg.norm(affine[:3, 1]) * affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    with pytest.warns(UserWarning, match="perpendicular"):
        straight = orthonormalised(bent)
    assert shear_of(straight) < 1e-12
    np.testing.assert_allclose(spacing_of(straight), spacing_of(bent))
    np.testing.assert_array_equal(straight[:3, 3], bent[:3, 3])
    # Each axis turns by about half the shear, not more.
    turned = np.linalg.norm((straight - bent)[:3, :3] / spacing_of(bent), axis=0)
    assert np.all(turned < shear)


def test_rounding_of_a_header_is_left_alone(oblique: np.ndarray) -> None:
    rounded = oblique.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(Volume(np.zeros((2, 2, 2)), rounded).affine, rounded)


def test_a_really_oblique_angled_grid_is_refused() -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    with pytest.raises(InputError, match="not perpendicular"):
        Volume(np.zeros((2, 2, 2)), affine)


def test_lps_and_ras_differ_in_two_signs(oblique: np.ndarray) -> None:
    point = apply_affine(oblique, (1, 2, 3))
    np.testing.assert_allclose(apply_affine(lps_to_ras(oblique), (1, 2, 3)), point * (-1, -1, 1))
    np.testing.assert_allclose(lps_to_ras(lps_to_ras(oblique)), oblique)


@settings(max_examples=40, deadline=None)
@given(affines(), st.integers(0, 2**31))
def test_region_holds_its_corners_and_no_more_than_their_box(affine: np.ndarray, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (30, 20, 10)
    inside = apply_affine(affine, random.uniform(0, np.array(shape) - 1, (2, 3)))
    region = Region(tuple(inside.min(axis=0)), tuple(inside.max(axis=0)))
    box = region.voxel_box(affine, shape)
    indices = apply_affine(np.linalg.inv(affine), inside)
    for axis, part in enumerate(box):
        assert 0 <= part.start < part.stop <= shape[axis]
        assert part.start - 0.5001 <= indices[:, axis].min()
        assert indices[:, axis].max() <= part.stop - 0.4999


def test_region_of_an_axis_aligned_volume_is_exact() -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    assert Region((2, 2, 2), (8, 6, 4)).voxel_box(affine, (9, 9, 9)) == (slice(1, 5), slice(1, 4), slice(1, 3))
    assert Region((-99, -99, -99), (99, 99, 4)).voxel_box(affine, (9, 9, 9))[2] == slice(0, 3)


def test_unusable_regions_are_refused() -> None:
    affine = np.array([[0.0, -2.0, 0, 9], [0.5, 0, 0, 0], [0, 0, 1, -3], [0, 0, 0, 1]])
    with pytest.raises(InputError, match=r"outside the volume, which covers R -9 to 9, A 0 to 10, S -3 to 4 mm;"):
        Region((100, 100, 100), (120, 120, 120)).voxel_box(affine, (21, 10, 8))
    with pytest.raises(InputError, match="exceeds"):
        Region((5, 5, 5), (5, 4, 5))
    with pytest.raises(InputError, match="six finite numbers"):
        Region((0, 0, float("nan")), (1, 1, 1))


def _with_spacing(*spacing: float) -> np.ndarray:
    return np.diag([*spacing, 1.0])


@pytest.mark.parametrize(
    ("array", "affine", "reason"),
    [
        (np.zeros((4, 4)), np.eye(4), "2 dimensions"),
        (np.zeros((4, 4, 4, 2)), np.eye(4), "4 dimensions"),
        (np.zeros((4, 0, 4)), np.eye(4), "no voxels"),
        (np.zeros((4, 4, 4), dtype=complex), np.eye(4), "real numbers"),
        (np.zeros((4, 4, 4)), _with_spacing(1, 1, 0), "spacing is 1 x 1 x 0"),
        (np.zeros((4, 4, 4)), _with_spacing(1, 1, 5000), "spacing"),
        (np.zeros((4, 4, 4)), _with_spacing(1, np.nan, 1), "not a valid"),
        (np.zeros((4, 4, 4)), np.ones((4, 4)), "not a valid"),
        (np.zeros((4, 4, 4)), np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_unusable_volumes_are_refused(array: np.ndarray, affine: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Volume(array, affine)


def test_a_volume_knows_its_spacing(oblique: np.ndarray) -> None:
    volume = Volume(np.zeros((3, 4, 5), np.int16), oblique)
    assert volume.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert volume.shape == (3, 4, 5)


def test_geometry_and_resampling_need_numpy_alone() -> None:
    """They also run inside Slicer before anything was installed."""
    code = (
        "import sys, VISTA3DCore.imaging.volume, VISTA3DCore.imaging.geometry, VISTA3DCore.imaging.resampling\n"
        "print({'torch', 'monai', 'SimpleITK', 'scipy', 'nibabel'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "set()"
