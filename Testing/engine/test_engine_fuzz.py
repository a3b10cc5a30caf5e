"""The client against damaged, random, truncated and reordered streams: 13 000 cases, each request ends once."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manual_client import Lost, ManualClient
from protocol_helpers import MEMORY, VIOLATIONS, with_three

from VISTA3DCore import errors
from VISTA3DCore.engine.client import Event, Failure, Response
from VISTA3DCore.engine.framing import MESSAGE_LIMIT, encode
from VISTA3DCore.engine.protocol import (
    METHODS,
    NoticeParams,
    ProgressParams,
    StatusResult,
    error_message,
    notification_message,
    result_message,
)
from VISTA3DCore.errors import InputError

pytestmark = pytest.mark.slow

STATUS = StatusResult(("a",), MEMORY, 0, "segment")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
JUNK = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3)
)
IDS = st.integers(0, 5) | st.sampled_from([None, True, "1", 1.0, [], {}])
FIELDS = {
    "jsonrpc": st.sampled_from(["2.0"] * 9 + [2, "1.0"]),
    "id": IDS,
    "method": st.sampled_from(["$/progress", "$/notice", "$/cancelRequest", "exit", "$/x", *METHODS]) | JUNK,
    "params": JUNK | st.fixed_dictionaries({}, optional={"id": IDS, "fraction": JUNK, "stage": JUNK, "message": JUNK}),
    "result": JUNK | st.just(STATUS.to_json()),
    "error": JUNK | st.fixed_dictionaries({}, optional={"code": JUNK, "message": JUNK, "data": JUNK}),
}
GOOD = st.sampled_from(
    [
        result_message(1, STATUS),
        result_message(2, None),
        result_message(3, None),
        result_message(7, None),
        error_message(1, InputError("No.")),
        error_message(3, errors.Cancelled()),
        notification_message("$/notice", NoticeParams("Hm.")),
        notification_message("$/progress", ProgressParams(2, 0.5, "Working")),
    ]
).map(encode)
ODD = st.fixed_dictionaries({}, optional=FIELDS).map(encode)
BODIES = st.binary(max_size=30) | JUNK.map(lambda value: json.dumps(value).encode())
LENGTHS = st.integers(-3, 40) | st.sampled_from([10**6, MESSAGE_LIMIT, MESSAGE_LIMIT + 1, 10**30, "x", ""])
WRONG = st.builds(lambda length, body: b"Content-Length: " + str(length).encode() + b"\r\n\r\n" + body, LENGTHS, BODIES)
CUT = GOOD.flatmap(lambda data: st.integers(0, len(data)).map(lambda stop: data[:stop]))
STREAM = st.lists(st.one_of(GOOD, GOOD, GOOD, ODD, WRONG, CUT, st.binary(max_size=20)), max_size=6).map(b"".join)


def check_ends(events: list[Event], client: ManualClient) -> None:
    """Check that each of the three requests ended exactly once, and that nothing came after the end."""
    ends = [event.id for event in events if isinstance(event, (Response, Failure))]
    assert sorted(ends) == [1, 2, 3]
    assert [type(event) for event in events].count(Lost) == 1
    assert isinstance(events[-1], Lost)
    assert not client.has_pending
    assert all(isinstance(event.error, errors.VistaError) for event in events if isinstance(event, Failure))


@settings(max_examples=2_000)
@given(STREAM, st.lists(st.integers(0, 10**6), max_size=5))
def test_fuzzed_streams_end_every_request_once(data, cuts):
    client, events = with_three(), []
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    for start, stop in zip([0, *places], [*places, len(data)], strict=True):
        events += client.receive(data[start:stop])
    events += client.lose("The engine process ended.")

    check_ends(events, client)


SAMPLES = [
    *map(
        encode, (result_message(1, STATUS), result_message(2, None), result_message(3, None), result_message(7, None))
    ),
    encode(error_message(1, InputError("No."))),
    encode(notification_message("$/progress", ProgressParams(2, 0.5, "Working"))),
    encode(notification_message("$/notice", NoticeParams("Hm."))),
    *VIOLATIONS,
]


def damaged(chance: random.Random) -> bytes:
    """Return frames with bytes that were changed, left out, doubled or exchanged."""
    data = bytearray(b"".join(chance.choices(SAMPLES, k=chance.randint(1, 5))))
    for _ in range(chance.choice((0, 1, 1, 2, 8))):
        start = chance.randrange(len(data))
        stop = min(start + chance.choice((0, 1, 3, 20)), len(data))
        new = chance.choice((b"", chance.randbytes(stop - start), data[start:stop] * 2, b"\r\n\r\n", b"9", b"{"))
        data[start:stop] = new
        data = data or bytearray(b"C")
    return bytes(data)


@pytest.mark.parametrize("seed", range(10))
def test_damaged_streams_end_every_request_once(seed):
    chance = random.Random(seed)
    for _ in range(1_000):
        data, client, events, start = damaged(chance), with_three(), [], 0
        while start < len(data):
            stop = start + chance.choice((1, 7, 50, 1000))
            events += client.receive(data[start:stop])
            start = stop
        check_ends(events + client.lose("The engine process ended."), client)


def outline(event: Event) -> tuple:
    """Return an event without the wording of errors, which quotes the bytes that were there."""
    return (type(event), *(type(one) if isinstance(one, Exception) else one for one in vars(event).values()))


@settings(max_examples=1_000)
@given(STREAM, st.integers(0, 10**6))
def test_where_a_stream_is_cut_does_not_matter(data, cut):
    whole, parts = with_three(), with_three()
    place = cut % (len(data) + 1)

    expected = whole.receive(data)
    found = parts.receive(data[:place]) + parts.receive(data[place:])

    assert list(map(outline, found)) == list(map(outline, expected))


@settings(max_examples=300)
@given(st.permutations(range(1, 9)), st.lists(st.integers(0, 10**6), max_size=8))
def test_answers_may_come_in_any_order(order, cuts):
    client = ManualClient()
    for _ in order:
        client.request("shutdown")
    data = b"".join(encode(result_message(identity, None)) for identity in order)
    places = sorted(cut % (len(data) + 1) for cut in cuts)

    events = [
        event
        for start, stop in zip([0, *places], [*places, len(data)], strict=True)
        for event in client.receive(data[start:stop])
    ]

    assert events == [Response(identity, None) for identity in order]


def test_a_deeply_nested_message_is_no_crash():
    body = b'{"jsonrpc": "2.0", "id": 1, "result": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    client = with_three()

    events = client.receive(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    check_ends(events, client)
