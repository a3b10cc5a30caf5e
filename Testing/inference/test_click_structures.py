"""Which structure a click is for, and how the network is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click_backends import RULE, RuleBackend, ball, minus, open_scene, plus, scene, straight

from VISTA3DCore import Session
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.errors import InputError, ModelError, UnknownStructureError

BRIGHT_PLACE, DARK_PLACE = (30.0, 30.0, 30.0), (6.0, 6.0, 50.0)
# To the rule's automatic branch, even indices are bright and odd ones dark.
LEFT_KIDNEY, RIGHT_KIDNEY = 14, 5


@pytest.fixture(scope="module")
def volume():
    return scene((30, 30, 30), straight(), ball(BRIGHT_PLACE, 14))


def opened(volume, **changes) -> tuple[Session, RuleBackend]:
    backend = RuleBackend(replace(RULE, **changes))
    return open_scene(volume, backend), backend


def test_a_click_on_a_group_goes_to_the_member_that_it_hits(volume):
    session, _ = opened(volume)
    assert session.hit("kidney", BRIGHT_PLACE).index == LEFT_KIDNEY
    assert session.hit("kidney", DARK_PLACE).index == RIGHT_KIDNEY
    result = session.click("kidney", [plus(*BRIGHT_PLACE)])
    assert result.structure == catalogue()["left kidney"]
    assert result.mask[15, 15, 15]
    np.testing.assert_array_equal(result.mask, session.click("left kidney", [plus(*BRIGHT_PLACE)]).mask)


def test_the_first_positive_click_decides_for_a_group(volume):
    session, _ = opened(volume)
    dark_first = [minus(*BRIGHT_PLACE), plus(*DARK_PLACE), plus(30, 30, 36)]
    assert session.click("kidney", dark_first).structure.index == RIGHT_KIDNEY
    base = np.ones((30, 30, 30), dtype=bool)
    assert session.click("kidney", [minus(*BRIGHT_PLACE)], base).structure.index == LEFT_KIDNEY


def test_collective_names_and_sides_are_groups_too(volume):
    session, _ = opened(volume)
    for name in ("bone", "lung", "iliopsoas", "ribs"):
        member = session.hit(name, BRIGHT_PLACE)
        assert member in catalogue().resolve(name)
        assert member.index % 2 == 0


def test_a_group_shrinks_to_what_the_model_knows(volume):
    session, _ = opened(volume, classes=(1, RIGHT_KIDNEY))
    assert session.hit("kidney", BRIGHT_PLACE).index == RIGHT_KIDNEY
    with pytest.raises(InputError, match=r"None of the structures of 'lung' is in the model 'rule'\.$"):
        session.click("lung", [plus(*BRIGHT_PLACE)])


def test_a_single_structure_is_what_was_asked_for_wherever_the_click_lies(volume):
    session, backend = opened(volume)
    for request in ("right kidney", RIGHT_KIDNEY, catalogue()["right kidney"]):
        assert session.hit(request, BRIGHT_PLACE).index == RIGHT_KIDNEY
    assert backend.encodings == 0


def test_a_new_object_has_no_structure_and_the_zero_shot_token(volume):
    session, backend = opened(volume)
    result = session.click(None, [plus(*BRIGHT_PLACE)])
    assert result.structure is None
    assert result.mask[15, 15, 15]
    assert (backend.asked[-1].zero_shot, backend.asked[-1].special) == (True, False)


def test_a_structure_that_the_model_never_saw_is_as_new_to_it(volume):
    session, backend = opened(volume, classes=(1, 26))
    tokens = {}
    for name in ("liver", "hepatic tumor", "spleen", "colon cancer primaries"):
        assert session.click(name, [plus(*BRIGHT_PLACE)]).structure.name == name
        tokens[name] = (backend.asked[-1].special, backend.asked[-1].zero_shot)
        session.free_caches()
    assert tokens == {
        "liver": (False, False),
        "hepatic tumor": (True, False),
        "spleen": (False, True),
        "colon cancer primaries": (False, True),
    }


@pytest.mark.parametrize("dead", [16, 18, 129, 130, 131])
def test_dead_classes_are_refused(volume, dead):
    session, backend = opened(volume)
    for request in (dead, catalogue()[dead].name, catalogue()[dead]):
        with pytest.raises(UnknownStructureError, match="no trained weights"):
            session.click(request, [plus(*BRIGHT_PLACE)])
    assert backend.encodings == 0


@pytest.mark.parametrize(
    ("name", "hint"), [("livr", "liver"), ("xyzzy", "search"), (999, "1 to 132"), ("", "no structure")]
)
def test_unknown_names_are_refused_with_a_hint(volume, name, hint):
    session, backend = opened(volume)
    with pytest.raises(UnknownStructureError, match=hint):
        session.click(name, [plus(*BRIGHT_PLACE)])
    assert backend.encodings == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: session.click("liver", [plus(*BRIGHT_PLACE)]),
        lambda session: session.click(None, [plus(*BRIGHT_PLACE)]),
        lambda session: session.warm(BRIGHT_PLACE),
        lambda session: session.hit("liver", BRIGHT_PLACE),
        lambda session: session.suggest("liver", [plus(*BRIGHT_PLACE)]),
        lambda session: session.uncertainty("liver", [plus(*BRIGHT_PLACE)]),
    ],
    ids=["click", "new object", "warm", "hit", "suggest", "uncertainty"],
)
def test_a_model_without_a_click_branch_says_so(volume, ask):
    session, backend = opened(volume, click_branch=False, name="vista3d-ctmr")
    with pytest.raises(ModelError, match=r"^The model 'vista3d-ctmr' was not trained for clicks; [^.]*\.$"):
        ask(session)
    assert backend.encodings == 0
    assert session.segment("spleen")["spleen"].any()
    assert session.uncertainty("spleen", []).shape == session.model_grid[0].shape
