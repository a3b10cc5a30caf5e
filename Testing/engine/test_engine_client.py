"""The client as a state machine: every request has one end, whatever arrives, in whatever order, cut wherever."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from manual_client import Lost, ManualClient, Notice
from protocol_helpers import AFFINE, MEMORY, VIOLATIONS, with_three

from VISTA3DCore import errors
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.engine import client as client_module
from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.client import (
    Failure,
    ProgressEvent,
    Response,
    initialize_params,
    plain_structures,
    plain_target,
)
from VISTA3DCore.engine.framing import MESSAGE_LIMIT, FrameReader, encode
from VISTA3DCore.engine.protocol import (
    InitializeResult,
    InvalidParamsError,
    LoadResult,
    NoticeParams,
    Notification,
    OpenResult,
    ProgressParams,
    ProtocolError,
    SegmentParams,
    StatusResult,
    WarmParams,
    WarmResult,
    WorkerGoneError,
    error_message,
    notification_message,
    read_message,
    result_message,
)
from VISTA3DCore.engine.transports import InMemory
from VISTA3DCore.errors import InputError, UnknownStructureError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import Region
from VISTA3DCore.imaging.volume import Volume

STATUS = StatusResult(("a",), MEMORY, 0, "segment")
RESULTS = {
    "initialize": InitializeResult(1, "0", 1, "cpu", "", MEMORY),
    "load": LoadResult("mini", "cpu", "", (1, 3), True, "vista3d-ct"),
    "open": OpenResult("s", (2, 2, 2)),
    "close": None,
    "shutdown": None,
}


def respond(message: dict) -> list[dict]:
    """Refuse everything but what it takes to open a volume and to close it; check all parameters."""
    request = read_message(message)
    if isinstance(request, Notification):
        return []
    request.parsed()
    if request.method in RESULTS:
        return [result_message(request.id, RESULTS[request.method])]
    return [error_message(request.id, InputError("No."))]


def asked(engine: InMemory, call: Callable[[], object]) -> dict:
    """Return the method and parameters of the request that a call makes, which is refused."""
    with pytest.raises(InputError, match=r"No\."):
        call()
    return {"method": engine.sent[-1]["method"], **engine.sent[-1]["params"]}


@pytest.fixture
def engine() -> InMemory:
    return InMemory(respond)


@pytest.fixture
def client(engine, tmp_path, monkeypatch) -> Iterator[BlockingClient]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with BlockingClient(engine) as one:
        yield one


def test_a_response_has_the_type_of_its_method():
    client = ManualClient()
    first, _ = client.request("status")
    second, _ = client.request("warm", WarmParams("s", (1, 2, 3)))
    third, _ = client.request("shutdown")

    events = client.receive(encode(result_message(second, WarmResult(1))) + encode(result_message(third, None)))
    assert events == [Response(second, WarmResult(1)), Response(third, None)]
    assert client.has_pending
    assert client.receive(encode(result_message(first, STATUS))) == [Response(first, STATUS)]
    assert not client.has_pending


@pytest.mark.parametrize(
    "kind", [errors.InputError, errors.Cancelled, errors.OfflineError, errors.UnknownStructureError]
)
def test_an_error_is_the_exception_that_it_was(kind):
    client = ManualClient()
    identity, _ = client.request("status")

    (event,) = client.receive(encode(error_message(identity, kind("A sentence."))))

    assert (event.id, type(event.error), str(event.error)) == (identity, kind, "A sentence.")


def test_progress_and_notices():
    client = ManualClient()
    identity, _ = client.request("status")
    progress = ProgressParams(identity, 0.25, "Encoding", "window 1", 3.5)
    stray = ProgressParams(99, 0.25, "Encoding")

    events = client.receive(
        b"".join(
            encode(notification_message(method, params))
            for method, params in [("$/progress", progress), ("$/progress", stray), ("$/notice", NoticeParams("Hm."))]
        )
    )

    assert events == [ProgressEvent(identity, 0.25, "Encoding", "window 1", 3.5), Notice("Hm.")]


def test_unknown_ids_and_notifications_are_no_event():
    client = ManualClient()
    identity, _ = client.request("status")
    strays = [
        result_message(99, None),
        result_message("1", None),
        error_message(98, InputError("x")),
        {"jsonrpc": "2.0", "method": "$/later", "params": {"a": 1}},
    ]

    assert client.receive(b"".join(map(encode, strays))) == []
    assert client.receive(encode(result_message(identity, STATUS))) == [Response(identity, STATUS)]
    assert client.receive(encode(result_message(identity, STATUS))) == []
    assert client.transport.killed == 0


def test_a_result_of_the_wrong_type_fails_its_request_alone():
    client = ManualClient()
    first, _ = client.request("status")
    second, _ = client.request("shutdown")

    (event,) = client.receive(encode({"jsonrpc": "2.0", "id": first, "result": {"sessions": 3}}))

    assert isinstance(event, Failure)
    assert str(event.error) == (
        "The engine's answer to 'status' is not valid: The field 'sessions' must be an array, not an integer."
    )
    assert client.receive(encode(result_message(second, None))) == [Response(second, None)]


@pytest.mark.parametrize("data", VIOLATIONS)
def test_a_violation_ends_the_connection_after_what_was_right(data):
    client = with_three()

    events = client.receive(encode(result_message(3, None)) + data + encode(result_message(2, None)))

    assert [(type(event), getattr(event, "id", None)) for event in events] == [
        (Response, 3), (Failure, 1), (Failure, 2), (Lost, None)
    ]  # fmt: skip
    assert all(isinstance(event.error, WorkerGoneError) for event in events[1:])
    assert events[1].error is not events[2].error
    assert client.receive(encode(result_message(2, None))) == []
    assert client.lose("Gone.") == []
    with pytest.raises(WorkerGoneError, match="not of the protocol"):
        client.request("status")


def test_a_lost_connection_fails_each_request_once():
    client = with_three()

    events = client.lose("The engine process ended.")

    assert [event.id for event in events[:3]] == [1, 2, 3]
    assert isinstance(events[3], Lost)
    assert {str(event.error) for event in events} == {"The engine process ended."}
    assert client.lose("Again.") == []
    assert not client.has_pending


def test_a_request_that_cannot_be_written_was_never_made():
    client = ManualClient()
    with pytest.raises(ProtocolError, match="at most"):
        client.request("segment", SegmentParams("s", ("x" * MESSAGE_LIMIT,)))

    assert not client.has_pending
    assert client.request("status")[0] == 1


def test_cancelling_asks_and_does_not_end():
    client = ManualClient()
    identity, _ = client.request("status")

    (message,) = FrameReader().feed(client.cancel(identity))

    assert message == {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": identity}}
    assert client.has_pending


def test_calls_send_the_engines_types(engine, client):
    liver, clicks = catalogue()["liver"], [Click(np.array([1.0, 2.0, 3.0])), Click((4, 5, 6), positive=False)]
    wire = [{"position": [1.0, 2.0, 3.0], "positive": True}, {"position": [4.0, 5.0, 6.0], "positive": False}]
    region, base = [-1.0, -2.0, -3.0, 1.0, 2.0, 3.0], np.ones((2, 2, 2), dtype=bool)
    assert engine.sent[0]["params"] == initialize_params(client.shared.path, "vista3d-python").to_json()

    session = client.open(Volume(np.zeros((2, 2, 2), np.int16), AFFINE, "ct", "CT"), "mini", "cpu")
    load, opening = (message["params"] for message in engine.sent[-2:])
    assert load == {"model": "mini", "device": "cpu", "runtime": "auto", "precision": "auto"}
    assert (opening["name"], opening["modality"], opening["device"]) == ("ct", "CT", "cpu")
    assert (opening["volume"]["shape"], opening["volume"]["dtype"]) == ([2, 2, 2], "int16")

    assert asked(engine, lambda: session.segment("liver"))["structures"] == ["liver"]
    box = Region((-1, -2, -3), (1, 2, 3))
    found = asked(engine, lambda: session.segment([liver, np.int64(3), "spleen"], roi=box, preset="paper"))
    assert (found["structures"], found["roi"], found["preset"]) == ([1, 3, "spleen"], region, "paper")
    assert asked(engine, lambda: session.segment(1, roi=np.array(region), streaming=True))["roi"] == region
    for cleanup in (None, True, False):
        assert asked(engine, lambda cleanup=cleanup: session.segment(1, cleanup=cleanup))["cleanup"] is cleanup
    found = asked(engine, lambda: session.click(None, clicks, base, settled=1))
    assert (found["structure"], found["clicks"], found["settled"]) == (None, wire, 1)
    assert found["base"]["dtype"] == "bool"
    assert asked(engine, lambda: session.warm(np.zeros(3)))["position"] == [0.0, 0.0, 0.0]
    assert asked(engine, lambda: session.hit(liver, [1, 2, 3]))["structure"] == 1
    assert asked(engine, lambda: session.suggest("liver", clicks, base, count=3))["count"] == 3
    assert asked(engine, lambda: session.uncertainty("liver", clicks, base))["base"] == found["base"]
    session.close()
    assert (engine.sent[-1]["method"], engine.sent[-1]["params"]) == ("close", {"session": "s"})


def test_what_makes_no_sense_is_refused_before_it_is_sent(engine, client):
    session = client.open(Volume(np.zeros((2, 2, 2), np.int16), AFFINE))
    sent = len(engine.sent)
    with pytest.raises(InputError, match="six numbers"):
        session.segment("liver", roi=(1, 2, 3))
    with pytest.raises(InputError, match="three finite numbers"):
        session.warm((1, float("nan"), 3))
    with pytest.raises(UnknownStructureError, match="neither the name nor the number"):
        session.segment([1.5])
    assert len(engine.sent) == sent
    assert plain_target(None) is None
    assert plain_structures(np.array([1, 3])) == (1, 3)


# What it costs to have it


MODULES = ("client", "protocol", "framing", "arrays", "environment")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.alone
def test_importing_takes_no_time_beyond_numpy():
    code = (
        "import time, numpy; start = time.process_time();"
        f"import VISTA3DCore; from VISTA3DCore.engine import {', '.join(MODULES)}; print(time.process_time() - start)"
    )

    assert min(float(run(code)) for _ in range(5)) < 0.05


def test_importing_starts_no_thread_and_needs_only_numpy():
    code = (
        "import threading; before = threading.active_count(); import numpy, sys; known = set(sys.modules);"
        f"from VISTA3DCore.engine import {', '.join(MODULES)};"
        "assert threading.active_count() == before;"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - known};"
        "print(*sorted(roots - sys.stdlib_module_names - {'VISTA3DCore'}), *(roots & set("
        "'threading subprocess socket select selectors queue asyncio multiprocessing tempfile'.split())))"
    )

    assert run(code).split() == []


def test_the_client_has_no_threads_pipes_or_clocks():
    for name in ("client", "protocol", "framing", "messages", "errors"):
        tree = ast.parse(Path(client_module.__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        # A lock is all that the client needs of threads: several may use it.
        imported -= {"threading"} if name == "client" else set()
        assert not imported & {"threading", "subprocess", "socket", "select", "queue", "time", "asyncio", "pickle"}


def test_an_invalid_result_names_its_field():
    client = ManualClient()
    identity, _ = client.request("warm", WarmParams("s", (0, 0, 0)))
    (event,) = client.receive(encode({"jsonrpc": "2.0", "id": identity, "result": None}))

    assert isinstance(event.error, ProtocolError)
    assert not isinstance(event.error, InvalidParamsError)  # the fault is the engine's, not the caller's
