"""Clicks on every kind of grid: the same patient gives the same mask, smooth, at the input's own resolution."""

from __future__ import annotations

import numpy as np
import pytest
from click_backends import ball, minus, open_scene, plus, scene, straight
from geometries import affine_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_chain import rotation
from scipy import ndimage

from VISTA3DCore.imaging.geometry import apply_affine, reoriented_affine
from VISTA3DCore.inference.clicks.resample_to_input import ParallelGrids, answered_mask
from VISTA3DCore.inference.clicks.scores import ScoreMap

CENTRE, RADIUS = (6.0, -4.0, 3.0), 17.0


def centred(shape, spacing, directions=None) -> np.ndarray:
    """Return the affine of a grid whose middle lies at the origin of the patient."""
    affine = affine_of(spacing, directions, (0, 0, 0))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other))


def analytic(shape, affine, centre=CENTRE, radius=RADIUS) -> np.ndarray:
    points = apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))
    return ball(centre, radius)(points) > 0


GRIDS = {
    "axial": ((110, 100, 26), (0.8, 0.8, 3.0), None),
    "thick": ((90, 84, 12), (1.0, 1.0, 6.0), None),
    "fine": ((80, 84, 78), (0.9, 0.9, 0.9), None),
    "coarse": ((24, 26, 28), (3.0, 3.2, 2.9), None),
    "sagittal": ((26, 110, 100), (3.0, 0.8, 0.8), np.eye(3)[:, [2, 0, 1]] * [1, -1, 1]),
    "oblique": ((84, 90, 36), (1.0, 1.0, 2.5), rotation((12.0, -17.0, 25.0))),
    "oblique LPS": ((84, 90, 36), (1.0, 1.0, 2.5), rotation((-8.0, 5.0, 30.0)) * [-1, -1, 1]),
}


@pytest.mark.parametrize(("shape", "spacing", "directions"), GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("policy", ["reuse", "centred"])
def test_a_ball_comes_back_as_a_ball(shape, spacing, directions, policy):
    affine = centred(shape, spacing, directions)
    session = open_scene(scene(shape, affine, ball(CENTRE, RADIUS), soft=4.0))
    result = session.click("liver", [plus(*CENTRE)], policy=policy)
    assert dice(result.mask, analytic(shape, affine)) > 0.95
    assert result.mask.shape == shape


def test_surfaces_do_not_show_the_steps_of_the_model_grid():
    """Four input voxels lie within a voxel of the model grid on each axis; the mask decides for each of them."""
    shape = (100, 96, 92)
    affine = centred(shape, (0.5, 0.5, 0.5))
    session = open_scene(scene(shape, affine, ball(CENTRE, RADIUS), soft=4.0))
    mask, truth = session.click("liver", [plus(*CENTRE)]).mask, analytic(shape, affine)
    blocky = ParallelGrids(affine, shape, session.model_grid[1], session.model_grid[0].shape)
    whole = tuple(slice(0, size) for size in shape)
    on_model = blocky.mask_on_model(truth, tuple(slice(0, size) for size in session.model_grid[0].shape))
    _, nearest = answered_mask(ScoreMap((0, 0, 0), on_model.astype(np.float32), on_model), blocky, whole)
    errors, blocky_errors = (np.count_nonzero(one != truth) for one in (mask, nearest))
    assert errors * 3 < blocky_errors
    first_voxels = {int(np.argmax(mask[:, j, 46])) for j in range(30, 60)}
    assert {first % 4 for first in first_voxels} == {0, 1, 2, 3}


@settings(max_examples=6)
@given(
    permutation=st.permutations([0, 1, 2]),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    positive=st.booleans(),
)
def test_flipped_and_permuted_arrays_give_the_same_physical_mask(permutation, flips, positive):
    shape, affine = (34, 40, 30), centred((34, 40, 30), (2.0, 2.0, 2.0))
    volume = scene(shape, affine, ball(CENTRE, RADIUS), ball((-20, 20, 10), 6.0), soft=4.0)
    clicks = [plus(*CENTRE), minus(20, -4, 3)] if positive else [minus(-20, 20, 10)]
    base = None if positive else analytic(shape, affine, (-20, 20, 10), 4.0)

    def moved(array: np.ndarray) -> np.ndarray:
        return np.flip(array, [axis for axis in range(3) if flips[axis]]).transpose(permutation)

    other = type(volume)(moved(volume.array), reoriented_affine(affine, shape, tuple(permutation), flips))
    expected = open_scene(volume).click("liver", clicks, base)
    found = open_scene(other).click("liver", clicks, None if base is None else moved(base))
    assert expected.changed
    assert dice(found.mask, moved(expected.mask)) > 0.999 if positive else not found.mask.any()
    assert found.touched == expected.touched


def grids_of(data) -> ParallelGrids:
    """Draw an input grid anywhere in space and a model grid parallel to it, somewhere near."""
    angles = data.draw(st.tuples(*[st.floats(-25, 25)] * 3))
    order, signs = data.draw(st.permutations([0, 1, 2])), data.draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    spacing = np.array(data.draw(st.tuples(*[st.floats(0.6, 4.0)] * 3)))
    shape = data.draw(st.tuples(*[st.integers(3, 11)] * 3))
    target = np.eye(4)
    target[:3, :3] = (rotation(angles)[:, order] * signs) * spacing
    target[:3, 3] = data.draw(st.tuples(*[st.floats(-90, 90)] * 3))
    probe = ParallelGrids(target, shape, np.eye(4), shape)
    model_shape = data.draw(st.tuples(*[st.integers(2, 9)] * 3))
    model = np.eye(4)
    for axis, source in enumerate(probe.permutation):
        direction = target[:3, source] / np.linalg.norm(target[:3, source])
        model[:3, axis] = 1.5 * direction * (1 if direction[axis] > 0 else -1)
    middle = apply_affine(target, (np.array(shape) - 1) / 2) + data.draw(st.tuples(*[st.floats(-4, 4)] * 3))
    model[:3, 3] = middle - model[:3, :3] @ ((np.array(model_shape) - 1) / 2)
    return ParallelGrids(target, shape, model, model_shape)


def indices(box) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(part.start, part.stop) for part in box], indexing="ij"), axis=-1)


def near_a_half(places: np.ndarray) -> np.ndarray:
    """Where rounding decides."""
    return np.any(np.abs(places % 1 - 0.5) < 1e-6, axis=-1)


@settings(max_examples=60)
@given(data=st.data())
def test_input_voxels_in_a_model_box_are_found(data):
    grids = grids_of(data)
    box = tuple(map(slice, *data.draw(boxes(-3, 12))))
    found = np.zeros(grids.target_shape, dtype=bool)
    found[grids.target_box(box)] = True
    places = grids.to_model(apply_affine(grids.target_affine, indices([slice(0, size) for size in grids.target_shape])))
    low, high = np.array([part.start for part in box]) - 0.5, np.array([part.stop for part in box]) - 0.5
    expected = np.all((places >= low) & (places <= high), axis=-1)
    clear = ~np.any((np.abs(places - low) < 1e-5) | (np.abs(places - high) < 1e-5), axis=-1)
    np.testing.assert_array_equal(found[clear], expected[clear])


def boxes(low: int, high: int):
    starts = st.tuples(*[st.integers(low, high - 1)] * 3)
    sizes = st.tuples(*[st.integers(1, 6)] * 3)
    return st.tuples(starts, sizes).map(lambda box: (box[0], tuple(a + b for a, b in zip(*box, strict=True))))


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 99))
def test_masks_on_the_model_grid_are_those_of_the_nearest_input_voxel(data, seed):
    grids = grids_of(data)
    mask = np.random.default_rng(seed).random(grids.target_shape) < 0.5
    box = tuple(map(slice, *data.draw(boxes(-3, 9))))
    voxels = indices(box)
    places = grids.to_target(apply_affine(grids.model_affine, voxels))
    nearest, last = np.floor(places + 0.5).astype(int), np.array(mask.shape) - 1
    # Along the model grid's own axes the input's border is repeated within it; elsewhere nothing lies beyond.
    permutation = np.argsort(grids.permutation)
    repeated = ((voxels >= 0) & (voxels < grids.model_shape))[..., permutation]
    beyond = np.any(((nearest < 0) | (nearest > last)) & ~repeated, axis=-1)
    expected = mask[tuple(np.clip(nearest, 0, last).transpose(3, 0, 1, 2))] & ~beyond
    clear = ~near_a_half(places)
    np.testing.assert_array_equal(grids.mask_on_model(mask, box)[clear], expected[clear])


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 99), order=st.sampled_from("CF"))
def test_answers_are_interpolated_between_the_model_voxels(data, seed, order):
    grids, random = grids_of(data), np.random.default_rng(seed)
    start = data.draw(st.tuples(*[st.integers(-4, 4)] * 3))
    scores = np.asarray(random.standard_normal(data.draw(st.tuples(*[st.integers(2, 9)] * 3))), dtype=np.float32)
    score_map = ScoreMap(start, np.asarray(scores, order=order), random.random(scores.shape) < 0.8)
    lows = [data.draw(st.integers(0, size - 1)) for size in grids.target_shape]
    box = tuple(
        slice(low, data.draw(st.integers(low + 1, size))) for low, size in zip(lows, grids.target_shape, strict=True)
    )
    positive, known = answered_mask(score_map, grids, box)
    places = grids.to_model(apply_affine(grids.target_affine, indices(box)))
    size = np.array(grids.model_shape)
    rim = (places >= -0.5) & (places <= size - 0.5)
    clear = ~np.any(np.abs(np.abs(places - (size - 1) / 2) - size / 2) < 1e-5, axis=-1)
    places = np.where(rim, np.clip(places, 0, size - 1), places) - start
    expected = ndimage.map_coordinates(scores.astype(float), places.transpose(3, 0, 1, 2), order=1, mode="nearest")
    sure = clear & (np.abs(expected) > 1e-4)
    np.testing.assert_array_equal(positive[sure], expected[sure] > 0)
    nearest = np.floor(places + 0.5).astype(int)
    inside = np.all((nearest >= 0) & (nearest < scores.shape), axis=-1)
    voxels = tuple(np.clip(nearest, 0, np.array(scores.shape) - 1).transpose(3, 0, 1, 2))
    clear &= ~near_a_half(places)
    np.testing.assert_array_equal(known[clear], (inside & score_map.known[voxels])[clear])


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (0.7, 0.9, 1.3), (3.1, 2.6, 4.4)])
def test_the_border_of_the_volume_belongs_to_objects_that_reach_it(spacing):
    """The window goes on beyond the volume, where the network sees air; that must not eat the outer voxels."""
    shape = tuple(int(50 / length) for length in spacing)
    volume = scene(shape, straight(spacing), lambda points: 30 - points[..., 0])
    mask = open_scene(volume).click("liver", [plus(10, 20, 20)]).mask
    mask[:4, :4, :4] = True  # a speck of air lies in the corner
    assert mask[: int(26 / spacing[0])].all()
    assert not mask[int(34 / spacing[0]) :].any()
