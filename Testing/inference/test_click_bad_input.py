"""What cannot be answered is said in one sentence, and nothing changes; the next click works."""

from __future__ import annotations

import re

import numpy as np
import pytest
from click_backends import RuleBackend, ball, minus, open_scene, plus, scene, straight

from VISTA3DCore import Click, Progress, Session
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.inference.clicks.scores import ENCODING

SHAPE, CENTRE = (30, 32, 34), (30.0, 32.0, 34.0)


@pytest.fixture(scope="module")
def volume():
    return scene(SHAPE, straight(), ball(CENTRE, 12))


@pytest.fixture
def session(volume) -> Session:
    return open_scene(volume)


def mask_of(*shape: int, dtype=bool, value=True) -> np.ndarray:
    mask = np.zeros(shape, dtype=dtype)
    mask[5:9, 5:9, 5:9] = value
    return mask


BASE = mask_of(*SHAPE)
REFUSED = {
    "outside": (([plus(-1.2, 32, 34)], None), {}, "outside the volume"),
    "far outside": (([plus(*CENTRE), minus(30, 32, 9000)], None), {}, "S 9000.0 mm lies outside the volume"),
    "no positive click, no base": (([minus(*CENTRE)], None), {}, "Negative clicks need a mask"),
    "no clicks": (([], None), {}, "no click"),
    "no clicks on a base": (([], BASE), {}, "no click"),
    "both polarities at one place": (([plus(*CENTRE), minus(*CENTRE)], None), {}, "on one voxel"),
    "both polarities in one voxel": (([plus(30.9, 32, 34), minus(29.1, 32, 34)], BASE), {}, "on one voxel"),
    "base of another geometry": (([plus(*CENTRE)], mask_of(30, 32, 33)), {}, "30 x 32 x 33.*30 x 32 x 34.*resample"),
    "base transposed": (([plus(*CENTRE)], BASE.T), {}, "resample"),
    "base empty": (([plus(*CENTRE)], mask_of(*SHAPE, value=False)), {}, "base mask is empty"),
    "base a label map": (([plus(*CENTRE)], mask_of(*SHAPE, dtype=np.uint8)), {}, "bool array"),
    "base a list": (([plus(*CENTRE)], BASE.tolist()), {}, "bool array"),
    "base of one number": (([plus(*CENTRE)], np.array(True)), {}, "voxels"),
    "unknown policy": (([plus(*CENTRE)], None), {"policy": "center"}, "reuse, centred"),
    "unknown variant": (([plus(*CENTRE)], None), {"variant": "paperlike"}, "paper, permissive, reference"),
    "too many settled": (([plus(*CENTRE)], BASE), {"settled": 2}, "2 settled clicks"),
    "settled below zero": (([plus(*CENTRE)], BASE), {"settled": -1}, "settled"),
    "unknown structure": (([plus(*CENTRE)], None), {"structure": "livr"}, "liver"),
    "dead class": (([plus(*CENTRE)], None), {"structure": 16}, "no trained weights"),
}


def is_one_sentence(text: str) -> bool:
    """Whether a message is one sentence, with at most a hint behind a semicolon or colon."""
    return bool(re.fullmatch(r"[-A-Z0-9][^\n]*[.?]", text)) and not re.search(r"[.?!] [A-Z]", text)


@pytest.mark.parametrize(("arguments", "options", "reason"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_sentence_and_nothing_changes(volume, arguments, options, reason):
    backend = RuleBackend()
    session = open_scene(volume, backend)
    clicks, base = arguments
    before = np.copy(base) if isinstance(base, np.ndarray) else base
    options = {"structure": "liver", **options}
    with pytest.raises(InputError, match=reason) as error:
        session.click(options.pop("structure"), clicks, base, **options)
    assert is_one_sentence(str(error.value))
    np.testing.assert_array_equal(base, before)
    assert (backend.encodings, backend.asked) == (0, [])
    assert_works(session, volume)


def assert_works(session: Session, volume) -> None:
    """Check that a session answers as a fresh one does."""
    clicks = [plus(*CENTRE), minus(*(2.0 * np.array((7, 7, 7))))]
    found, expected = session.click("liver", clicks, BASE), open_scene(volume).click("liver", clicks, BASE)
    assert expected.touched == (True, True)
    np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize(
    "position", [(np.nan, 0, 0), (0, np.inf, 0), (1, 2), (1, 2, 3, 4), ("a", 0, 0), None, 5.0, ([1], [2], [3, 4])]
)
def test_positions_that_are_none_make_no_click(position):
    with pytest.raises(InputError, match="three finite numbers") as error:
        Click(position)
    assert is_one_sentence(str(error.value))


@pytest.mark.parametrize("position", [(np.nan, 0, 0), (0, 0, 900), (1, 2)])
@pytest.mark.parametrize("ask", ["warm", "hit"])
def test_places_that_are_none_are_refused(session, volume, ask, position):
    with pytest.raises(InputError) as error:
        session.warm(position) if ask == "warm" else session.hit("kidney", position)
    assert is_one_sentence(str(error.value))
    assert_works(session, volume)


@pytest.mark.parametrize("place", [(-1.0, 32.0, 34.0), (59.0, 62.99, 67.0)])
def test_the_outer_half_voxels_belong_to_the_volume(session, place):
    assert session.click("liver", [plus(*CENTRE), minus(*place)]).touched == (True, False)


def test_a_closed_session_says_so(session):
    session.click("liver", [plus(*CENTRE)])
    session.close()
    for ask in (lambda: session.click("liver", [plus(*CENTRE)]), lambda: session.warm(CENTRE)):
        with pytest.raises(InputError, match="closed"):
            ask()


@pytest.mark.parametrize("at", [0.0, 1.0], ids=["before", "after"])
def test_cancelling_stops_at_the_window_and_the_next_click_works(volume, at):
    backend = RuleBackend()
    session = open_scene(volume, backend)
    progress = Progress(
        lambda update: progress.cancel() if update.stage == ENCODING and update.fraction >= at / 3 else None
    )
    with pytest.raises(Cancelled):
        session.click("liver", [plus(*CENTRE)], progress=progress)
    assert backend.encodings == (1 if at else 0)
    assert backend.asked == []
    assert_works(session, volume)


def test_cancelling_between_windows_keeps_what_was_encoded(volume):
    backend = RuleBackend()
    session = open_scene(scene((80, 32, 32), straight(), ball((40, 32, 32), 9), ball((130, 32, 32), 9)), backend)
    clicks = [plus(40, 32, 32), plus(130, 32, 32)]
    progress = Progress(lambda _: progress.cancel() if backend.asked else None)
    with pytest.raises(Cancelled):
        session.click("liver", clicks, progress=progress)
    encoded = backend.encodings
    result = session.click("liver", clicks)
    assert encoded == 1
    assert result.encoded == 1
    assert result.touched == (True, True)


@pytest.mark.parametrize("ask", ["click", "warm"])
def test_what_was_cancelled_before_costs_nothing(volume, ask):
    backend, progress = RuleBackend(), Progress()
    session = open_scene(volume, backend)
    progress.cancel()
    with pytest.raises(Cancelled):
        session.warm(CENTRE, progress=progress) if ask == "warm" else session.click(
            "liver", [plus(*CENTRE)], progress=progress
        )
    assert backend.encodings == 0
    assert_works(session, volume)


def test_progress_rises_and_names_what_it_does(volume):
    updates = []
    session = open_scene(scene((40, 36, 150), straight(), ball((40, 36, 150), 40)))
    session.click("liver", [plus(40, 36, 150)], progress=updates.append)
    fractions = [update.fraction for update in updates]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {update.stage for update in updates} == {ENCODING, "Clicks answered"}
