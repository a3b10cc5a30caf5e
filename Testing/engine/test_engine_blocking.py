"""Blocking calls, against a real child process that speaks the protocol (or does not)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import psutil
import pytest
from protocol_helpers import AFFINE, child, nothing_left

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.protocol import (
    InitializeResult,
    LoadParams,
    Memory,
    NoParams,
    UnsupportedVersionError,
    WorkerGoneError,
    result_message,
)
from VISTA3DCore.engine.transports import ChildProcess, InMemory
from VISTA3DCore.errors import Cancelled, InputError, SlowerWarning, UnknownStructureError
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

CLICK = Click((0.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Let shared directories lie in the test's folder, and check that nothing stays there or runs on."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with nothing_left(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture
def volume() -> Volume:
    return Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE, "head", "CT")


@pytest.fixture
def client(tmp_path):
    with BlockingClient(child(tmp_path)) as one:
        yield one


def test_calls_give_the_engines_types(client, volume):
    session = client.open(volume, "mini", "cpu")
    found = session.segment(["liver", 3])

    assert isinstance(client.info, InitializeResult)
    assert session.model_shape == (4, 4, 4)
    assert (found.labels == 1).all()
    assert found.masks[3].dtype == bool
    assert [one.name for one in found.structures] == ["liver", "spleen"]
    assert found.provenance == {"model": "mini"}
    assert np.array_equal(found.affine, AFFINE)
    found.labels[0, 0, 0] = 7
    assert list(client.shared.path.iterdir()) == []
    session.close()
    session.close()
    assert client.call("status").sessions == ()


def test_clicks_give_a_box_and_a_patch(client, volume):
    base = np.zeros(volume.shape, dtype=bool)
    base[2] = True
    with client.open(volume) as session:
        result = session.click("liver", [CLICK], base)

    assert result.box == (slice(0, 1), slice(1, 3), slice(2, 3))
    assert result.structure.name == "liver"
    assert result.mask.sum() == base.sum() + 1
    assert result.mask[0, 1, 2]
    assert not base[0].any()
    assert list(client.shared.path.iterdir()) == []


def test_a_click_that_changes_nothing_has_no_patch(client, volume):
    base = np.ones(volume.shape, dtype=bool)
    with client.open(volume) as session:
        result = session.click("nothing", [CLICK], base)

    assert not result.changed
    assert np.array_equal(result.mask, base)


def test_a_base_is_sent_only_if_it_changed(client, volume, monkeypatch):
    sent, put = [], client.shared.put
    base = np.zeros(volume.shape, dtype=bool)
    base[1] = True
    with client.open(volume) as session:
        monkeypatch.setattr(client.shared, "put", lambda *args: sent.append(1) or put(*args))
        for same in (base, base.copy(), np.asfortranarray(base)):
            session.click("liver", [CLICK], same)
        assert len(sent) == 1
        base[2] = True
        session.click("liver", [CLICK], base)
        assert len(sent) == 2
        assert len(list(client.shared.path.iterdir())) == 1
        base.flags.writeable = False
        session.click("liver", [CLICK], base)
        monkeypatch.setattr(np, "array_equal", None)
        session.click("liver", [CLICK], base)
        assert len(sent) == 2


def test_a_view_of_something_writable_is_compared_again(client, volume):
    owner = np.zeros(volume.shape, dtype=bool)
    owner[1] = True
    view = owner.view()
    view.flags.writeable = False
    with client.open(volume) as session:
        first = session._base.ref(view)
        owner[2] = True
        assert session._base.ref(view) != first


def test_notes_and_notices_are_warnings(client, volume):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.open(volume)

    assert {(str(one.message), one.category) for one in caught} == {
        ("A note.", UserWarning),
        ("A notice.", SlowerWarning),
    }


def test_errors_are_raised_as_they_are_in_process(client, volume):
    session = client.open(volume)
    with pytest.raises(UnknownStructureError, match="There is no structure 'unknown'"):
        session.segment("unknown")
    with pytest.raises(InputError, match="six numbers"):
        session.segment("liver", roi=(1, 2))
    session.close()
    with pytest.raises(InputError, match="The session is closed; open the volume again"):
        session.segment("liver")


def test_progress_arrives_and_cancelling_stops(client, volume):
    session, seen = client.open(volume), []
    progress = Progress(lambda update: (seen.append(update), len(seen) == 3 and progress.cancel()))

    with pytest.raises(Cancelled, match="nothing was changed"):
        session.segment("slow", progress=progress)
    assert {(one.stage, one.fraction) for one in seen} == {("Working", 0.5)}
    assert session.segment("liver").labels.all()


def test_cancelling_from_another_thread_stops(client, volume):
    session, progress = client.open(volume), Progress()
    timer = threading.Timer(0.1, progress.cancel)
    timer.start()

    with pytest.raises(Cancelled):
        session.segment("slow", progress=progress)
    timer.join()


def test_an_exception_of_the_callers_callback_cancels_the_request(client, volume):
    session = client.open(volume)

    def broken(_update):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.segment("slow", progress=broken)
    assert session.segment("liver").labels.all()


def test_a_call_waits_no_longer_than_told_and_a_late_result_is_deleted(client, volume):
    session = client.open(volume)
    with pytest.raises(WorkerGoneError, match=r"did not answer within 0\.1 s"):
        client.call("load", LoadParams("mute"), timeout=0.1)
    assert session.segment("liver").labels.all()


def test_files_of_an_answer_that_nobody_waits_for_go(tmp_path):
    answers = []
    memory = InMemory(lambda message: answers.append(message) or ())
    threading.Timer(0.05, lambda: memory.deliver(result_message(1, hello()))).start()
    client = BlockingClient(memory)
    file = client.shared.path / "result-1.npy"
    ref = client.shared.put(np.zeros(3), name=file.name)
    with pytest.raises(WorkerGoneError):
        client.call("uncertainty", NoParams(), timeout=0.01)
    memory.deliver({"jsonrpc": "2.0", "id": 2, "result": {"uncertainty": ref.to_json()}})

    assert not file.exists()
    assert [message["method"] for message in answers] == ["initialize", "uncertainty", "$/cancelRequest"]
    memory.lose()
    client.close()


def hello() -> InitializeResult:
    return InitializeResult(1, "0", 1, "cpu", "", Memory(2, 1))


def test_several_threads_may_call(client, volume):
    session, failures = client.open(volume), []

    def work():
        failures.extend(1 for _ in range(20) if not client.call("status").sessions)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert session.segment("liver").labels.all()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("order", ["crash", "exit", "garbage"])
def test_a_process_that_fails_fails_the_call_once(client, volume, order):
    session = client.open(volume)

    with pytest.raises(WorkerGoneError):
        session.segment(order)
    with pytest.raises(WorkerGoneError):
        session.segment("liver")
    session.close()


@pytest.mark.parametrize("plan", ["crash", "exit", "garbage"])
def test_a_process_that_fails_in_the_handshake_is_told(tmp_path, plan):
    with pytest.raises(WorkerGoneError):
        BlockingClient(child(tmp_path, plan))


def test_a_process_that_refuses_is_told(tmp_path):
    with pytest.raises(UnsupportedVersionError, match="protocol version 2; update the client"):
        BlockingClient(child(tmp_path, "refuse"))


def test_a_process_that_hangs_in_the_handshake_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("VISTA3DCore.engine.blocking_client.START_TIMEOUT_S", 0.2)
    monkeypatch.setattr(ChildProcess.close, "__defaults__", (0.2,))
    with pytest.raises(WorkerGoneError, match=r"within 0\.2 s"):
        BlockingClient(child(tmp_path, "mute"))


def test_a_volume_that_cannot_be_opened_leaves_no_file(client, volume):
    with pytest.raises(WorkerGoneError):
        client.open(volume, "crash")
    assert list(client.shared.path.iterdir()) == []


def test_two_clients_have_nothing_in_common(tmp_path, volume):
    with BlockingClient(child(tmp_path)) as one, BlockingClient(child(tmp_path)) as other:
        first, second = one.open(volume), other.open(volume)
        with pytest.raises(WorkerGoneError):
            first.segment("crash")
        assert second.segment("liver").labels.all()
        assert one.shared.path != other.shared.path


def test_connections_come_and_go_without_a_trace(tmp_path):
    me, counts = psutil.Process(), []
    for _ in range(8):
        with BlockingClient(child(tmp_path)) as client:
            client.call("status")
        counts.append((me.num_fds() if os.name == "posix" else 0, threading.active_count()))

    assert counts[-1] == counts[1]


def test_a_client_never_loads_the_network_runtime():
    code = (
        "import sys; from VISTA3DCore.engine import blocking_client, supervised_client;"
        "print(*{'torch', 'monai', 'SimpleITK', 'scipy', 'psutil'} & set(sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == []
