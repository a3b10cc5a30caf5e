"""The result of clicks is a fold over their list: a positive click only adds to what is shown, a negative only removes.

The network of these tests is untrained, so its answers to one click more differ everywhere: the worst case.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from click_backends import RuleBackend, ball, minus, open_scene, plus, scene, straight, texture
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pipeline import TINY, seeded_network
from scipy import ndimage

from VISTA3DCore import Click, Segmenter, Session
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.inference.clicks.refinement import TOLERANCE_MM

SHAPE = (46, 32, 36)
MM = 1.5
BACKEND = TorchBackend(seeded_network(TINY), TINY)


def fresh() -> Session:
    return Segmenter(BACKEND).open(texture(SHAPE, seed=3))


@cache
def used() -> Session:
    """One session for all examples, so that what former lists left behind would show."""
    return fresh()


@cache
def speckled() -> np.ndarray:
    base = np.random.default_rng(1).random(SHAPE) < 0.3
    base[10:30, 10:30, 10:30] = True
    return base


@st.composite
def click_lists(draw: st.DrawFn) -> list[Click]:
    """Up to five clicks anywhere, on voxels of their own; the first one is positive."""
    voxels = draw(
        st.lists(st.tuples(*(st.integers(0, size - 1) for size in SHAPE)), min_size=1, max_size=5, unique=True)
    )
    polarities = [True, *draw(st.lists(st.booleans(), min_size=len(voxels) - 1, max_size=len(voxels) - 1))]
    return [Click(tuple(MM * index for index in voxel), kind) for voxel, kind in zip(voxels, polarities, strict=True)]


BASES = st.sampled_from([lambda: None, speckled])
POLICIES = st.sampled_from(["reuse", "centred"])


def course(session: Session, clicks: list[Click], base: np.ndarray | None, policy: str = "reuse") -> list[np.ndarray]:
    """Return the masks that a user sees, before the first click and after each; every question has the whole list."""
    first = np.zeros(SHAPE, dtype=bool) if base is None else base
    return [first] + [
        session.click("liver", clicks[:count], base, policy=policy).mask for count in range(1, len(clicks) + 1)
    ]


@settings(max_examples=20)
@given(click_lists(), BASES, POLICIES)
def test_a_positive_click_only_adds_and_a_negative_one_only_removes(clicks, base, policy):
    masks = course(used(), clicks, base(), policy)
    for click, before, after in zip(clicks, masks, masks[1:], strict=False):
        lost, won = before & ~after, after & ~before
        assert not (lost if click.positive else won).any()


@settings(max_examples=20)
@given(click_lists(), BASES)
def test_what_a_click_changes_is_in_one_piece_and_at_the_click(clicks, base):
    masks = course(used(), clicks, base())
    for count, (click, before, after) in enumerate(zip(clicks, masks, masks[1:], strict=False), start=1):
        changed = before ^ after
        pieces = ndimage.label(changed, np.ones((3, 3, 3)))[1]
        assert pieces == int(changed.any())
        assert used().click("liver", clicks[:count], base()).touched[-1] == changed.any()
        if pieces:
            distances = np.linalg.norm(MM * np.argwhere(changed) - click.position, axis=1)
            assert distances.min() <= TOLERANCE_MM + 1e-3


@settings(max_examples=20)
@given(click_lists(), BASES)
def test_a_click_that_the_mask_serves_already_changes_nothing(clicks, base):
    masks = course(used(), clicks, base())
    for click, before, after in zip(clicks, masks, masks[1:], strict=False):
        if before[tuple(np.rint(np.divide(click.position, MM)).astype(int))] == click.positive:
            np.testing.assert_array_equal(after, before)


@settings(max_examples=8)
@given(click_lists(), BASES, POLICIES)
def test_the_result_depends_on_base_and_list_alone(clicks, base, policy):
    shown = course(used(), clicks, base(), policy)
    at_once = fresh().click("liver", clicks, base(), policy=policy)
    np.testing.assert_array_equal(at_once.mask, shown[-1])
    for count in reversed(range(1, len(clicks))):
        undone = used().click("liver", clicks[:count], base(), policy=policy)
        np.testing.assert_array_equal(undone.mask, shown[count])
        assert undone.encoded == 0


@settings(max_examples=8)
@given(click_lists())
def test_each_click_acts_on_the_mask_shown_before_it(clicks):
    """As if that mask were the base, and the clicks before it only told the network what is meant."""
    masks = course(used(), clicks, speckled())
    for count, before in enumerate(masks[:-1]):
        one = fresh().click("liver", clicks[: count + 1], before, settled=count)
        np.testing.assert_array_equal(one.mask, masks[count + 1])


@settings(max_examples=8)
@given(click_lists(), st.data())
def test_a_base_that_was_edited_in_place_is_another_base(clicks, data):
    base = speckled().copy()
    used().click("liver", clicks, base)
    voxel = data.draw(st.tuples(*(st.integers(0, size - 1) for size in SHAPE)))
    base[voxel] = ~base[voxel]
    np.testing.assert_array_equal(used().click("liver", clicks, base).mask, fresh().click("liver", clicks, base).mask)


def two_balls(backend: RuleBackend | None = None) -> Session:
    return open_scene(scene((60, 40, 40), straight(), ball((30, 40, 40), 12), ball((84, 40, 40), 12)), backend)


# Ten clicks, each of which does something: it adds a ball, or takes a bite of one or gives it back.
TEN = [
    plus(30, 40, 40),
    minus(22, 40, 40),
    minus(38, 40, 40),
    plus(84, 40, 40),
    minus(84, 30, 40),
    minus(84, 50, 40),
    minus(30, 30, 40),
    minus(30, 50, 40),
    minus(30, 40, 30),
    minus(84, 40, 30),
]


def test_an_appended_click_costs_one_answer_and_a_changed_one_those_from_there_on():
    backend = RuleBackend()
    session = two_balls(backend)
    for count in range(1, len(TEN) + 1):
        before = len(backend.asked)
        assert session.click("liver", TEN[:count]).touched[-1]
        assert len(backend.asked) - before <= 2  # the balls lie in two windows
    encoded, before = backend.encodings, len(backend.asked)
    assert session.click("liver", TEN[:6]).touched == (True,) * 6
    assert len(backend.asked) == before  # an undo is remembered

    moved = [*TEN[:5], minus(84, 50, 42), *TEN[6:]]
    session.click("liver", moved)
    later = len(backend.asked) - before
    assert 0 < later <= 2 * 5
    session.click("liver", [plus(32, 40, 40), *TEN[1:]])
    assert 0 < len(backend.asked) - before - later <= 2 * 10
    assert backend.encodings == encoded


def test_a_negative_click_outside_of_the_mask_asks_nothing_but_tells_the_later_ones():
    backend = RuleBackend()
    session = two_balls(backend)
    first = session.click("liver", [plus(30, 40, 40)])
    asked = len(backend.asked)
    outside = [plus(30, 40, 40), minus(84, 40, 40)]
    result = session.click("liver", outside)
    assert len(backend.asked) == asked
    assert result.touched == (True, False)
    np.testing.assert_array_equal(result.mask, first.mask)
    session.click("liver", [*outside, plus(84, 50, 40)])
    assert False in backend.asked[-1].positive


def test_what_an_earlier_click_removed_comes_back_only_where_a_later_one_touches_it():
    session = two_balls()
    whole = session.click("liver", TEN[:1]).mask
    bitten = session.click("liver", [TEN[0], minus(22, 40, 40), minus(38, 40, 40)]).mask
    assert not bitten[11, 20, 20]
    assert not bitten[19, 20, 20]
    added = session.click("liver", [TEN[0], minus(22, 40, 40), minus(38, 40, 40), plus(84, 40, 40)]).mask
    np.testing.assert_array_equal(added[:28], bitten[:28])
    assert added[42, 20, 20]
    assert not (bitten & ~whole).any()


def test_a_hundred_clicks_keep_little_and_append_at_once():
    backend = RuleBackend()
    session = two_balls(backend)
    places = [(22 + 2 * i, 32 + 2 * j, 32 + 2 * k) for i in range(8) for j in range(8) for k in range(8)]
    clicks = [plus(30, 40, 40), plus(84, 40, 40), *(minus(*place) for place in places[:510:5])][:100]
    session.click("liver", clicks)
    history = session._clicking.interaction.history
    assert history.nbytes < 100 * 1024
    before = len(backend.asked)
    session.click("liver", [*clicks, minus(84, 40, 48)])
    assert len(backend.asked) - before <= 2


def test_dropped_changes_are_computed_anew():
    session = fresh()
    history = session._clicking.interaction.history
    history._budget = 600
    clicks = [plus(30, 30, 25), plus(33, 42, 20), minus(24, 21, 27), plus(60, 30, 40)]
    for count in (4, 2, 3, 4, 1):
        found = session.click("liver", clicks[:count], speckled())
        np.testing.assert_array_equal(found.mask, fresh().click("liver", clicks[:count], speckled()).mask)
        assert history.nbytes <= 600


def test_suggestions_and_doubt_are_about_what_is_shown():
    session = two_balls()
    clicks = [*TEN[:3], minus(84, 40, 40)]
    shown = session.click("liver", clicks[:3]).mask
    again = two_balls().suggest("liver", clicks[:3], count=3)
    assert session.suggest("liver", clicks[:3], count=3) == again
    np.testing.assert_array_equal(session.click("liver", clicks[:3]).mask, shown)
    np.testing.assert_array_equal(session.uncertainty("liver", clicks), two_balls().uncertainty("liver", clicks))


class Overwhelmed(RuleBackend):
    """A network that knows of no object if it is told more than its training told it."""

    def click_scores(self, features, tokens):
        scores = super().click_scores(features, tokens)
        return scores if len(tokens.positions) <= 80 else -abs(scores) - 1.0


@pytest.mark.parametrize("radius", [4.0, 8.0])
def test_many_clicks_on_one_place_find_what_one_finds(radius):
    backend = Overwhelmed()
    volume = scene((60, 40, 40), straight(), ball((40, 40, 40), 9))
    session = open_scene(volume, backend)
    directions = np.random.default_rng(0).normal(size=(300, 3))
    places = (40, 40, 40) + radius * directions / np.linalg.norm(directions, axis=1)[:, None]
    clicks = [plus(*place) for place in places]
    result = session.click("liver", clicks)
    np.testing.assert_array_equal(result.mask, open_scene(volume).click("liver", clicks[:1]).mask)
    assert result.touched[0]


def test_many_clicks_that_do_something_are_told_thinned_out():
    """Negative clicks all over a ball: each takes its bite, and the network is never told more than it can bear."""
    backend = Overwhelmed()
    session = open_scene(scene((60, 40, 40), straight(), ball((40, 40, 40), 30)), backend)
    rng = np.random.default_rng(0)
    places = 40 + rng.uniform(-16, 16, (200, 3))
    clicks = [plus(40, 40, 66), *(minus(*place) for place in places)]
    result = session.click("liver", clicks)
    assert max(len(tokens.positions) for tokens in backend.asked) <= 80
    assert result.mask[20, 20, 32]
    hit = [result.mask[tuple(np.rint(place / 2).astype(int))] for place in places]
    assert not any(hit)
