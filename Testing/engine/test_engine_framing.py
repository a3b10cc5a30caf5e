"""Frames: however the bytes are cut, whatever they are, the reader answers with messages or with one kind of error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.engine import framing
from VISTA3DCore.engine.framing import HEADER_LIMIT, MESSAGE_LIMIT, FrameReader, encode
from VISTA3DCore.engine.protocol import FramingError, ProtocolError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


def frame(body: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"Content-Length: %d" % len(body), *fields, b"", body])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@settings(max_examples=300)
@given(st.lists(MESSAGES, max_size=4), st.lists(st.integers(0, 10**6), max_size=12))
def test_messages_come_back_whatever_the_boundaries(messages, cuts):
    data = b"".join(map(encode, messages))
    reader = FrameReader()

    received = [message for piece in pieces(data, cuts) for message in reader.feed(piece)]

    assert received == messages
    assert reader.idle


def test_every_single_byte_boundary():
    data = encode({"text": "Nieren, 腎臓"}) + frame(b'{"a": 1}', b"Content-Type: application/json; charset=utf-8")
    reader = FrameReader()

    assert [message for byte in data for message in reader.feed(bytes([byte]))] == [{"text": "Nieren, 腎臓"}, {"a": 1}]


@pytest.mark.parametrize(
    "header",
    [
        b"content-length: 2\r\n\r\n",
        b"CONTENT-LENGTH:2\r\n\r\n",
        b"Content-Length:  2 \r\n\r\n",
        b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\nContent-Length: 2\r\n\r\n",
        b'Content-Length: 2\r\nContent-Type: application/json; charset="UTF8"\r\n\r\n',
        b"Content-Length: 2\r\nContent-Type: application/json\r\n\r\n",
    ],
)
def test_spellings_of_the_header(header):
    assert FrameReader().feed(header + b"{}") == [{}]


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\x00",
        b"\r\n\r\n",
        b"Traceback (most recent call last):\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 2\n\n{}",
        b"Content-Length: 2\r\n\n{}\r\n\r\n",
        b"Content-Length: 0x2\r\n\r\n{}",
        b"Content-Length: 2.0\r\n\r\n{}",
        b"Content-Length: \r\n\r\n{}",
        b"Content-Length\r\n\r\n{}",
        b"Content-Length: 9999999999999999999999\r\n\r\n",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Type: application/json\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Type: application/json; charset=utf-16\r\n\r\n{}",
        b"Content-Length: %d\r\n\r\n" % (MESSAGE_LIMIT + 1),
        b"Content-Type: " + b"a" * HEADER_LIMIT,
        frame(b""),
        frame(b"{"),
        frame(b"[]"),
        frame(b"1"),
        frame(b"null"),
        frame(b'{"a": NaN}'),
        frame(b'{"a": -Infinity}'),
        frame(b'{"a": "\xff"}'),
        frame(b"\xef\xbb\xbf{}"),
        frame(b'{"a": 1} {}'),
        frame(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        frame(b'{"a": ' + b"1" * 10_000 + b"}"),
    ],
)
def test_what_is_no_frame_is_refused_at_once_and_for_ever(data):
    reader = FrameReader()

    with pytest.raises(FramingError) as caught:
        reader.feed(data)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
    with pytest.raises(FramingError):
        reader.feed(encode({}))


def test_messages_before_the_bad_bytes_are_not_lost():
    with pytest.raises(FramingError) as caught:
        FrameReader().feed(encode({"a": 1}) + encode({"b": 2}) + b"garbage")

    assert caught.value.messages == [{"a": 1}, {"b": 2}]
    assert isinstance(caught.value, ProtocolError)
    assert caught.value.code == "parse"


def test_a_message_of_exactly_the_limit_passes(monkeypatch):
    monkeypatch.setattr(framing, "MESSAGE_LIMIT", 100)
    longest = {"a": "x" * (100 - len('{"a":""}'))}

    assert FrameReader().feed(encode(longest)) == [longest]
    with pytest.raises(FramingError, match="at most 100"):
        encode({"a": longest["a"] + "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), b"bytes", {1, 2}])
def test_what_json_cannot_say_is_not_sent(value):
    with pytest.raises(FramingError, match="cannot be written as JSON"):
        encode({"a": value})


def test_a_lone_surrogate_travels():
    message = {"name": "scan\udcff.nii"}

    assert FrameReader().feed(encode(message)) == [message]


@settings(max_examples=2000)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
def test_garbage_gives_messages_or_a_framing_error(data, cuts):
    reader = FrameReader()
    try:
        for piece in pieces(data, cuts):
            assert all(isinstance(message, dict) for message in reader.feed(piece))
    except FramingError:
        pass


def test_large_messages_in_small_pieces_take_no_longer_than_they_must():
    data = encode({"text": "x" * 2_000_000})
    reader = FrameReader()

    received = [one for start in range(0, len(data), 64) for one in reader.feed(data[start : start + 64])]

    assert json.dumps(received[0])
    assert reader.idle
