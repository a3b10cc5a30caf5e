"""Signals in plain Python: in order, once each, and one that fails does not stop the others."""

from __future__ import annotations

import logging

import pytest

from VISTA3DSegmentLib.logic.signals import Signal


def test_listeners_are_called_in_order_with_the_arguments() -> None:
    signal, heard = Signal(), []
    signal.connect(lambda *arguments: heard.append(("first", arguments)))
    signal.connect(lambda *arguments: heard.append(("second", arguments)))
    signal(1, "two")
    signal.emit()
    assert heard == [("first", (1, "two")), ("second", (1, "two")), ("first", ()), ("second", ())]


def test_a_listener_is_called_once_however_often_it_is_connected() -> None:
    signal, heard = Signal(), []
    signal.connect(heard.append)
    signal.connect(heard.append)
    signal(1)
    signal.disconnect(heard.append)
    signal.disconnect(heard.append)
    signal(2)
    assert heard == [1]


def test_a_failing_listener_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    signal, heard = Signal(), []

    def fail(_value: int) -> None:
        raise ValueError("broken")

    signal.connect(fail)
    signal.connect(heard.append)
    with caplog.at_level(logging.ERROR):
        signal(1)
    assert heard == [1]
    assert "broken" in caplog.text


def test_a_listener_that_another_one_disconnects_hears_no_more() -> None:
    signal, heard = Signal(), []
    signal.connect(lambda _value: signal.disconnect(heard.append))
    signal.connect(heard.append)
    signal(1)
    assert heard == []


def test_a_listener_that_another_one_connects_hears_the_next() -> None:
    signal, heard = Signal(), []
    signal.connect(lambda _value: signal.connect(heard.append))
    signal(1)
    signal(2)
    assert heard == [2]
