"""Objects larger than a window: neighbours answer too, so that no mask ends at a box's side."""

from __future__ import annotations

import numpy as np
import pytest
from click_backends import AIR, OBJECT, RULE, RuleBackend, ball, minus, open_scene, plus, scene, straight, tube

from VISTA3DCore import Volume
from VISTA3DCore.inference.clicks.propagation import MOST_NEIGHBOURS

SIDE = RULE.window[0]
LONG = (40, 36, 150)


@pytest.fixture(scope="module")
def long_tube() -> Volume:
    return scene(LONG, straight(), tube((40, 36, 0), 14))


def around(mask: np.ndarray, truth: np.ndarray) -> bool:
    """Whether two masks agree but for a voxel at the surface."""
    return np.count_nonzero(mask != truth) <= 0.02 * np.count_nonzero(truth)


def truth_of(volume: Volume) -> np.ndarray:
    return volume.array > (OBJECT + 50) / 2


@pytest.mark.parametrize("height", [150.0, 20.0, 280.0])
def test_an_object_larger_than_a_window_has_no_box_shaped_cut_off(long_tube, height):
    backend = RuleBackend()
    result = open_scene(long_tube, backend).click("liver", [plus(40, 36, height)])
    reached = np.flatnonzero(result.mask.any(axis=(0, 1)))
    assert around(result.mask[..., reached[0] : reached[-1]], truth_of(long_tube)[..., reached[0] : reached[-1]])
    # Half a window further each; the bound ends it, or the volume.
    assert len(reached) >= min(SIDE + MOST_NEIGHBOURS * SIDE // 2, LONG[2]) - SIDE // 2
    assert 1 < result.encoded <= 1 + MOST_NEIGHBOURS


def test_with_centred_windows_it_is_cut_as_by_the_reference(long_tube):
    backend = RuleBackend()
    result = open_scene(long_tube, backend).click("liver", [plus(40, 36, 150)], policy="centred")
    reached = np.flatnonzero(result.mask.any(axis=(0, 1)))
    assert (reached[0], reached[-1] + 1) == (75 - SIDE // 2, 75 + SIDE // 2)
    assert result.encoded == backend.encodings == 1


def test_the_middle_of_a_large_ball_is_enough():
    volume = scene((64, 60, 62), straight(), ball((62, 60, 60), 46))
    result = open_scene(volume).click("liver", [plus(62, 60, 60)])
    assert result.encoded > 3
    assert around(result.mask, truth_of(volume))


def test_an_object_in_the_middle_of_its_window_needs_no_other():
    backend = RuleBackend()
    result = open_scene(scene((60, 60, 60), straight(), ball((60, 60, 60), 14)), backend).click(
        "liver", [plus(60, 60, 60)]
    )
    assert result.encoded == backend.encodings == 1
    assert len(backend.asked) == 1


def test_growth_is_bounded_where_everything_is_one_object():
    image = np.full((90, 90, 90), OBJECT, dtype=np.float32)
    image[0, 0, 0] = AIR
    backend = RuleBackend()
    result = open_scene(Volume(image, straight()), backend).click("liver", [plus(90, 90, 90)])
    assert result.encoded == backend.encodings == 1 + MOST_NEIGHBOURS
    assert len(backend.asked) == 1 + MOST_NEIGHBOURS


def test_other_objects_at_the_windows_side_do_not_make_it_grow():
    volume = scene((60, 60, 60), straight(), ball((60, 60, 60), 10), tube((86, 60, 0), 6))
    result = open_scene(volume).click("liver", [plus(60, 60, 60)])
    assert result.encoded == 1
    assert not result.mask[43, 30].any()


def test_neighbours_without_a_click_learn_from_places_deep_inside_the_object(long_tube):
    backend = RuleBackend()
    open_scene(long_tube, backend).click("liver", [plus(40, 36, 150)])
    # Of the lattice's windows, the click's begins at voxel 8 and 4; the tube's axis lies at 20 and 18, its radius is 7.
    for tokens in backend.asked[1:]:
        assert any(tokens.positive)
        for place in tokens.positions:
            assert np.hypot(place[0] + 8 - 20, place[1] + 4 - 18) <= 4


def test_what_a_negative_click_removes_is_followed_beyond_its_window(long_tube):
    """The base is wrong all along the tube; the network calls the place of the click background, and its seeds."""
    backend = RuleBackend()
    session = open_scene(scene(LONG, straight(), ball((16, 16, 150), 8)), backend)
    base = np.zeros(LONG, dtype=bool)
    base[18:23, 16:21, 20:130] = True
    result = session.click("liver", [plus(16, 16, 150), minus(40, 36, 150)], base)
    assert result.touched[1]
    remains = np.flatnonzero(result.mask[18:23, 16:21].any(axis=(0, 1)))
    assert len(remains) < 20
    assert 1 < result.encoded <= 1 + MOST_NEIGHBOURS


def test_a_negative_click_alone_is_told_what_the_object_is():
    """Without any positive place, the network would know of no object, and the whole component would go."""
    backend = RuleBackend()
    session = open_scene(scene((60, 60, 60), straight(), ball((60, 60, 60), 16)), backend)
    base = session.click("liver", [plus(60, 60, 60)]).mask
    base[28:33, 28:33, 36:48] = True
    result = session.click("liver", [minus(60, 60, 86)], base)
    positive = [place for place, kind in zip(*seen(backend), strict=True) if kind]
    assert positive
    assert result.touched == (True,)
    assert not result.mask[30, 30, 43]
    assert result.mask[30, 30, 30]
    assert not (result.mask & ~base).any()


def seen(backend: RuleBackend) -> tuple:
    return backend.asked[-1].positions, backend.asked[-1].positive


def test_centred_windows_get_the_clicks_and_nothing_else():
    backend = RuleBackend()
    session = open_scene(scene((60, 60, 60), straight(), ball((60, 60, 60), 16)), backend)
    base = np.zeros((60, 60, 60), dtype=bool)
    base[28:33, 28:33, 28:33] = True
    session.click("liver", [minus(60, 60, 60)], base, policy="centred")
    assert seen(backend) == (((16.0, 16.0, 16.0),), (False,))


def test_a_click_deep_in_an_earlier_clicks_window_needs_no_other():
    """An eighth of the window's side, 4 voxels here, is deep; the volume's border counts as deep, too."""
    backend = RuleBackend()
    session = open_scene(scene((90, 20, 20), straight(), ball((64, 20, 20), 6)), backend)
    first = plus(64, 20, 20)
    session.click("liver", [first])
    assert session.click("liver", [first, plus(64 + 20, 2, 38)]).encoded == 0
    assert session.click("liver", [first, plus(64 + 2 * 15, 20, 20)]).encoded == 1
    assert len({tokens.positions for tokens in backend.asked}) == 4
