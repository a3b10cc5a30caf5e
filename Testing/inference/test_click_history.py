"""A click sequence is a list: whatever happens to it, the answer is that of the list, from the start."""

from __future__ import annotations

import numpy as np
import pytest
from click_backends import RuleBackend, ball, minus, open_scene, plus, scene, straight, texture
from reference_pipeline import TINY, seeded_network

from VISTA3DCore import Click, Segmenter, Session
from VISTA3DCore.backends.torch_backend import TorchBackend

SHAPE = (46, 32, 36)
BACKEND = TorchBackend(seeded_network(TINY), TINY)
VOLUME = texture(SHAPE, seed=3)
CLICKS = [plus(30, 30, 25), plus(33, 42, 20), minus(24, 21, 27), plus(60, 30, 40), minus(39, 33, 31)]


def fresh(**options) -> Session:
    return Segmenter(BACKEND).open(VOLUME, **options)


@pytest.fixture(scope="module")
def base() -> np.ndarray:
    random = np.random.default_rng(1)
    mask = random.random(SHAPE) < 0.3
    mask[10:30, 10:30, 10:30] = True
    return mask


@pytest.fixture(scope="module")
def used(base) -> Session:
    """A session in which much was clicked already."""
    session = fresh()
    for count in range(1, len(CLICKS) + 1):
        session.click("liver", CLICKS[:count])
        session.click("spleen", CLICKS[:count], base)
    session.click("hepatic tumor", CLICKS[::-1])
    return session


def flipped(click: Click) -> Click:
    return Click(click.position, not click.positive)


def moved(click: Click) -> Click:
    return Click(tuple(np.add(click.position, (3.0, -4.5, 2.0))), click.positive)


CHANGES = {
    "remove the first": CLICKS[1:],
    "remove one between": [*CLICKS[:2], *CLICKS[3:]],
    "remove the last": CLICKS[:-1],
    "move one": [CLICKS[0], moved(CLICKS[1]), *CLICKS[2:]],
    "flip one": [*CLICKS[:2], flipped(CLICKS[2]), *CLICKS[3:]],
    "flip the first": [flipped(CLICKS[0]), *CLICKS[1:]],
    "one more": [*CLICKS, plus(15, 15, 15)],
}


@pytest.mark.parametrize("changed", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("policy", ["reuse", "centred"])
@pytest.mark.parametrize("with_base", [False, True], ids=["from nothing", "with base"])
def test_a_changed_list_gives_what_a_fresh_session_gives(used, base, changed, policy, with_base):
    arguments = {"base": base if with_base else None, "policy": policy}
    found = used.click("liver", changed, **arguments)
    expected = fresh().click("liver", changed, **arguments)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.touched == expected.touched
    assert found.box == expected.box
    assert found.encoded <= expected.encoded
    again = used.click("liver", changed, **arguments)
    assert again.encoded == 0
    np.testing.assert_array_equal(again.mask, expected.mask)


def test_undo_returns_the_exact_former_masks_without_encoding(base):
    session = fresh()
    former = [session.click("liver", CLICKS[:count], base) for count in range(1, len(CLICKS) + 1)]
    assert sum(result.encoded for result in former) > 0
    for count in reversed(range(1, len(CLICKS))):
        undone = session.click("liver", CLICKS[:count], base)
        np.testing.assert_array_equal(undone.mask, former[count - 1].mask)
        assert undone.encoded == 0


def test_on_an_object_in_one_window_every_change_of_the_list_is_free():
    backend = RuleBackend()
    session = open_scene(scene((60, 60, 60), straight(), ball((60, 60, 60), 14)), backend)
    clicks = [plus(60, 60, 60), plus(52, 60, 64), minus(66, 66, 60), plus(60, 70, 60)]
    session.click("liver", clicks[:1])
    assert backend.encodings == 1
    lists = [clicks, clicks[1:], [clicks[0], *clicks[2:]], [flipped(clicks[1]), *clicks[2:]], [moved(clicks[0])]]
    assert [session.click("liver", changed).encoded for changed in lists] == [0] * len(lists)
    assert backend.encodings == 1


@pytest.mark.parametrize("policy", ["reuse", "centred"])
def test_neither_former_questions_nor_evicted_windows_matter(base, policy):
    """The cache of the wandering session holds a single window."""
    one_window = 8 * 16**3 * 2
    wandering, random = fresh(click_cache_bytes=one_window), np.random.default_rng(5)
    encoded = 0
    for _ in range(3):
        chosen = [CLICKS[number] for number in random.permutation(len(CLICKS))[: random.integers(1, 5)]]
        mask = base if random.random() < 0.5 or not any(click.positive for click in chosen) else None
        found = wandering.click("liver", chosen, mask, policy=policy)
        np.testing.assert_array_equal(found.mask, fresh().click("liver", chosen, mask, policy=policy).mask)
        assert wandering._clicking.interaction.encoder.cache.nbytes <= one_window
        encoded += found.encoded
    assert encoded > 2


def test_only_the_box_differs_from_the_base(used, base):
    for clicks in list(CHANGES.values())[:3]:
        result = used.click("liver", clicks, base)
        differs = result.mask != base
        assert result.changed
        assert all((part.start, part.stop) == ends(differs, axis) for axis, part in enumerate(result.box))
        np.testing.assert_array_equal(result.mask[result.box], result.patch)


def ends(mask: np.ndarray, axis: int) -> tuple[int, int]:
    rows = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    return int(rows[0]), int(rows[-1]) + 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_base_stays_as_it_is_in_any_memory_layout(used, base, order):
    given = np.array(base, order=order)
    given.flags.writeable = False
    result = used.click("liver", CLICKS, given)
    np.testing.assert_array_equal(given, base)
    np.testing.assert_array_equal(result.mask, fresh().click("liver", CLICKS, base).mask)
    assert result.mask.flags.writeable
    assert not np.shares_memory(result.mask, given)


def test_a_strided_view_is_a_base_like_any_other(used, base):
    wide = np.zeros((*SHAPE[:2], 2 * SHAPE[2]), dtype=bool)
    wide[..., ::2] = base
    np.testing.assert_array_equal(
        used.click("liver", CLICKS, wide[..., ::2]).mask, used.click("liver", CLICKS, base).mask
    )


@pytest.fixture
def two_balls() -> Session:
    return open_scene(scene((60, 40, 40), straight(), ball((30, 40, 40), 12), ball((84, 40, 40), 12)))


def test_a_click_changes_only_the_component_that_it_touches(two_balls):
    base = np.zeros((60, 40, 40), dtype=bool)
    base[40:44, 18:22, 18:22] = True
    base[2, 30:38, 2:9] = True
    result = two_balls.click("liver", [plus(30, 40, 40)], base)
    np.testing.assert_array_equal(result.mask[28:], base[28:])
    np.testing.assert_array_equal(result.mask[:, 30:], base[:, 30:])
    assert result.mask[15, 20, 20]
    assert result.box[0].stop <= 24


def test_hand_edits_elsewhere_survive_to_the_voxel(two_balls):
    first = two_balls.click("liver", [plus(30, 40, 40)]).mask
    edited = first.copy()
    noise = np.random.default_rng(2).random((20, 40, 40)) < 0.2
    edited[40:] = noise
    edited[10:12, 18:22, 18:22] = False
    clicks = [plus(30, 40, 40), plus(22, 40, 40)]
    result = two_balls.click("liver", clicks, edited, settled=1)
    np.testing.assert_array_equal(result.mask[40:], noise)
    assert result.mask[11, 20, 20]
    assert result.touched == (False, True)


def test_settled_clicks_prompt_the_network_but_select_nothing():
    backend = RuleBackend()
    session = open_scene(scene((40, 40, 40), straight(), ball((30, 40, 40), 10), ball((62, 40, 40), 8)), backend)
    clicks = [plus(30, 40, 40), plus(62, 40, 40)]
    base = np.zeros((40, 40, 40), dtype=bool)
    base[5, 5, 5] = True
    settled = session.click("liver", clicks, base, settled=1)
    assert len(backend.asked[-1].positions) == 2
    assert not settled.mask[15, 20, 20]
    assert settled.mask[31, 20, 20]
    nothing = session.click("liver", clicks, base, settled=2)
    assert nothing.touched == (False, False)
    assert not nothing.changed
    assert nothing.box == (slice(0, 0),) * 3
    np.testing.assert_array_equal(nothing.mask, base)


@pytest.mark.parametrize("policy", ["reuse", "centred"])
def test_warming_encodes_ahead_of_the_click(policy):
    backend = RuleBackend()
    session = open_scene(scene((60, 60, 60), straight(), ball((60, 60, 60), 12)), backend)
    assert session.warm((60, 60, 60), policy=policy) == 1
    assert session.warm((60, 60, 60), policy=policy) == 0
    assert backend.asked == []
    result = session.click("liver", [plus(60, 60, 60)], policy=policy)
    assert result.encoded == 0
    assert result.mask[30, 30, 30]
    assert backend.encodings == 1


def test_forgetting_everything_changes_no_answer(base):
    session = fresh()
    before = session.click("liver", CLICKS, base)
    session.free_caches()
    after = session.click("liver", CLICKS, base)
    assert after.encoded == before.encoded > 0
    np.testing.assert_array_equal(after.mask, before.mask)
