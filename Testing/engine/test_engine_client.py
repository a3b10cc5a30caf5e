"""The client as a state machine: every request has one end, whatever arrives, in whatever order, cut wherever."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from protocol_helpers import MEMORY, VIOLATIONS, with_three

from VISTA3DCore import errors
from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.engine import client as client_module
from VISTA3DCore.engine.client import (
    Broken,
    EngineClient,
    Failure,
    Notice,
    ProgressEvent,
    Response,
    plain_structures,
    plain_target,
)
from VISTA3DCore.engine.framing import MESSAGE_LIMIT, FrameReader, encode
from VISTA3DCore.engine.protocol import (
    ArrayRef,
    InvalidParamsError,
    NoticeParams,
    ProgressParams,
    ProtocolError,
    StatusResult,
    WarmResult,
    WorkerGoneError,
    error_message,
    notification_message,
    read_message,
    result_message,
)
from VISTA3DCore.errors import InputError, UnknownStructureError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.geometry import Region

STATUS = StatusResult(("a",), MEMORY, 0, "segment")
REF = ArrayRef("base.npy", (2, 2, 2), "bool")


def asked(sent: tuple[int, bytes]) -> dict:
    """Return the parameters that the engine reads, after checking them."""
    identity, data = sent
    request = read_message(FrameReader().feed(data)[0])
    assert request.id == identity
    return {"method": request.method, **request.parsed().to_json()}


def test_a_response_has_the_type_of_its_method():
    client = EngineClient()
    first, _ = client.status()
    second, _ = client.warm("s", (1, 2, 3))
    third, _ = client.shutdown()

    events = client.receive(encode(result_message(second, WarmResult(1))) + encode(result_message(third, None)))
    assert events == [Response(second, WarmResult(1)), Response(third, None)]
    assert client.has_pending
    assert client.receive(encode(result_message(first, STATUS))) == [Response(first, STATUS)]
    assert not client.has_pending


@pytest.mark.parametrize(
    "kind", [errors.InputError, errors.Cancelled, errors.OfflineError, errors.UnknownStructureError]
)
def test_an_error_is_the_exception_that_it_was(kind):
    client = EngineClient()
    identity, _ = client.status()

    (event,) = client.receive(encode(error_message(identity, kind("A sentence."))))

    assert (event.id, type(event.error), str(event.error)) == (identity, kind, "A sentence.")


def test_progress_and_notices():
    client = EngineClient()
    identity, _ = client.status()
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
    client = EngineClient()
    identity, _ = client.status()
    strays = [
        result_message(99, None),
        result_message("1", None),
        error_message(98, InputError("x")),
        {"jsonrpc": "2.0", "method": "$/later", "params": {"a": 1}},
    ]

    assert client.receive(b"".join(map(encode, strays))) == []
    assert client.receive(encode(result_message(identity, STATUS))) == [Response(identity, STATUS)]
    assert client.receive(encode(result_message(identity, STATUS))) == []
    assert client.broken is None


def test_a_result_of_the_wrong_type_fails_its_request_alone():
    client = EngineClient()
    first, _ = client.status()
    second, _ = client.shutdown()

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
        (Response, 3), (Failure, 1), (Failure, 2), (Broken, None)
    ]  # fmt: skip
    assert all(isinstance(event.error, WorkerGoneError) for event in events[1:])
    assert events[1].error is not events[2].error
    assert client.receive(encode(result_message(2, None))) == []
    assert client.connection_lost("Gone.") == []
    with pytest.raises(WorkerGoneError, match="not of the protocol"):
        client.status()


def test_a_lost_connection_fails_each_request_once():
    client = with_three()

    events = client.connection_lost("The engine process ended.")

    assert [event.id for event in events[:3]] == [1, 2, 3]
    assert isinstance(events[3], Broken)
    assert {str(event.error) for event in events} == {"The engine process ended."}
    assert client.connection_lost("Again.") == []
    assert not client.has_pending


def test_a_request_that_cannot_be_written_was_never_made():
    client = EngineClient()
    with pytest.raises(ProtocolError, match="at most"):
        client.segment("s", ["x" * MESSAGE_LIMIT])

    assert not client.has_pending
    assert client.status()[0] == 1


def test_cancelling_asks_and_does_not_end():
    client = EngineClient()
    identity, _ = client.status()

    (message,) = FrameReader().feed(client.cancel(identity))

    assert message == {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": identity}}
    assert client.has_pending


def test_the_helpers_speak_the_engines_types():
    client = EngineClient()
    liver, clicks = catalogue()["liver"], [Click(np.array([1.0, 2.0, 3.0])), Click((4, 5, 6), positive=False)]
    wire = [{"position": [1.0, 2.0, 3.0], "positive": True}, {"position": [4.0, 5.0, 6.0], "positive": False}]
    region = [-1.0, -2.0, -3.0, 1.0, 2.0, 3.0]

    assert asked(client.initialize(Path("folder"), "test"))["shared_directory"] == "folder"
    chosen = dict.fromkeys(("device", "runtime", "precision"), "auto")
    assert asked(client.load("mini")) == {"method": "load", "model": "mini", **chosen}
    assert asked(client.open(REF, "mini", "ct", "CT", "cpu"))["volume"] == REF.to_json()
    assert asked(client.segment("s", "liver"))["structures"] == ["liver"]
    found = asked(
        client.segment("s", [liver, np.int64(3), "spleen"], roi=Region((-1, -2, -3), (1, 2, 3)), preset="paper")
    )
    assert (found["structures"], found["roi"], found["preset"]) == ([1, 3, "spleen"], region, "paper")
    assert asked(client.segment("s", 1, roi=np.array(region), streaming=True))["roi"] == region
    assert [asked(client.segment("s", 1, cleanup=one))["cleanup"] for one in (None, True, False)] == [None, True, False]
    found = asked(client.click("s", None, clicks, base=REF, settled=1))
    assert (found["structure"], found["clicks"], found["settled"]) == (None, wire, 1)
    assert asked(client.warm("s", np.zeros(3)))["position"] == [0.0, 0.0, 0.0]
    assert asked(client.hit("s", liver, [1, 2, 3]))["structure"] == 1
    assert asked(client.suggest("s", "liver", clicks, base=REF, count=3))["count"] == 3
    assert asked(client.uncertainty("s", "liver", clicks, REF))["base"] == REF.to_json()
    assert asked(client.close("s")) == {"method": "close", "session": "s"}


def test_what_makes_no_sense_is_refused_before_it_is_sent():
    client = EngineClient()
    with pytest.raises(InputError, match="six numbers"):
        client.segment("s", "liver", roi=(1, 2, 3))
    with pytest.raises(InputError, match="three finite numbers"):
        client.warm("s", (1, float("nan"), 3))
    with pytest.raises(UnknownStructureError, match="neither the name nor the number"):
        client.segment("s", [1.5])
    assert not client.has_pending
    assert plain_target(None) is None
    assert plain_structures(np.array([1, 3])) == (1, 3)


# What it costs to have it


MODULES = ("client", "protocol", "framing", "arrays", "environment")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


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
    for name in ("client", "protocol", "framing", "coding", "messages", "errors"):
        tree = ast.parse(Path(client_module.__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {"threading", "subprocess", "socket", "select", "queue", "time", "asyncio", "pickle"}


def test_an_invalid_result_names_its_field():
    client = EngineClient()
    identity, _ = client.warm("s", (0, 0, 0))
    (event,) = client.receive(encode({"jsonrpc": "2.0", "id": identity, "result": None}))

    assert isinstance(event.error, ProtocolError)
    assert not isinstance(event.error, InvalidParamsError)  # the fault is the engine's, not the caller's
