"""Prompts obey their rules, whatever the patch looks like."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.training.click_sampling import clickable, draw_counts, error_clicks
from VISTA3DCore.training.datasets import FIRST_UNION, IGNORE, LabelMeaning
from VISTA3DCore.training.prompts import (
    AUTOMATIC,
    INTERACTIVE,
    ZERO_SHOT,
    PromptConfig,
    PromptObject,
    next_prompts,
    sample_prompts,
)
from VISTA3DCore.training.supervoxel_objects import REGULAR
from VISTA3DCore.training.targets import MERGED, target_of

SIDE = 32
SPECIAL = [one.index for one in catalogue() if one.special_click_tokens]


@dataclass
class Patch:
    label: np.ndarray
    pseudo_label: np.ndarray | None = None
    supervoxel: np.ndarray | None = None


def _blobs(rng: np.random.Generator, codes: list[int]) -> np.ndarray:
    """Return overlapping boxes, each with a code."""
    label = np.zeros((SIDE,) * 3, np.uint8)
    for code in codes:
        start = rng.integers(0, SIDE - 4, 3)
        stop = start + rng.integers(1, SIDE // 2, 3)
        label[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = code
    return label


def _blocks(side: int = 8) -> np.ndarray:
    """Return supervoxels: cubes."""
    i, j, k = np.indices((SIDE,) * 3) // side
    count = SIDE // side
    return (1 + (i * count + j) * count + k).astype(np.int32)


codes = st.lists(st.sampled_from([1, 3, 4, 5, 14, 23, 24, 26, 57, 128, FIRST_UNION, IGNORE]), max_size=6)
patches = st.builds(
    lambda seed, codes: (np.random.default_rng(seed), _blobs(np.random.default_rng(seed), codes)),
    st.integers(0, 2**16),
    codes,
)
MEANING = LabelMeaning(unions=((28, 29),), annotated=(1, 3, 4, 5, 14, 23, 24, 26, 57, 128, FIRST_UNION), complete=True)


def _check(one: PromptObject) -> None:
    """What holds for every object."""
    assert not (one.target & ~one.valid).any()
    if one.clicks is not None:
        points, positive = one.clicks
        assert np.array_equal(one.target[tuple(points.T)], positive)
        assert one.valid[tuple(points.T)].all()
        assert positive.any()


@given(
    patches, st.booleans(), st.sampled_from([INTERACTIVE, AUTOMATIC, PromptConfig(drop_label=0.5, max_background=2)])
)
@settings(max_examples=60)
def test_positive_clicks_are_inside_negative_ones_outside_and_special_classes_regular(drawn, cut, config):
    rng, label = drawn
    objects = sample_prompts(Patch(label, None, _blocks() if cut else None), MEANING, config, rng)

    for one in objects:
        _check(one)
        assert one.ask or one.clicks is not None
        assert one.special == bool(set(one.classes) & set(SPECIAL))
        if one.special:
            assert (one.kind, one.zero_shot) == (REGULAR, False)
    present = [one for one in objects if one.target.any()]
    assert len(present) <= config.max_foreground
    assert len(objects) - len(present) <= config.max_background
    if config is AUTOMATIC:
        assert all(one.ask and one.clicks is None for one in objects)
    if config is INTERACTIVE:
        assert not any(one.ask for one in objects)


@given(st.integers(0, 2**16), st.integers(1, 5))
def test_at_most_as_many_first_clicks_as_allowed(seed, most):
    rng = np.random.default_rng(seed)
    positive, negative = draw_counts(most, rng)
    assert 1 <= positive <= most
    assert 0 <= negative <= most
    label = _blobs(rng, [3])
    for one in sample_prompts(Patch(label), MEANING, PromptConfig(max_points=most), rng):
        assert one.clicks[1].sum() <= most
        assert (~one.clicks[1]).sum() <= most


@given(st.integers(0, 2**16))
def test_clicks_keep_the_margin_and_stay_off_the_surface_where_there_is_room(seed):
    rng = np.random.default_rng(seed)
    label = _blobs(rng, [3, 5])
    margin = PromptConfig().margin_voxels(label.shape)
    for one in sample_prompts(Patch(label), MEANING, INTERACTIVE, rng):
        points = one.clicks[0][one.clicks[1]]
        room = clickable(one.target, margin)
        if room.any():
            assert points.min() >= margin
            assert points.max() < SIDE - margin
            assert room[tuple(points.T)].all()


def test_the_margin_is_the_papers_in_its_window_and_scales_with_others():
    assert INTERACTIVE.margin_voxels((128, 128, 128)) == 10
    assert INTERACTIVE.margin_voxels((48, 48, 48)) == 4
    assert INTERACTIVE.smallest_voxels((128, 128, 128)) == 20**3


@given(patches)
@settings(max_examples=60)
def test_nothing_is_learned_about_what_a_dataset_does_not_annotate(drawn):
    rng, label = drawn
    partial = LabelMeaning(unions=((28, 29),), annotated=(3, FIRST_UNION), complete=False)
    config = PromptConfig(drop_label=0.0, drop_clicks=0.5, max_background=8, max_foreground=None)

    objects = sample_prompts(Patch(np.where(label == 5, 0, label).astype(np.uint8)), partial, config, rng)

    assert {one.classes for one in objects} <= {(3,), (28, 29)}
    assert all(one.valid[label == 0].all() for one in objects)
    assert not any(one.valid[label == IGNORE].any() for one in objects)


@given(patches)
@settings(max_examples=60)
def test_parents_contain_their_parts(drawn):
    _, label = drawn
    for parent, parts in MERGED.items():
        target = target_of(label, (parent,), MEANING)
        assert np.array_equal(target.inside, np.isin(label, (parent, *parts)))
    union = target_of(label, (28, 29), MEANING)
    assert np.array_equal(union.inside, label == FIRST_UNION)
    part = target_of(label, (28,), MEANING)
    assert not part.inside.any()
    assert not part.valid[label == FIRST_UNION].any()


def test_a_group_is_all_of_its_members_and_a_lesion_in_a_lobe_is_nobodys():
    label = np.array([[[5, 14, 28, 23, 0]]], np.uint8)
    assert target_of(label, (2,), MEANING).inside.tolist() == [[[True, True, False, False, False]]]
    lobe = target_of(label, (28,), MEANING)
    assert lobe.valid.tolist() == [[[True, True, True, False, True]]]
    assert target_of(label, (1,), MEANING).valid.all()


def test_an_object_without_class_is_clicked_as_unknown_and_never_asked_for():
    meaning = LabelMeaning(unions=((),), annotated=(3,), complete=False)
    label = np.zeros((SIDE,) * 3, np.uint8)
    label[8:20, 8:20, 8:20], label[22:28, 8:20, 8:20] = 3, FIRST_UNION
    rng = np.random.default_rng(0)

    spleen, unknown = sample_prompts(Patch(label), meaning, INTERACTIVE, rng)
    assert (spleen.token, unknown.token, unknown.classes) == (3, ZERO_SHOT, ())
    assert not spleen.valid[label == FIRST_UNION].any()
    told = sample_prompts(Patch(label), meaning, AUTOMATIC, rng)
    assert [one.classes for one in told if one.target.any()] == [(3,)]


def test_predictions_serve_for_what_is_not_annotated():
    meaning = LabelMeaning(annotated=(3,), complete=False)
    label, pseudo = np.zeros((SIDE,) * 3, np.uint8), np.zeros((SIDE,) * 3, np.uint8)
    label[4:14, 4:14, 4:14] = pseudo[4:14, 4:14, 4:14] = 3
    pseudo[18:28, 4:28, 4:28] = 1

    objects = sample_prompts(Patch(label, pseudo), meaning, INTERACTIVE, np.random.default_rng(1))

    assert [(one.classes, one.pseudo) for one in objects] == [((3,), False), ((1,), True)]
    assert np.array_equal(objects[1].target, pseudo == 1)


def test_what_a_predicting_model_did_not_look_for_is_not_absent():
    pseudo = np.zeros((SIDE,) * 3, np.uint8)
    pseudo[18:28, 4:28, 4:28] = 26
    config = PromptConfig(drop_label=0.0, drop_clicks=1.0, max_background=None, classes=(1, 3, 23, 26, 128))

    def asked(predicted: tuple[int, ...] | None) -> dict[tuple[int, ...], bool]:
        meaning = LabelMeaning(predicted=predicted)
        objects = sample_prompts(Patch(np.zeros_like(pseudo), pseudo), meaning, config, np.random.default_rng(1))
        return {one.classes: bool(one.target.any()) for one in objects}

    assert asked((3, 26)) == {(3,): False, (26,): True}
    # Where the list does not say, lesions are there or nothing is known about them.
    assert asked(None) == {(1,): True, (3,): False, (26,): True}


@given(st.integers(0, 2**16), st.integers(0, 6), st.booleans())
def test_iterative_clicks_lie_on_errors_of_known_voxels(seed, shift, small):
    rng = np.random.default_rng(seed)
    target = _blobs(rng, [1, 1]) > 0
    answer, valid = np.roll(target, shift, axis=0), rng.random(target.shape) < 0.9
    points, positive = error_clicks(target & valid, answer, rng, valid=valid, margin=3, small_errors=small)

    assert positive.sum() <= 1
    assert (~positive).sum() <= 1
    wrong = (target != answer) & valid
    assert wrong[tuple(points.T)].all()
    assert np.array_equal(target[tuple(points.T)], positive)
    if small:
        assert bool(len(points)) == wrong.any()


def test_five_rounds_of_clicks_keep_the_earlier_ones():
    rng = np.random.default_rng(0)
    label = _blobs(rng, [3, 5])
    objects = sample_prompts(Patch(label), MEANING, replace(INTERACTIVE, small_errors=True), rng)
    first = [one.clicks for one in objects]
    for _ in range(INTERACTIVE.iterations - 1):
        answers = np.stack([rng.random(label.shape) < 0.5 for _ in objects])
        objects = next_prompts(objects, answers, INTERACTIVE, rng)
    for one, (points, positive) in zip(objects, first, strict=True):
        _check(one)
        assert np.array_equal(one.clicks[0][: len(points)], points)
        assert len(one.clicks[1]) <= len(positive) + 2 * (INTERACTIVE.iterations - 1)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_prompts(seed):
    label = _blobs(np.random.default_rng(seed), [1, 3, 5, 26])
    runs = [
        sample_prompts(Patch(label, None, _blocks()), MEANING, INTERACTIVE, np.random.default_rng(seed))
        for _ in range(2)
    ]
    for one, other in zip(*runs, strict=True):
        assert (one.classes, one.token, one.kind) == (other.classes, other.token, other.kind)
        assert np.array_equal(one.clicks[0], other.clicks[0])
        assert np.array_equal(one.target, other.target)
