"""What nobody foresaw must not stop all further clicks, and what was lost is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from refinement_helpers import PLACES, Clicking

from VISTA3DSegmentLib.logic.bases import Bases
from VISTA3DSegmentLib.logic.click_engine import ClickEngine
from VISTA3DSegmentLib.logic.clicked_segment import ClickedSegment
from VISTA3DSegmentLib.mrml.clicks import ClickList

pytestmark = pytest.mark.slow

BLOCK = ((8, 14), (10, 20), (6, 16))


def raising(error: Exception) -> Callable[..., Any]:
    def function(*_arguments: object, **_options: object) -> None:
        raise error

    return function


DEFECTS = {
    "asking": (ClickEngine, "click", RuntimeError("defect")),
    "the base": (Bases, "whole", MemoryError()),
    "looking at the segment": (ClickedSegment, "state", KeyError("defect")),
    "the place of the click": (ClickedSegment, "stored_click", ZeroDivisionError("defect")),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_an_unforeseen_exception_ends_one_click_and_not_the_next(
    clicking: Clicking, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clicking.paint(BLOCK)
    before = clicking.mask()
    owner, method, error = DEFECTS[name]
    with monkeypatch.context() as patch:
        patch.setattr(owner, method, raising(error))
        clicking.refinement.add(clicking.world(PLACES[0]))
        clicking.settle()
    (sentence,) = clicking.sentences
    assert "unexpectedly" in sentence or "memory" in sentence
    assert sentence.endswith(".")
    np.testing.assert_array_equal(clicking.mask(), before)
    assert clicking.stored() == ClickList()
    clicking.sentences.clear()
    clicking.click(PLACES[0])
    assert clicking.sentences == []
    assert len(clicking.stored().clicks) == 1


def test_an_answer_that_cannot_be_read_ends_one_click_and_not_the_next(
    clicking: Clicking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(clicking.under_test.engine, "take_array", raising(RuntimeError("defect")))
        clicking.refinement.add(clicking.world(PLACES[0]))
        clicking.settle()
    assert len(clicking.sentences) == 1
    assert not clicking.mask().any()
    clicking.click(PLACES[0])
    assert clicking.mask().any()


def test_after_a_failed_suggestion_the_next_one_is_asked_for(
    clicking: Clicking, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicking.click(PLACES[0])
    suggested = []
    clicking.refinement.suggested.connect(lambda *one: suggested.append(one))
    with monkeypatch.context() as patch:
        patch.setattr(ClickEngine, "suggest", raising(RuntimeError("defect")))
        clicking.refinement.suggest()
        clicking.loop.run_until(lambda: clicking.sentences)
    clicking.refinement.suggest()
    clicking.loop.run_until(lambda: suggested)
    assert len(clicking.sentences) == 1


def test_one_who_waits_for_a_volume_and_fails_does_not_keep_the_others_waiting(clicking: Clicking) -> None:
    ready: list[str] = []
    model = clicking.model, "cpu"
    clicking.volumes.forget(clicking.volume_node)
    clicking.volumes.use(clicking.volume_node, *model, raising(RuntimeError("defect")), raising(RuntimeError("defect")))
    clicking.volumes.use(clicking.volume_node, *model, ready.append, clicking.sentences.append)
    clicking.loop.run_until(lambda: ready or clicking.sentences)
    assert len(ready) == 1


# Told as it is


def test_a_negative_first_click_on_an_empty_segment_is_refused_kindly(clicking: Clicking) -> None:
    clicking.click(PLACES[0], positive=False)
    (sentence,) = clicking.sentences
    assert "nothing to remove" in sentence
    assert "click on what belongs to the object first" in sentence
    assert clicking.stored() == ClickList()
    assert not clicking.mask().any()
    assert not clicking.editor.CanUndo()
    clicking.sentences.clear()
    clicking.click(PLACES[0])
    clicking.click(PLACES[1], positive=False)
    assert clicking.sentences == []


def test_clicks_that_the_engine_took_along_are_counted(clicking: Clicking) -> None:
    states: list[str] = []
    clicking.click(PLACES[0])
    clicking.refinement.state_changed.connect(states.append)
    for place in PLACES[1:]:
        clicking.refinement.add(clicking.world(place))
    clicking.loop.run_until(lambda: "Computing…" in states)
    clicking.under_test.kill()
    clicking.settle()
    (sentence,) = clicking.sentences
    assert "engine process ended" in sentence
    assert "3 clicks were not applied" in sentence
