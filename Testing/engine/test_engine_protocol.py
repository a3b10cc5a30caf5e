"""The message types, and errors that come back as they went."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import pkgutil
import typing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import VISTA3DCore
from VISTA3DCore import errors
from VISTA3DCore.engine import errors as engine_errors
from VISTA3DCore.engine import messages, protocol
from VISTA3DCore.engine.framing import FrameReader, encode
from VISTA3DCore.engine.protocol import (
    METHODS,
    NOTIFICATIONS,
    ArrayRef,
    ClickParams,
    InvalidParamsError,
    Notification,
    OpenParams,
    ProgressParams,
    ProtocolError,
    Reply,
    Request,
    SegmentParams,
    SegmentResult,
    StatusResult,
    UnknownMethodError,
    error_from,
    exception_from,
    identity_of,
    read_message,
)
from VISTA3DCore.errors import VistaError
from VISTA3DCore.imaging.clicks import Click

REF = ArrayRef("array-1.npy", (3, 4, 5), "int16", tuple(map(tuple, np.eye(4).tolist())))


def every(base: type) -> set[type]:
    return {base}.union(*(every(one) for one in base.__subclasses__()))


def sent(message: dict) -> dict:
    """Return a message as it arrives."""
    return FrameReader().feed(encode(message))[0]


TYPES = sorted(
    (
        one
        for one in vars(messages).values()
        if isinstance(one, type) and dataclasses.is_dataclass(one) and one != Click
    ),
    key=lambda one: one.__name__,
)


@pytest.mark.parametrize("kind", TYPES, ids=lambda one: one.__name__)
@given(data=st.data())
def test_every_message_survives_the_way(kind, data):
    message = data.draw(st.from_type(kind))

    assert kind.from_json(sent(message.to_json())) == message


def finite() -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False)


for _hint, _strategy in ((float, finite()), (Click, st.builds(Click, st.tuples(finite(), finite(), finite())))):
    st.register_type_strategy(_hint, _strategy)


def test_fields_have_annotations_that_can_be_read():
    for kind in TYPES:
        assert typing.get_type_hints(kind)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"session": 1}, "The field 'session' must be a string, not an integer."),
        ({"session": None}, "The field 'session' must be a string, not null."),
        ({"clicks": {}}, "The field 'clicks' must be an array, not an object."),
        ({"clicks": [3]}, "The field 'clicks[0]' must be an object, not an integer."),
        ({"clicks": [{"positive": True}]}, "The field 'clicks[0].position' is missing."),
        ({"clicks": [{"position": [1, 2]}]}, "The field 'clicks[0].position' must have 3 elements, not 2."),
        (
            {"clicks": [{"position": [1, 2, "3"]}]},
            "The field 'clicks[0].position[2]' must be a number, not a string.",
        ),
        (
            {"clicks": [{"position": [1, 2, True]}]},
            "The field 'clicks[0].position[2]' must be a number, not true or false.",
        ),
        ({"clicks": [{"position": [0, 0, 10**400]}]}, "The number in the field 'clicks[0].position[2]' is too large."),
        (
            {"clicks": [{"position": [0, 0, 0], "positive": 1}]},
            "The field 'clicks[0].positive' must be true or false, not an integer.",
        ),
        ({"structure": 1.0}, "The field 'structure' must be a string or an integer, not a number."),
        ({"structure": True}, "The field 'structure' must be a string or an integer, not true or false."),
        ({"settled": 1.5}, "The field 'settled' must be an integer, not a number."),
        ({"base": {"file": "a.npy", "shape": [1, 2, 3]}}, "The field 'base.dtype' is missing."),
        (
            {"base": {**REF.to_json(), "path": "/etc"}},
            "There is no field 'base.path'; known are: file, shape, dtype, affine.",
        ),
        (
            {"postive": True},
            "There is no field 'postive'; known are: session, structure, clicks, base, settled, policy, variant.",
        ),
    ],
)
def test_wrong_fields_are_named(change, sentence):
    good = ClickParams("s", "liver", (Click((1, 2, 3)),), REF).to_json()

    with pytest.raises(InvalidParamsError) as caught:
        ClickParams.from_json(good | change)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("value", [None, [], 1, "text", True])
def test_a_message_is_an_object(value):
    with pytest.raises(ProtocolError, match="The message must be an object"):
        SegmentParams.from_json(value)


def test_missing_fields_without_a_default_are_named_and_others_have_it():
    with pytest.raises(InvalidParamsError, match="'volume' is missing"):
        OpenParams.from_json({"model": "mini"})
    assert SegmentParams.from_json({"session": "s", "structures": ["liver", 3]}) == SegmentParams("s", ("liver", 3))


def test_results_may_tell_more_than_we_know():
    more = StatusResult(("a",), protocol.Memory(2, 1), 0, None).to_json() | {"temperature": 60}
    more["memory"]["swap"] = 3

    assert StatusResult.from_json(more).memory.total == 2


def test_masks_are_keyed_by_text():
    result = SegmentResult(REF, {"25": REF}, (1, 25), {"model": "mini"})

    assert SegmentResult.from_json(sent(result.to_json())).masks == {"25": REF}
    with pytest.raises(InvalidParamsError, match=r"'masks.25' must be an object"):
        SegmentResult.from_json(result.to_json() | {"masks": {"25": None}})


def test_methods_and_notifications_have_types():
    computing = "initialize load probe open segment click warm hit suggest uncertainty close"
    housekeeping = "models licence download import verify delete diagnose"
    assert list(METHODS) == f"{computing} {housekeeping} status shutdown".split()
    assert set(NOTIFICATIONS) == {"$/progress", "$/notice", "$/cancelRequest", "exit"}
    assert all(method.params.strict for method in METHODS.values())


def test_requests_are_read():
    request = read_message(sent(protocol.request_message(7, "close", protocol.CloseParams("s"))))

    assert request == Request(7, "close", {"session": "s"})
    assert request.parsed() == protocol.CloseParams("s")
    assert read_message({"jsonrpc": "2.0", "id": "x", "method": "status"}).parsed() == protocol.NoParams()
    with pytest.raises(UnknownMethodError, match="There is no method 'erase'; known are: initialize, load"):
        Request(1, "erase").parsed()


def test_notifications_and_replies_are_read():
    progress = ProgressParams(3, 0.5, "Working")
    assert read_message(sent(protocol.notification_message("$/progress", progress))) == Notification(
        "$/progress", progress.to_json()
    )
    assert read_message(sent(protocol.result_message(3, None))) == Reply(3, None)
    error = sent(protocol.error_message(None, ProtocolError("What?")))
    assert read_message(error).id is None
    assert read_message(error).error["code"] == -32600


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"jsonrpc": "1.0", "id": 1, "result": 1},
        {"jsonrpc": "2.0"},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "result": 1, "error": {}},
        {"jsonrpc": "2.0", "result": 1},
        {"jsonrpc": "2.0", "id": True, "result": 1},
        {"jsonrpc": "2.0", "id": 1.5, "result": 1},
        {"jsonrpc": "2.0", "id": [], "method": "close"},
        {"jsonrpc": "2.0", "id": 1, "method": 3},
        {"jsonrpc": "2.0", "id": 1, "method": "close", "params": []},
        {"jsonrpc": "2.0", "id": 1, "error": "no"},
    ],
)
def test_what_is_no_json_rpc_is_refused(message):
    with pytest.raises(ProtocolError):
        read_message(message)


def test_the_id_of_a_malformed_request_can_be_told():
    assert identity_of({"id": 3, "method": 1}) == 3
    assert identity_of({"id": "a"}) == "a"
    assert [identity_of(one) for one in ({}, {"id": None}, {"id": True}, {"id": {}})] == [None] * 4


def all_errors() -> list[type[VistaError]]:
    for module in pkgutil.walk_packages(VISTA3DCore.__path__, "VISTA3DCore."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(
        (one for one in every(VistaError) if one.__module__.startswith("VISTA3DCore")), key=lambda one: one.__name__
    )


@pytest.mark.parametrize("kind", all_errors(), ids=lambda one: one.__name__)
def test_every_error_comes_back_as_the_same_class_with_the_same_sentence(kind):
    sentence = f'Something with {kind.__name__}; do something about it: 腎臓 "quoted" {{model}}.'

    error = sent({"error": error_from(kind(sentence))})["error"]
    back = exception_from(error)

    assert error["code"] == kind.number
    assert error["data"] == {"code": kind.code, "exit_code": kind.exit_code}
    assert (type(back), str(back), back.hint, back.facts) == (kind, sentence, None, {})


@pytest.mark.parametrize("kind", all_errors(), ids=lambda one: one.__name__)
def test_hints_and_facts_of_every_error_come_back(kind):
    facts = {"model": "{url} 腎臓", "url": None, "sizes": [1, 2.5, {"a": True}]}
    sent_error = kind("The model '{model}' is wrong", hint="download-model", facts=facts)

    back = exception_from(sent({"error": error_from(sent_error)})["error"])

    assert (type(back), str(back)) == (kind, str(sent_error))
    assert (back.problem, back.hint, back.facts) == (sent_error.problem, "download-model", facts)
    assert str(back).startswith("The model '{url} 腎臓' is wrong; use `vista3d models download {url} 腎臓`, or")
    again = copy.copy(back)
    assert (type(again), str(again), again.hint, again.facts) == (kind, str(back), back.hint, back.facts)


def test_every_code_and_every_own_number_belongs_to_one_class():
    kinds = all_errors()

    assert len({kind.code for kind in kinds}) == len(kinds)
    own = [kind.number for kind in kinds if "number" in vars(kind)]
    assert len(set(own)) == len(own)
    with pytest.raises(TypeError, match="'input' of"):
        type("OtherError", (VistaError,), {"code": "input"})


def test_a_hint_that_only_the_engine_knows_stays_in_the_sentence():
    error = error_from(errors.ModelError("It is old", hint="download-model", facts={"model": "x"}))
    error["data"]["hint"] = "later"
    error["message"] = "It is old; do something."

    assert str(exception_from(error)) == "It is old; do something."


def test_the_numbers_are_stable():
    shared = (errors.__name__, engine_errors.__name__)
    assert {kind.code: kind.number for kind in all_errors() if kind.__module__ in shared} == {
        "parse": -32700, "invalid-request": -32600, "unknown-method": -32601, "invalid-params": -32602,
        "internal": -32603, "error": -32000, "input": -32001, "unknown-structure": -32002, "model": -32003,
        "licence": -32004, "offline": -32005, "device": -32006, "output": -32007, "cancelled": -32008,
        "unsupported-version": -32010, "not-initialized": -32011, "unknown-session": -32012, "worker-gone": -32013,
        "missing-package": -32014, "not-enough-memory": -32015, "training": -32016,
    }  # fmt: skip


def test_a_defect_is_an_internal_error_in_one_line():
    error = error_from(ZeroDivisionError("division\nby zero"))

    assert error["code"] == -32603
    assert error["message"].startswith("The engine failed unexpectedly (ZeroDivisionError: division)")
    assert isinstance(exception_from(error), protocol.InternalError)


def test_an_error_that_is_unknown_here_is_known_by_its_number():
    error = error_from(errors.OutputError("The disk is full."))
    error["data"]["code"] = "full-disk"

    assert type(exception_from(error)) is errors.OutputError


@pytest.mark.parametrize(
    "error",
    [None, 1, [], {}, {"code": []}, {"code": -1}, {"message": 3}, {"data": {"code": []}}, {"data": {"code": "new"}}],
)
def test_whatever_an_error_looks_like_it_becomes_one(error):
    assert str(exception_from(error)) == "The engine reported an error."


def test_errors_are_known_by_number_alone_too():
    assert type(exception_from({"code": -32001, "message": "Bad."})) is errors.InputError
    assert type(exception_from({"code": -32099, "message": "Bad."})) is VistaError


def test_arrays_in_messages_are_found():
    other = ArrayRef("b.npy", (1,), "bool")
    result = SegmentResult(REF, {"3": other}, (1, 3), {})

    assert protocol.arrays_in(result) == [REF, other]
    assert protocol.arrays_in(None) == []
