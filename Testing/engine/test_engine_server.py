"""The server's loop with whatever bytes may come, without a process and without an engine."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.engine import server
from VISTA3DCore.engine.framing import FrameReader, encode
from VISTA3DCore.engine.protocol import METHODS, Memory, OpenResult, StatusResult, WarmResult, read_message
from VISTA3DCore.errors import Cancelled


class Idle:
    """Stands for the handlers: everything works at once and does nothing."""

    sessions: tuple[str, ...] = ()
    directory = None

    def __init__(self, notify: Any) -> None:
        self.notify = notify

    def memory(self) -> Memory:
        return Memory(2, 1)

    def use_directory(self, path: str) -> None:
        assert isinstance(path, str)

    def call(self, method: str, _params: Any, progress: Any, _report_partial: Any) -> Any:
        progress.update(0.5, "Working")
        return {"open": OpenResult("s", (1, 1, 1)), "warm": WarmResult(1)}.get(method)


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Handlers", Idle)


def serve(*chunks: bytes) -> tuple[int, list[dict]]:
    """Feed bytes to a server; return its exit code and what it said."""
    said, rest = bytearray(), iter(chunks)
    code = server.Server(lambda: next(rest, b""), said.extend, lambda _code: None).serve()
    return code, FrameReader().feed(bytes(said))


def call(identity: Any, method: str, **params: Any) -> bytes:
    return encode({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})


HELLO = call(0, "initialize", protocol_version=1, client={"name": "test"}, shared_directory="x")
BYE = call(99, "shutdown")
VALID = [
    HELLO,
    BYE,
    call(1, "status"),
    call(2, "open", volume={"file": "a.npy", "shape": [1], "dtype": "int16"}, model="mini"),
    call(3, "warm", session="s", position=[0, 0, 0]),
    call("four", "close", session="s"),
    encode({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 2}}),
]
JUNK = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(VALID).flatmap(lambda frame: st.integers(0, len(frame)).map(lambda end: frame[:end])),
    st.sampled_from(VALID).map(lambda frame: frame.replace(b"2.0", b"1.0")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ).map(lambda value: framed({"jsonrpc": "2.0", "id": 5, "method": "open", "params": value})),
)


def framed(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(VALID) | JUNK, max_size=8), st.integers(1, 64))
def test_no_bytes_hang_or_break_it(frames, size):
    stream = b"".join(frames)
    code, said = serve(*(stream[start : start + size] for start in range(0, len(stream), size)))
    assert code in (0, 1)
    assert all(read_message(message) for message in said)
    broken = [message for message in said if message.get("error", {}).get("code") == -32700]
    assert len(broken) == (code == 1)
    assert not broken or said[-1] == broken[0]


def test_every_request_is_answered_once_until_the_goodbye():
    code, said = serve(b"".join([HELLO, *VALID[2:], BYE, call(100, "status")]))
    assert code == 0
    answered = [message["id"] for message in said if "id" in message]
    assert sorted(answered, key=str) == sorted([0, 1, 2, 3, "four", 99], key=str)
    assert said[-1] == {"jsonrpc": "2.0", "id": 99, "result": None}


def test_status_is_answered_while_another_request_runs(monkeypatch):
    release, said = threading.Event(), bytearray()

    def wait(_self: Any, method: str, _params: Any, progress: Any, _report_partial: Any) -> None:
        if method == "close":
            release.wait(10)
            progress.check()

    monkeypatch.setattr(Idle, "call", wait)
    answered = threading.Event()

    def chunks():
        yield HELLO + call(1, "close", session="s")
        answered.wait(0.2)
        yield call(2, "status") + call(3, "close", session="t")
        yield encode({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}})
        release.set()
        answered.wait(0.2)

    rest = chunks()
    server.Server(lambda: next(rest, b""), said.extend, lambda _code: None).serve()
    answers = {message["id"]: message for message in FrameReader().feed(bytes(said))}
    assert StatusResult.from_json(answers[2]["result"]).busy == "close"
    assert answers[1]["error"]["message"] == str(Cancelled())
    assert answers[3]["result"] is None


def test_a_client_that_reads_no_more_is_no_reason_to_fail():
    def broken(_data: bytes) -> None:
        raise BrokenPipeError

    frames = iter([HELLO, call(1, "status"), BYE])
    assert server.Server(lambda: next(frames, b""), broken, lambda _code: None).serve() == 0


def test_an_answer_that_cannot_be_sent_is_an_internal_error(monkeypatch):
    monkeypatch.setattr(Idle, "call", lambda *_: WarmResult(float("nan")))
    done = threading.Event()

    def chunks():
        yield HELLO
        done.wait(0.2)

    rest = chunks()
    said = bytearray()
    server.Server(lambda: next(rest, b""), said.extend, lambda _code: None).serve()
    (answer,) = FrameReader().feed(bytes(said))
    assert answer["error"]["code"] == -32603


def test_every_method_of_the_protocol_is_handled(monkeypatch):
    monkeypatch.undo()
    answered_by_the_reader = {"status", "shutdown"}
    assert server.Handlers(print)._methods.keys() | answered_by_the_reader == METHODS.keys()
