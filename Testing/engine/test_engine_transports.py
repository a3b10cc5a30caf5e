"""The child process as a transport, and connections over transports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import psutil
import pytest
from protocol_helpers import child, nothing_left, wait_until

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.client import EngineClient, Failure, Response, initialize_params
from VISTA3DCore.engine.protocol import (
    LoadParams,
    Memory,
    ProtocolError,
    StatusResult,
    WorkerGoneError,
    read_message,
    result_message,
)
from VISTA3DCore.engine.transports import ChildProcess, InMemory


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Let shared directories lie in the test's folder, and check that nothing stays there or runs on."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with nothing_left(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


class Ear:
    """Hears what a transport tells."""

    def __init__(self, transport) -> None:
        self.data, self.reasons = b"", []
        transport.on_bytes, transport.on_closed = self.hear, self.reasons.append

    def hear(self, data: bytes) -> None:
        self.data += data


def python(code: str, **options) -> ChildProcess:
    return ChildProcess([sys.executable, "-S", "-c", code], **options)


# The child process


def test_bytes_go_both_ways_unchanged():
    every = bytes(range(256)) * 1000
    echo = python("import sys; sys.stdout.buffer.write(sys.stdin.buffer.read(256000)); sys.stdout.buffer.flush()")
    ear = Ear(echo)
    echo.start()

    for start in range(0, len(every), 10_000):
        echo.write(every[start : start + 10_000])
    wait_until(lambda: ear.reasons)

    assert ear.data == every
    assert ear.reasons == ["The engine process ended unexpectedly (exit code 0)."]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "raise ModuleNotFoundError('No module named torch')",
            "(exit code 1: ModuleNotFoundError: No module named torch)",
        ),
        ("import sys; sys.exit(7)", "(exit code 7)"),
        ("import sys; print('why', file=sys.stderr); print(' ', file=sys.stderr); sys.exit(2)", "(exit code 2: why)"),
    ],
)
def test_the_reason_tells_what_the_process_said_last(code, reason):
    process = python(code)
    ear = Ear(process)
    process.start()
    wait_until(lambda: ear.reasons)

    assert ear.reasons == [f"The engine process ended unexpectedly {reason}."]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_the_reason_names_the_signal(name):
    process = python("import time; time.sleep(600)")
    ear = Ear(process)
    process.start()
    os.kill(process.pid, signal.Signals[name])
    wait_until(lambda: ear.reasons)

    assert f"killed by {name}" in ear.reasons[0]
    assert ("memory" in ear.reasons[0]) == (name == "SIGKILL")


def test_killing_is_told_once_and_may_be_repeated():
    process = python("import time; time.sleep(600)")
    ear = Ear(process)
    process.kill()
    process.start()
    for _ in range(3):
        process.kill()
    process.close()
    process.close()

    assert ear.reasons == ["The engine process was stopped."]
    process.write(b"nobody reads this")


def test_a_process_that_does_not_read_blocks_nobody():
    process = python("import time; time.sleep(600)")
    Ear(process)
    process.start()

    started = time.monotonic()
    process.write(b"x" * 10_000_000)
    assert time.monotonic() - started < 1.0
    process.kill()


def test_a_process_that_closes_its_output_is_ended():
    process = python("import os, time; os.close(1); time.sleep(600)")
    ear = Ear(process)
    process.start()
    wait_until(lambda: ear.reasons)

    assert not psutil.pid_exists(process.pid)


def test_closing_lets_a_process_end_by_itself_and_others_not():
    polite = python("import sys; sys.stdin.read(); print('bye', file=sys.stderr)")
    stubborn = python("import time; time.sleep(600)")
    for process in (polite, stubborn):
        Ear(process)
        process.start()

    polite.close()
    stubborn.close(patience_s=0.2)

    assert polite.log_tail == ["bye"]
    assert not psutil.pid_exists(stubborn.pid)


def test_the_log_is_heard_line_by_line():
    lines = []
    process = python(r"import sys; sys.stderr.buffer.write(b'one\ntwo \xff\n' + b'x' * 9000)", log=lines.append)
    ear = Ear(process)
    process.start()
    wait_until(lambda: ear.reasons)

    assert lines[:2] == ["one", "two \ufffd"]
    assert sum(map(len, lines[2:])) == 9000


def test_what_cannot_be_started_is_told(tmp_path):
    for command in ([str(tmp_path / "no python")], [str(tmp_path)], ["a\0b"]):
        with pytest.raises(WorkerGoneError, match="cannot be started with"):
            ChildProcess(command).start()
        with pytest.raises(WorkerGoneError, match="cannot be started with"):
            BlockingClient(ChildProcess(command))


def test_the_environment_is_cleaned(monkeypatch):
    monkeypatch.setenv("SLICER_HOME", "/opt/Slicer")
    monkeypatch.setenv("ITK_AUTOLOAD_PATH", "/opt/Slicer/ITKFactories")
    process = python("import os; os.write(1, repr('ITK_AUTOLOAD_PATH' in os.environ).encode())")
    ear = Ear(process)
    process.start()
    wait_until(lambda: ear.reasons)

    assert ear.data == b"False"


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl+C in another way")
def test_ctrl_c_in_a_terminal_does_not_reach_the_engine():
    process = python("import time; time.sleep(600)")
    Ear(process)
    process.start()

    assert os.getpgid(process.pid) != os.getpgid(0)
    process.kill()


def test_a_parent_that_is_killed_leaves_no_child(tmp_path):
    child(tmp_path)  # writes the script
    code = (
        f"import sys, time; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path.cwd())!r}]\n"
        "from pathlib import Path; from protocol_helpers import child\n"
        f"transport = child(Path({str(tmp_path)!r})); transport.start(); print(transport.pid, flush=True)\n"
        "time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()

    wait_until(lambda: not psutil.pid_exists(pid), 5.0)


# The client over a transport


def test_events_reach_each_handler_in_order():
    def respond(message):
        request = read_message(message)
        return [result_message(request.id, StatusResult((), Memory(2, 1), request.id, None))]

    events = []
    client = EngineClient(InMemory(respond))
    client.start()
    ids = [client.submit("status", None, events.append) for _ in range(3)]

    assert [(event.id, event.result.queue) for event in events] == [(one, one) for one in ids]


def test_a_connection_that_is_lost_fails_what_is_open_once_and_tells_last():
    told, memory = [], InMemory()
    client = EngineClient(memory, on_lost=lambda error: told.append(("lost", str(error))))
    client.start()
    for number in range(3):
        client.submit("status", None, lambda event, number=number: told.append((number, str(event.error))))
    memory.lose("Gone.")
    client.kill()
    client.close()

    assert told == [(0, "Gone."), (1, "Gone."), (2, "Gone."), ("lost", "Gone.")]
    with pytest.raises(WorkerGoneError, match=r"Gone\."):
        client.submit("status", None, told.append)


def test_a_connection_kills_what_breaks_the_protocol():
    events, memory = [], InMemory()
    client = EngineClient(memory)
    client.start()
    client.submit("status", None, events.append)
    memory.deliver(b"garbage")

    assert memory.closed
    assert [type(event) for event in events] == [Failure]


def test_a_handler_may_ask_again():
    answers = []

    def again(event):
        answers.append(event)
        if len(answers) < 5:
            client.submit("shutdown", None, again)

    client = EngineClient(InMemory(lambda message: [result_message(message["id"], None)]))
    client.start()
    client.submit("shutdown", None, again)

    assert [type(event) for event in answers] == [Response] * 5


def test_a_request_that_is_too_long_is_refused_and_the_connection_stays():
    memory = InMemory()
    client = EngineClient(memory)
    client.start()
    with pytest.raises(ProtocolError):
        client.submit("load", LoadParams("x" * 2**24), lambda _event: None)
    client.submit("initialize", initialize_params("folder", "x" * 10), lambda _event: None)

    assert len(memory.sent) == 1
