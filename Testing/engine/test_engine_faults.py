"""Whatever goes wrong on either side: one sentence, no hang, nothing left behind, and the next request works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from engine_processes import PATIENCE_S, arrays_of, centre_of, coarse_phantom, is_alive, wait_until
from manual_client import FAREWELL

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.client import Failure, Response, initialize_params
from VISTA3DCore.engine.framing import MESSAGE_LIMIT, FrameReader, encode
from VISTA3DCore.engine.protocol import WorkerGoneError
from VISTA3DCore.engine.supervised_client import SupervisedClient
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.errors import DeviceError, NotEnoughMemoryError, OutputError, SlowerWarning
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.progress import Progress

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
LEAST_LATE_S = 2.0


class Killer(Progress):
    """Kills the engine process at the first sign of work."""

    def __init__(self, client: BlockingClient) -> None:
        super().__init__(lambda _update: os.kill(client.info.pid, 9))


class TestKilled:
    """One supervisor survives all of it; its volume is opened again in each new process."""

    @pytest.fixture(scope="class")
    def started(self) -> list[ChildProcess]:
        return []

    @pytest.fixture(scope="class")
    def reports(self) -> list[str]:
        return []

    @pytest.fixture(scope="class")
    def client(self, started, reports) -> Iterator[BlockingClient]:
        def start() -> ChildProcess:
            started.append(ChildProcess())
            if len(started) == 1:
                threading.Timer(0.2, started[0].kill).start()
            return started[-1]

        with (
            SupervisedClient(start, on_report=lambda error: reports.append(str(error))) as supervisor,
            BlockingClient(supervisor) as client,
        ):
            yield client

    @pytest.fixture(scope="class")
    def session(self, client, phantom, tiny_model):
        with client.open(phantom, str(tiny_model)) as session:
            yield session

    @pytest.fixture(scope="class")
    def local(self, phantom, tiny_model):
        return Segmenter.from_pretrained(tiny_model).open(phantom)

    def test_in_the_middle_of_the_handshake(self, session, started, reports, phantom):
        """The first process never gets to answer; the request that waited for it goes to the second."""
        assert session.hit("liver", centre_of(phantom)).name == "liver"
        assert (len(started), len(reports)) == (2, 1)

    def test_in_the_middle_of_a_segmentation(self, client, session, local, reports):
        session.segment("liver")
        with pytest.raises(WorkerGoneError, match="ended unexpectedly"):
            session.segment("spleen", streaming=True, preset="paper", progress=Killer(client))
        np.testing.assert_array_equal(session.segment("liver").labels, local.segment("liver").labels)
        assert len(reports) == 2
        assert "SIGKILL" in reports[1]

    def test_in_the_middle_of_a_click(self, client, session, local, phantom, reports):
        clicks = [Click(centre_of(phantom))]
        with pytest.raises(WorkerGoneError):
            session.click("lung tumor", clicks, progress=Killer(client))
        np.testing.assert_array_equal(session.click("lung tumor", clicks).mask, local.click("lung tumor", clicks).mask)
        assert len(reports) == 3

    def test_nothing_is_left_of_them(self, client, started):
        assert not any(is_alive(process.pid) for process in started[:-1])
        assert [name for name in arrays_of(client.shared.path) if "result" in name] == []


@pytest.mark.parametrize("pipe", ["closed", "held"])
def test_the_engine_ends_with_its_client(tiny_model, pipe):
    """Within two seconds, in the middle of work, even if another process holds the pipe open; the files are gone."""
    command = [sys.executable, str(HERE / "orphaned_client.py"), str(tiny_model), pipe]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    told = json.loads(client.stdout.readline())
    folder = Path(told["folder"])
    try:
        assert is_alive(told["engine"])
        assert arrays_of(folder)
        client.kill()
        wait_until(lambda: not is_alive(told["engine"]) and not folder.exists(), LEAST_LATE_S)
    finally:
        client.kill()
        for pid in (told["engine"], told["holder"]):
            if pid and is_alive(pid):
                psutil.Process(pid).kill()
        client.communicate()


def test_a_client_that_hangs_up_keeps_its_files(raw_worker):
    """Only a dead client's files are removed by the engine."""
    worker = raw_worker()
    worker.shared.put(np.zeros(3))
    worker.write(worker.client.request("initialize", initialize_params(worker.shared.path, "test"))[1])
    assert worker.rest() == b""
    assert worker.process.returncode == 0
    assert arrays_of(worker.shared.path) == ["array-1.npy"]


def test_exit_ends_it_at_once(raw_worker):
    worker = raw_worker()
    worker.write(worker.client.request("initialize", initialize_params(worker.shared.path, "test"))[1] + FAREWELL)
    assert worker.process.wait(LEAST_LATE_S) == 0
    assert worker.process.stdout.read() == b""


GARBAGE = {
    "noise": b"\x00\xff\x17 no frame at all",
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "endless header": b"Content-Length: 2" + b" " * 8192,
    "no length": b"Content-Type: application/json\r\n\r\n{}",
    "negative": b"Content-Length: -5\r\n\r\n{}",
    "oversized": b"Content-Length: %d\r\n\r\n" % (MESSAGE_LIMIT + 1),
    "astronomic": b"Content-Length: 99999999999999999999\r\n\r\n",
    "no json": b"Content-Length: 3\r\n\r\n{x}",
    "no object": b"Content-Length: 2\r\n\r\n[]",
    "not a number": b'Content-Length: 9\r\n\r\n{"a":NaN}',
    "not utf-8": b'Content-Length: 3\r\n\r\n"\xff"',
    "deep": b"Content-Length: 100000\r\n\r\n" + b"[" * 100000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_answered_and_ends_the_connection(raw_worker, garbage):
    """The client's end stays open: it is the engine that must hang up."""
    worker = raw_worker()
    worker.write(garbage)
    assert worker.process.wait(PATIENCE_S) == 1
    (message,) = FrameReader().feed(worker.process.stdout.read())
    assert message["id"] is None
    assert message["error"]["code"] == -32700
    assert len(message["error"]["message"]) < 300


def test_a_truncated_frame_ends_quietly(raw_worker):
    worker = raw_worker()
    worker.write(b"Content-Length: 500\r\n\r\n{")
    assert worker.rest() == b""
    assert worker.process.returncode == 0


def test_messages_out_of_order(raw_worker):
    """Each gets the error that JSON-RPC has for it, and the engine goes on."""
    worker = raw_worker()

    def code(message: dict) -> int:
        worker.write(encode(message))
        (answer,) = FrameReader().feed(worker.read())
        assert answer["id"] == message.get("id")
        return answer["error"]["code"]

    request = {"jsonrpc": "2.0", "id": 7}
    worker.write(encode({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 3}}))
    worker.write(encode({"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"number": 3}}))
    worker.write(encode({"jsonrpc": "2.0", "method": "$/unheardOf"}))
    worker.write(encode({"jsonrpc": "2.0", "id": 5, "result": None}))
    assert code(request | {"method": "status"}) == -32011
    assert code(request | {"method": "close", "params": {"session": "s"}}) == -32011
    assert code(request | {"method": "segmentEverything"}) == -32601
    assert code(request | {"method": "close", "params": {"session": 3}}) == -32602
    assert code(request | {"method": "close", "params": {"session": "s", "really": True}}) == -32602
    assert code(request | {"method": "close", "params": ["s"]}) == -32602
    assert code(request | {"method": 3}) == -32600
    assert code({"id": 7, "method": "status"}) == -32600
    folder = {"client": {"name": "x"}, "shared_directory": str(worker.shared.path)}
    assert code(request | {"method": "initialize", "params": folder | {"protocol_version": 99}}) == -32010
    assert code(request | {"method": "initialize", "params": folder}) == -32602
    assert isinstance(worker.greet(), Response)
    again = worker.greet()
    assert isinstance(again, Failure)
    assert "twice" in str(again.error)
    assert worker.ask("shutdown").result is None
    assert worker.process.wait(LEAST_LATE_S) == 0


class TestOutOfMemory:
    """Four windows a segmentation; passes are counted over the life of the process. No file may grow beyond 200 kB."""

    PLAN = (2, 3, *range(7, 10), *range(14, 20), *range(24, 27))

    @pytest.fixture(scope="class")
    def client(self):
        plan = ",".join(map(str, self.PLAN))
        command = [sys.executable, str(HERE / "frail_engine.py"), "memory", plan, "disk", "200000"]
        with BlockingClient(ChildProcess(command)) as client:
            yield client

    @pytest.fixture(scope="class")
    def session(self, client, phantom, tiny_model):
        with client.open(phantom, str(tiny_model)) as session:
            yield session

    @pytest.fixture(scope="class")
    def expected(self, phantom, tiny_model):
        return Segmenter.from_pretrained(tiny_model).open(phantom)

    def test_the_engine_steps_down_and_says_so(self, session, expected):
        with pytest.warns(SlowerWarning, match="continues on the processor, more slowly"):
            found = session.segment("liver", streaming=True)
        np.testing.assert_array_equal(found.labels, expected.segment("liver").labels)

    def test_then_memory_is_freed_and_the_request_repeated(self, session, expected):
        with pytest.warns(SlowerWarning, match="this request is tried once more"):
            found = session.segment("spleen", streaming=True)
        np.testing.assert_array_equal(found.labels, expected.segment("spleen").labels)

    def test_then_one_sentence_says_what_to_do(self, session):
        with pytest.warns(SlowerWarning), pytest.raises(DeviceError, match=r"not enough memory.*smaller model\."):
            session.segment("liver", streaming=True)

    def test_and_the_session_is_as_before(self, session, expected, phantom):
        np.testing.assert_array_equal(session.segment("liver", streaming=True).labels, expected.segment("liver").labels)
        clicks = [Click(centre_of(phantom))]
        with pytest.warns(SlowerWarning, match="this request is tried once more"):
            found = session.click("lung tumor", clicks)
        np.testing.assert_array_equal(found.mask, expected.click("lung tumor", clicks).mask)

    def test_a_full_disk_is_a_sentence_too(self, client, session, tiny_model, phantom):
        """Results that cannot be written leave nothing; smaller ones still can."""
        large = client.open(coarse_phantom((64, 64, 64)), str(tiny_model))
        with pytest.raises(OutputError, match=r"cannot be written to .* free space there"):
            large.segment("liver", roi=(0, 0, 0, 9, 9, 9))
        assert arrays_of(client.shared.path) == []
        assert session.click("lung tumor", [Click(centre_of(phantom))]).changed


def test_memory_errors_of_any_kind_become_a_sentence():
    """What the engine itself does not expect, such as an image that does not fit in memory twice."""
    from VISTA3DCore.engine.handlers import Handlers
    from VISTA3DCore.engine.protocol import CloseParams

    told: list[str] = []
    handlers = Handlers(told.append)
    handlers._methods["close"] = lambda _params, _progress: np.zeros((1 << 20, 1 << 20, 1 << 10))
    with pytest.raises(NotEnoughMemoryError, match="not enough memory for this request; close other volumes"):
        handlers.call("close", CloseParams("s"), Progress())
    assert len(told) == 1


def test_standard_output_carries_frames_alone():
    lines: list[str] = []
    transport = ChildProcess([sys.executable, str(HERE / "frail_engine.py"), "print", "talk"], log=lines.append)
    with BlockingClient(transport) as client:
        client.call("status")
    assert "talk in Python" in lines
    assert "talk in C" in lines
