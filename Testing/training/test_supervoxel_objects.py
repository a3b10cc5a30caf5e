"""Unknown objects cut out of supervoxels: four kinds, each with its rules."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.training.datasets import IGNORE, LabelMeaning, PatchData
from VISTA3DCore.training.prompts import INTERACTIVE, ZERO_SHOT, PromptConfig, sample_prompts
from VISTA3DCore.training.supervoxel_objects import (
    KINDS,
    ORGAN_ADD,
    ORGAN_SUB,
    REGULAR,
    ZERO_SHOT_RANDOM,
    ZERO_SHOT_UNSEEN,
    Parts,
    dilated,
    opened_largest,
    organ_add,
    organ_sub,
    zero_shot_random,
    zero_shot_unseen,
)

SIDE = 32
COMPLETE = LabelMeaning(annotated=(1, 3, 26), complete=True)


def _patch(cell: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return organs 1 (with a notch) and 3 side by side, and cubes as supervoxels."""
    label = np.zeros((SIDE,) * 3, np.uint8)
    label[4:14, 4:28, 4:28], label[18:28, 4:16, 4:28] = 1, 3
    label[7:14, 17:28, 4:28] = 0
    i, j, k = np.indices(label.shape) // cell
    return label, (1 + (i * 8 + j) * 8 + k).astype(np.int32)


def _parts(cell: int = 8, prompted: tuple[int, ...] = (1,)) -> Parts:
    label, supervoxel = _patch(cell)
    return Parts(supervoxel, label, label == 0, frozenset(prompted), 3, 2, 125, 0.5)


def _true(one) -> None:
    points, positive = one.clicks
    assert np.array_equal(one.target[tuple(points.T)], positive)
    assert points.min() >= 2
    assert points.max() < SIDE - 2


@given(st.integers(0, 2**16))
@settings(max_examples=30)
def test_a_part_of_the_organ_goes_or_stays_alone(seed):
    parts, rng = _parts(16), np.random.default_rng(seed)
    organ = parts.label == 1
    one = organ_sub(parts, organ, rng)

    _true(one)
    assert not (one.target & ~organ).any()
    assert 0.1 * organ.sum() <= one.target.sum() <= 0.9 * organ.sum()
    assert one.clicks[1].any()
    assert (~one.clicks[1]).sum() == 1


@given(st.integers(0, 2**16))
@settings(max_examples=30)
def test_an_organ_grows_by_a_tenth_into_the_background(seed):
    parts, rng = _parts(16), np.random.default_rng(seed)
    organ = parts.label == 1
    one = organ_add(parts, organ, rng)

    _true(one)
    added = one.target & ~organ
    assert one.target[organ].all()
    assert not added[~parts.background].any()
    assert added.sum() >= 0.1 * organ.sum()
    inside = organ[tuple(one.clicks[0].T)]
    assert inside.any()
    assert not inside.all()


@given(st.integers(0, 2**16))
@settings(max_examples=30)
def test_an_unseen_object_is_background_and_large_enough(seed):
    parts = _parts(8)
    one = zero_shot_unseen(parts, None, np.random.default_rng(seed))

    _true(one)
    assert one.zero_shot
    assert one.target.sum() >= parts.smallest
    assert not one.target[~parts.background].any()


@given(st.integers(0, 2**16))
@settings(max_examples=30)
def test_a_random_object_takes_organs_with_it_but_none_that_is_asked_for(seed):
    parts = _parts(16)
    one = zero_shot_random(parts, None, np.random.default_rng(seed))

    _true(one)
    assert one.zero_shot
    assert not (one.target & (parts.label == 1)).any()
    assert parts.background[one.target].any()


def test_nothing_suitable_gives_nothing():
    label, _ = _patch()
    empty = Parts(np.zeros(label.shape, np.int32), label, label == 0, frozenset(), 3, 2, 125, 0.5)
    rng = np.random.default_rng(0)
    for make in (organ_sub, organ_add, zero_shot_unseen, zero_shot_random):
        assert make(empty, label == 1, rng) is None
    assert not opened_largest(np.zeros((5, 5, 5), bool)).any()
    assert not dilated(np.zeros((5, 5, 5), bool), 3).any()


def test_kinds_come_as_often_as_in_the_paper():
    label, supervoxel = _patch(16)
    patch, rng = (
        PatchData(np.zeros(label.shape, np.float32), label, COMPLETE, None, supervoxel),
        np.random.default_rng(0),
    )
    config = PromptConfig(max_foreground=1)
    kinds = [one.kind for _ in range(300) for one in sample_prompts(patch, COMPLETE, config, rng)]
    shares = {kind: kinds.count(kind) / len(kinds) for kind in KINDS}
    assert 0.5 < shares[REGULAR] < 0.75
    assert all(0.03 < shares[kind] < 0.18 for kind in (ORGAN_SUB, ORGAN_ADD, ZERO_SHOT_UNSEEN, ZERO_SHOT_RANDOM))


def test_unknown_objects_have_the_unknown_token_and_no_class():
    label, supervoxel = _patch(16)
    config = PromptConfig(kinds=(0.0, 0.25, 0.25, 0.25, 0.25), max_foreground=None)
    patch, rng = (
        PatchData(np.zeros(label.shape, np.float32), label, COMPLETE, None, supervoxel),
        np.random.default_rng(0),
    )
    objects = [one for _ in range(20) for one in sample_prompts(patch, COMPLETE, config, rng)]
    for one in objects:
        assert (one.token == ZERO_SHOT) == (one.classes == ())
        if one.kind in (ZERO_SHOT_UNSEEN, ZERO_SHOT_RANDOM):
            assert one.zero_shot
    assert {one.zero_shot for one in objects if one.kind == ORGAN_ADD} == {True, False}


def test_partial_annotations_never_lend_their_background():
    label, supervoxel = _patch(16)
    patch = PatchData(np.zeros(label.shape, np.float32), label, COMPLETE, None, supervoxel)
    partial = LabelMeaning(annotated=(1, 3), complete=False)
    rng = np.random.default_rng(0)
    assert {one.kind for _ in range(30) for one in sample_prompts(patch, partial, INTERACTIVE, rng)} == {REGULAR}


def test_a_ct_without_labels_teaches_unseen_objects():
    _, supervoxel = _patch(8)
    nothing = np.zeros(supervoxel.shape, np.uint8)
    nothing[:4] = IGNORE
    patch = PatchData(nothing.astype(np.float32), nothing, LabelMeaning(), None, supervoxel)
    objects = sample_prompts(patch, LabelMeaning(), INTERACTIVE, np.random.default_rng(0))
    assert [one.kind for one in objects] == [ZERO_SHOT_UNSEEN] * 4
    assert not any(one.target[:4].any() for one in objects)
    overlap = np.sum([one.target for one in objects], axis=0)
    assert overlap.max() == 1
