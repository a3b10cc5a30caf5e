"""Algorithm 1: its definition by brute force, and what a user may rely on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from scipy.spatial.transform import Rotation

from VISTA3DCore.errors import InputError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import apply_affine, reoriented_affine
from VISTA3DCore.inference.clicks.refinement import VARIANTS, Refinement, refine

NEIGHBOURS = {6: ndimage.generate_binary_structure(3, 1), 26: np.ones((3, 3, 3))}
IDENTITY = np.eye(4)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Straight or oblique grids with voxels from 0.5 to 4 mm."""
    degrees = draw(st.sampled_from([(0, 0, 0), (0, 90, 0), (7, -12, 18), (31, 5, -77)]))
    spacing = draw(st.sampled_from([(1, 1, 1), (0.5, 0.75, 2), (1.5, 1.5, 4)]))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing
    affine[:3, 3] = draw(st.sampled_from([(0, 0, 0), (-113.7, 61.2, -850.4)]))
    return affine


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[Click], np.ndarray]:
    """Two random masks, clicks in and around them (often exactly between voxels), and the grid's affine."""
    shape = draw(array_shapes(min_dims=3, max_dims=3, max_side=6))
    base, interactive, affine = draw(arrays(bool, shape)), draw(arrays(bool, shape)), draw(affines())
    quarters = st.tuples(*[st.integers(-6, 4 * size + 2) for size in shape])
    chosen = draw(st.lists(st.tuples(quarters, st.booleans()), max_size=5))
    clicks = [Click(tuple(apply_affine(affine, np.array(place) / 4)), positive) for place, positive in chosen]
    return base, interactive, clicks, affine


OPTIONS = st.fixed_dictionaries(
    {"tolerance": st.sampled_from([0.0, 1.0, 3.0]), "connectivity": st.sampled_from([6, 26])}
)


def brute_force(base, interactive, clicks, affine, *, tolerance, connectivity) -> tuple[np.ndarray, list[bool]]:
    """Return result and touched clicks by looking at every voxel of every component, one click at a time."""
    result, touched = base.copy(), []
    for click in clicks:
        difference = interactive & ~base if click.positive else base & ~interactive
        labels, _ = ndimage.label(difference, NEIGHBOURS[connectivity])
        index = np.linalg.solve(affine[:3, :3], click.position - affine[:3, 3])
        near = []
        for voxel in np.argwhere(interactive == click.positive):
            place = affine[:3, :3] @ voxel + affine[:3, 3]
            distance = np.sqrt(np.sum((place - click.position) ** 2))
            if np.max(np.abs(index - voxel)) < 0.5 + 1e-5 or distance < tolerance + 1e-5:
                number = labels[tuple(voxel)]
                near.append((round(distance, 3), -np.sum(labels == number), *np.round(place, 3), number))
        nearest = [one for one in near if one[0] == min(near)[0]]
        touched.append(bool(nearest) and all(one[-1] for one in nearest))
        if touched[-1]:
            result[labels == min(nearest)[-1]] = click.positive
    return result, touched


@settings(max_examples=300)
@given(scenes(), OPTIONS)
def test_the_result_is_that_of_the_definition(scene, options):
    ours = refine(*scene, **options)
    expected, touched = brute_force(*scene, **options)

    np.testing.assert_array_equal(ours.mask, expected)
    assert ours.touched == tuple(touched)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=50)
@given(scenes(), OPTIONS)
def test_added_and_removed_are_what_changed_and_inputs_stay(variant, scene, options):
    base, interactive, _, affine = scene
    copies = [array.copy() for array in (base, interactive, affine)]
    result = refine(*scene, variant=variant, **options)

    np.testing.assert_array_equal(result.added, result.mask & ~base)
    np.testing.assert_array_equal(result.removed, base & ~result.mask)
    assert not np.any(result.added & ~interactive)
    assert not np.any(result.removed & interactive)
    for array, copy in zip((base, interactive, affine), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert not any(np.shares_memory(array, made) for made in (result.mask, result.added, result.removed))


@pytest.mark.parametrize(("variant", "positive"), [(name, sign) for name in VARIANTS for sign in (True, False)])
@settings(max_examples=30)
@given(scenes(), OPTIONS)
def test_positive_clicks_only_add_and_negative_ones_only_remove(variant, positive, scene, options):
    base, interactive, clicks, affine = scene
    clicks = [click for click in clicks if click.positive == positive]
    result = refine(base, interactive, clicks, affine, variant=variant, **options)

    assert not (result.removed if positive else result.added).any()


@settings(max_examples=100)
@given(scenes(), OPTIONS)
def test_nothing_changes_outside_the_components_that_clicks_touch(scene, options):
    base, interactive, clicks, _ = scene
    result = refine(*scene, **options)

    for changed, difference, positive in (
        (result.added, interactive & ~base, True),
        (result.removed, base & ~interactive, False),
    ):
        labels, _ = ndimage.label(difference, NEIGHBOURS[options["connectivity"]])
        numbers = np.unique(labels[changed])
        np.testing.assert_array_equal(changed, np.isin(labels, numbers) & difference)
        selecting = [hit for click, hit in zip(clicks, result.touched, strict=True) if click.positive == positive]
        assert len(numbers) <= sum(selecting)


@pytest.mark.parametrize("variant", VARIANTS)
@given(scenes())
def test_without_clicks_the_result_is_a_copy_of_the_base(variant, scene):
    base, interactive, _, affine = scene
    result = refine(base, interactive, [], affine, variant=variant)

    np.testing.assert_array_equal(result.mask, base)
    assert not np.shares_memory(result.mask, base)
    assert not result.added.any()
    assert not result.removed.any()
    assert result.touched == ()


@settings(max_examples=150)
@given(scenes(), OPTIONS)
def test_refining_the_result_again_changes_nothing(scene, options):
    base, interactive, clicks, affine = scene
    result = refine(base, interactive, clicks, affine, **options).mask

    again = refine(result, interactive, clicks, affine, **options)
    np.testing.assert_array_equal(again.mask, result)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=50)
@given(scenes(), OPTIONS, st.randoms(use_true_random=False))
def test_the_order_of_clicks_does_not_matter(variant, scene, options, random):
    base, interactive, clicks, affine = scene
    order = random.sample(range(len(clicks)), len(clicks))
    forward = refine(base, interactive, clicks, affine, variant=variant, **options)
    shuffled = refine(base, interactive, [clicks[n] for n in order], affine, variant=variant, **options)

    np.testing.assert_array_equal(shuffled.mask, forward.mask)
    assert shuffled.touched == tuple(forward.touched[n] for n in order)


@pytest.mark.parametrize("variant", ["paper", "permissive"])
@settings(max_examples=100)
@given(scenes(), OPTIONS, st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_flipped_and_permuted_arrays_give_the_same_physical_result(variant, scene, options, permutation, flips):
    base, interactive, clicks, affine = scene

    def turned(array: np.ndarray) -> np.ndarray:
        return np.flip(array, [axis for axis in range(3) if flips[axis]]).transpose(permutation)

    other = reoriented_affine(affine, base.shape, tuple(permutation), flips)
    expected = refine(*scene, variant=variant, **options)
    result = refine(turned(base), turned(interactive), clicks, other, variant=variant, **options)

    np.testing.assert_array_equal(result.mask, turned(expected.mask))
    assert result.touched == expected.touched


@pytest.mark.parametrize("variant", ["paper", "permissive"])
@settings(max_examples=50)
@given(scenes(), OPTIONS, st.tuples(*[st.tuples(st.integers(8, 12), st.integers(8, 12))] * 3))
def test_the_crop_does_not_matter_while_it_holds_the_clicks_surroundings(variant, scene, options, margins):
    """Clicks lie up to 1.5 voxels outside these masks and look at most 6 voxels (3 mm) around them."""
    base, interactive, clicks, affine = scene
    results = [_padded(base, interactive, clicks, affine, added, variant, options) for added in ([(8, 8)] * 3, margins)]

    (small, touched), (large, touched_in_large) = results
    np.testing.assert_array_equal(small, large)
    assert touched == touched_in_large


def _padded(base, interactive, clicks, affine, margins, variant, options):
    larger = affine.copy()
    larger[:3, 3] = apply_affine(affine, [-low for low, _ in margins])
    result = refine(np.pad(base, margins), np.pad(interactive, margins), clicks, larger, variant=variant, **options)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(margins, base.shape, strict=True))
    return result.mask[inner], result.touched


def _bar(*pieces: tuple[slice, int | slice, int | slice], shape=(20, 7, 7)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for piece in pieces:
        mask[piece] = True
    return mask


def _added(result: Refinement) -> set[tuple[int, ...]]:
    return set(map(tuple, np.argwhere(result.added).tolist()))


@pytest.mark.parametrize(
    ("spacing", "voxels_off", "hits"), [(1.5, 2, True), (1.6, 2, False), (5.0, 1, False), (0.5, 3, True)]
)
def test_a_click_that_misses_by_a_hair_takes_the_component_and_one_further_off_does_not(spacing, voxels_off, hits):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    click = Click((4 * spacing, 3 * spacing, (3 + voxels_off) * spacing))

    assert refine(_bar(), _bar((slice(2, 8), 3, 3)), [click], affine).touched == (hits,)


def test_a_click_within_a_thick_voxel_needs_no_tolerance():
    affine = np.diag([1.0, 1.0, 8.0, 1.0])
    result = refine(_bar(), _bar((2, 2, 2)), [Click((2.4, 1.6, 19.7))], affine, tolerance=0.0)

    assert _added(result) == {(2, 2, 2)}


@pytest.mark.parametrize("place", [-0.5, -0.4, 0.0, 19.0, 19.4, 19.5])
def test_clicks_in_the_first_and_last_half_voxel_count(place):
    interactive = _bar((0, 3, 3), (19, 3, 3))
    result = refine(_bar(), interactive, [Click((place, 3, 3))], IDENTITY, tolerance=0.0)

    assert _added(result) == {(0 if place < 10 else 19, 3, 3)}


@pytest.mark.parametrize("place", [(-400.0, 3, 3), (3, 3, 1e6), (-9, -9, -9)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_clicks_outside_the_box_touch_nothing(place, variant):
    full = np.ones((5, 6, 7), dtype=bool)
    for positive, base, interactive in [(True, ~full, full), (False, full, ~full)]:
        result = refine(base, interactive, [Click(place, positive)], IDENTITY, variant=variant)
        assert result.touched == (False,)
        np.testing.assert_array_equal(result.mask, base)


def test_of_equidistant_components_the_larger_one_wins_on_every_grid():
    interactive = _bar((slice(2, 5), 3, 3), (slice(7, 18), 3, 3))

    for degrees in range(0, 90, 7):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", (degrees, 2 * degrees, 3 * degrees), degrees=True).as_matrix() * 1.3
        affine[:3, 3] = (-211.3, 87.1, -901.7)
        click = Click(tuple(apply_affine(affine, np.array([5.5, 3.0, 3.0]))))
        result = refine(_bar(), interactive, [click], affine)
        np.testing.assert_array_equal(result.added, _bar((slice(7, 18), 3, 3)))


def test_of_equidistant_components_of_one_size_the_first_by_r_then_a_then_s_wins():
    def chosen(first, second, click, affine=IDENTITY):
        return _added(refine(_bar(), _bar(first, second), [Click(click)], affine))

    assert chosen((6, 3, 2), (4, 3, 4), (5, 3, 3)) == {(4, 3, 4)}
    assert chosen((5, 2, 4), (5, 4, 2), (5, 3, 3)) == {(5, 2, 4)}
    assert chosen((5, 3, 4), (5, 3, 2), (5, 3, 3)) == {(5, 3, 2)}
    assert chosen((5, 3, 3), (7, 3, 3), (-6, 3, 3), np.diag([-1.0, 1.0, 1.0, 1.0])) == {(7, 3, 3)}


def test_permissive_reaches_through_the_base_and_paper_does_not():
    base = _bar((slice(5, 10), 3, 3))
    interactive = _bar((slice(2, 14), 3, 3), (slice(16, 18), 3, 3))
    inside = [Click((7, 3, 3))]

    assert not refine(base, interactive, inside, IDENTITY, tolerance=1.0).added.any()
    permissive = refine(base, interactive, inside, IDENTITY, variant="permissive", tolerance=1.0)
    assert _added(permissive) == {(n, 3, 3) for n in (2, 3, 4, 10, 11, 12, 13)}
    assert not permissive.removed.any()


def test_permissive_is_each_clicks_own():
    base = _bar((slice(5, 10), 3, 3), (slice(5, 10), 6, 6))
    interactive = _bar((slice(2, 14), 3, 3), (slice(2, 14), 6, 6))
    clicks = [Click((7, 3, 3)), Click((3, 6, 6))]
    result = refine(base, interactive, clicks, IDENTITY, variant="permissive", tolerance=0.0)

    assert _added(result) == {(n, 3, 3) for n in (2, 3, 4, 10, 11, 12, 13)} | {(n, 6, 6) for n in (2, 3, 4)}


def test_what_cannot_be_refined_is_said():
    mask = np.zeros((3, 3, 3), dtype=bool)
    click = [Click((1, 1, 1))]
    for message, arguments, options in [
        ("no variant 'best'", (mask, mask, click, IDENTITY), {"variant": "best"}),
        ("differ in shape", (mask, mask[:2], click, IDENTITY), {}),
        ("bool array of three dimensions, not uint8", (mask.view(np.uint8), mask, click, IDENTITY), {}),
        ("0 or more, not -1", (mask, mask, click, IDENTITY), {"tolerance": -1}),
        ("0 or more, not nan", (mask, mask, click, IDENTITY), {"tolerance": float("nan")}),
        ("use 6 or 26", (mask, ~mask, click, IDENTITY), {"connectivity": 18}),
    ]:
        with pytest.raises(InputError, match=message):
            refine(*arguments, **options)
