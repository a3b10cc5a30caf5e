"""The supervisor: whatever happens to the engine process, the next request works, and nobody hears of it twice."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from protocol_helpers import AFFINE, child, nothing_left, wait_until

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.protocol import (
    CloseParams,
    UnknownSessionError,
    UnsupportedVersionError,
    WorkerGoneError,
)
from VISTA3DCore.engine.supervised_client import SupervisedClient
from VISTA3DCore.engine.supervisor import RestartPolicy
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

QUICK = RestartPolicy(first_pause=0.02, longest_pause=0.1, restarts=4)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Let shared directories lie in the test's folder, and check that nothing stays there or runs on."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with nothing_left(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


class Watched:
    """A supervisor over real child processes, and all that it told."""

    def __init__(self, start: Callable[[], ChildProcess], policy: RestartPolicy = QUICK) -> None:
        self.processes: list[ChildProcess] = []
        self.reports: list[str] = []
        self.states: list[str] = []
        self._start = start
        self.supervisor = SupervisedClient(
            self.start,
            on_report=lambda error: self.reports.append(str(error)),
            on_state=self.states.append,
            policy=policy,
        )
        self.client = BlockingClient(self.supervisor)

    def start(self) -> ChildProcess:
        self.processes.append(self._start())
        return self.processes[-1]

    def kill(self) -> None:
        """Kill the present process, and wait until the supervisor has noticed."""
        reports = len(self.reports)
        kill(self.processes[-1])
        wait_until(lambda: len(self.reports) > reports)


@pytest.fixture
def watch(tmp_path):
    """Return what makes a supervised client; it is closed after the test."""
    made: list[Watched] = []

    def make(*arguments: object, policy: RestartPolicy = QUICK) -> Watched:
        made.append(Watched(lambda: child(tmp_path, *arguments), policy))
        return made[-1]

    yield make
    for one in made:
        one.client.close()
        assert one.supervisor.state == "closed"


@pytest.fixture
def volume() -> Volume:
    return Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE, "head", "CT")


def kill(process: ChildProcess) -> None:
    os.kill(process.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)


def test_the_process_starts_in_the_background_and_the_first_request_waits_for_it(watch, volume):
    watched = watch()
    assert watched.states == ["starting"]
    assert watched.client.open(volume).segment("liver").labels.all()
    assert watched.states == ["starting", "ready"]
    assert watched.client.info.pid == watched.processes[0].pid
    assert watched.reports == []


@pytest.mark.parametrize("order", ["crash", "exit", "garbage"])
def test_a_process_that_fails_in_a_request(watch, volume, order):
    watched = watch()
    session = watched.client.open(volume)

    with pytest.raises(WorkerGoneError) as caught:
        session.segment(order)
    assert session.segment("liver").labels.all()
    assert watched.reports == [str(caught.value)]
    assert watched.states == ["starting", "ready", "waiting", "starting", "ready"]
    assert len(watched.processes) == 2


def test_a_process_that_is_killed_in_a_request(watch, volume):
    watched = watch()
    session = watched.client.open(volume)
    timer = threading.Timer(0.1, lambda: kill(watched.processes[0]))
    timer.start()

    with pytest.raises(WorkerGoneError):
        session.segment("slow")
    timer.join()
    assert session.click("liver", []).patch.any()
    assert len(watched.reports) == 1


def test_a_process_that_is_killed_while_nothing_happens(watch, volume):
    watched = watch()
    session = watched.client.open(volume)
    for _ in range(3):
        watched.kill()
        assert session.segment("liver").labels.all()
    assert len(watched.processes) == 4
    assert watched.states.count("waiting") == len(watched.reports) == 3


@pytest.mark.parametrize("plan", ["crash", "exit", "garbage"])
def test_a_process_that_fails_in_the_handshake(watch, tmp_path, volume, plan):
    watched = watch(plan, tmp_path / "once")

    assert watched.client.open(volume).segment("liver").labels.all()
    assert len(watched.reports) == 1
    assert watched.states == ["starting", "waiting", "starting", "ready"]


def test_a_process_that_is_killed_in_the_handshake(watch, tmp_path, volume):
    watched = watch("mute", tmp_path / "once")
    wait_until((tmp_path / "once").exists)
    kill(watched.processes[0])

    assert watched.client.open(volume).segment("liver").labels.all()
    assert len(watched.reports) == 1


def test_a_process_that_hangs_in_the_handshake(watch, tmp_path, volume):
    watched = watch("mute", tmp_path / "once", policy=RestartPolicy(first_pause=0.02, handshake=0.5))

    assert watched.client.open(volume).segment("liver").labels.all()
    assert watched.reports == ["The engine process did not start within 0.5 s."]


def test_a_process_that_never_starts_is_given_up_and_tried_again_at_the_next_request(watch, tmp_path):
    watched = watch("exit")

    for attempt in (1, 2):
        with pytest.raises(WorkerGoneError, match="the last words"):
            watched.client.call("status")
        assert watched.supervisor.state == "failed"
        assert len(watched.processes) == attempt * (QUICK.restarts + 1)
        assert len(watched.reports) == attempt


def test_a_process_that_refuses_is_not_started_again(watch):
    watched = watch("refuse")

    with pytest.raises(UnsupportedVersionError, match="update the client"):
        watched.client.call("status")
    assert len(watched.processes) == 1
    assert watched.reports == ["This engine speaks protocol version 2; update the client."]


def test_a_command_that_does_not_exist(tmp_path):
    reports = []
    with SupervisedClient(
        lambda: ChildProcess([str(tmp_path / "no python")]),
        on_report=lambda error: reports.append(str(error)),
        policy=QUICK,
    ) as one:
        client = BlockingClient(one)
        with pytest.raises(WorkerGoneError, match="cannot be started with"):
            client.call("status")
    assert len(reports) == 1


def test_a_factory_that_fails_is_told_as_a_sentence():
    def fail():
        raise RuntimeError("no QProcess here")

    with (
        SupervisedClient(fail, policy=QUICK) as supervisor,
        pytest.raises(WorkerGoneError, match=r"cannot be started \(no QProcess here\)"),
    ):
        BlockingClient(supervisor).call("status")


def test_session_ids_stay_valid_and_closed_volumes_are_not_opened_again(watch, volume):
    watched = watch()
    first, second = watched.client.open(volume), watched.client.open(volume)
    assert len(list(watched.client.shared.path.iterdir())) == 2
    first.close()
    watched.kill()
    assert second.segment("liver").labels.all()

    assert watched.client.call("status").sessions == ("volume-2",)
    assert len(list(watched.client.shared.path.iterdir())) == 1
    second.close()
    assert list(watched.client.shared.path.iterdir()) == []
    assert watched.client.call("status").sessions == ()
    with pytest.raises(UnknownSessionError, match="open it again"):
        watched.client.call("close", CloseParams("volume-2"))


def test_a_volume_that_the_engine_let_go_of_is_opened_again(watch, volume):
    watched = watch()
    session = watched.client.open(volume)
    session.segment("forget")

    assert session.segment("liver").labels.all()
    assert len(watched.processes) == 1
    assert watched.reports == []


def test_a_volume_that_kills_the_engine_when_opened_again_is_left_out(watch, volume):
    watched = watch()
    bad = watched.client.open(volume, "crash-again")
    good = watched.client.open(volume, "mini")
    watched.kill()

    assert good.segment("liver").labels.all()
    with pytest.raises(WorkerGoneError, match="ended twice while it opened the volume 'head' again"):
        bad.segment("liver")
    assert len(watched.reports) == 1
    bad.close()


def test_a_volume_that_cannot_be_opened_again_tells_why(watch, volume):
    watched = watch()
    session, other = watched.client.open(volume), watched.client.open(volume)
    (watched.client.shared.path / "array-1.npy").unlink()
    watched.kill()

    assert other.segment("liver").labels.all()
    with pytest.raises(InputError, match="The volume's file is gone"):
        session.segment("liver")


def test_what_a_killed_process_left_is_removed(watch, volume):
    watched = watch()
    session = watched.client.open(volume)
    for name in ("result-99-1.npy", "result-99-2.npy.part"):
        (watched.client.shared.path / name).write_bytes(b"half")
    watched.kill()
    session.segment("liver")

    assert [file.name for file in watched.client.shared.path.iterdir()] == ["array-1.npy"]


def test_progress_and_cancelling_work_after_a_restart(watch, volume):
    watched = watch()
    session, seen = watched.client.open(volume), []
    watched.kill()
    progress = Progress(lambda update: (seen.append(update), progress.cancel()))

    with pytest.raises(Cancelled):
        session.segment("slow", progress=progress)
    assert seen


def test_requests_of_several_threads_all_end(watch, volume):
    watched = watch()
    session, ends = watched.client.open(volume), []

    def ask() -> str:
        try:
            watched.client.call("status")
        except WorkerGoneError:
            return "gone"
        return "answered"

    def work() -> None:
        ends.extend(ask() for _ in range(30))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError, TypeError):  # it has just ended, or not quite begun
            kill(watched.processes[-1])
    for thread in threads:
        thread.join(30)
    assert len(ends) == 120
    assert session.segment("liver").labels.all()


def test_closing_while_it_starts_leaves_nothing(watch):
    for delay in (0.0, 0.005, 0.02, 0.05):
        watched = watch()
        time.sleep(delay)
        watched.client.close()
        with pytest.raises(WorkerGoneError, match="was stopped"):
            watched.client.call("status")


def test_closing_fails_what_is_open(watch, volume):
    watched = watch()
    session = watched.client.open(volume)
    threading.Timer(0.1, watched.supervisor.close).start()

    with pytest.raises(WorkerGoneError, match="was stopped"):
        session.segment("slow")
    assert watched.reports == []
