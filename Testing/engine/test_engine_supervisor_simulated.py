"""The supervisor without processes and without time: pauses, replays, health, and every way for a request to end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from protocol_helpers import MEMORY

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.client import Failure, Response
from VISTA3DCore.engine.protocol import (
    ArrayRef,
    CloseParams,
    InitializeResult,
    LoadParams,
    LoadResult,
    OpenParams,
    OpenResult,
    ProtocolError,
    SegmentParams,
    StatusResult,
    UnknownSessionError,
    WarmParams,
    WarmResult,
    WorkerGoneError,
    error_message,
    read_message,
    result_message,
)
from VISTA3DCore.engine.supervised_client import SupervisedClient
from VISTA3DCore.engine.supervisor import RestartPolicy
from VISTA3DCore.engine.transports import InMemory
from VISTA3DCore.errors import Cancelled, InputError

REF = ArrayRef("array-1.npy", (1, 1, 1), "int16")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Let shared directories lie in the test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


class Clock:
    """``call_later`` by hand."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def __call__(self, seconds: float, function: Callable[[], None]) -> None:
        self.calls.append((self.now + seconds, function))

    def run(self, until: float) -> None:
        while due := sorted((call for call in self.calls if call[0] <= until), key=lambda call: call[0]):
            self.calls.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = until


class Engine:
    """Engine processes in memory: each answers by a table of functions, params -> result or exception."""

    def __init__(self) -> None:
        self.lives: list[InMemory] = []
        self.answers = {
            "initialize": lambda _params: InitializeResult(1, "0", 1, "cpu", "", MEMORY),
            "status": lambda _params: StatusResult((), MEMORY, 0, None),
            "open": lambda _params: OpenResult(f"life-{len(self.lives)}", (1, 1, 1)),
            "warm": lambda _params: WarmResult(1),
            "close": lambda _params: None,
        }
        self.muted: set[str] = set()

    def __call__(self) -> InMemory:
        self.lives.append(InMemory(self.respond))
        return self.lives[-1]

    def respond(self, message: dict) -> list[dict]:
        request = read_message(message)
        if request.method in self.muted or request.method not in self.answers:
            return []
        answer = self.answers[request.method](request.params)
        if isinstance(answer, Exception):
            return [error_message(request.id, answer)]
        return [result_message(request.id, answer)]

    def asked(self, life: int = -1) -> list[str]:
        return [message["method"] for message in self.lives[life].sent]


@pytest.fixture
def simulated():
    engine, clock = Engine(), Clock()
    reports, states = [], []
    with SupervisedClient(
        engine, call_later=clock, on_report=lambda error: reports.append(str(error)), on_state=states.append
    ) as supervisor:
        supervisor.start()
        yield supervisor, engine, clock, reports, states


def opened(supervisor: SupervisedClient) -> str:
    events = []
    supervisor.submit("open", OpenParams(REF, "mini", "head"), events.append)
    return events[0].result.session


def test_pauses_double_up_to_the_longest():
    assert [RestartPolicy().pause(failures) for failures in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_restarts_wait_longer_and_longer_until_something_succeeds(simulated):
    supervisor, engine, clock, reports, _ = simulated
    engine.muted.add("initialize")
    engine.lives[-1].lose("One.")
    started = []
    for pause in (0.2, 0.4, 0.8):
        clock.run(clock.now + pause * 0.99)
        started.append(len(engine.lives))
        clock.run(clock.now + pause * 0.02)
        engine.lives[-1].lose("Again.")
    assert started == [1, 2, 3]
    assert reports == ["One."]

    engine.muted.clear()
    clock.run(clock.now + 1.7)
    assert supervisor.state == "ready"
    supervisor.submit("status", None, lambda _event: None)
    engine.lives[-1].lose("Two.")
    clock.run(clock.now + 0.21)
    assert supervisor.state == "ready"
    assert reports == ["One.", "Two."]


def test_a_process_that_dies_again_and_again_without_work_is_given_up(simulated):
    supervisor, engine, clock, _, _ = simulated
    for _ in range(9):
        assert supervisor.state == "ready"
        engine.lives[-1].lose("Again.")
        clock.run(clock.now + 10.0)

    assert supervisor.state == "failed"
    clock.run(clock.now + 1000.0)
    assert len(engine.lives) == 9
    supervisor.submit("status", None, lambda _event: None)
    assert supervisor.state == "ready"


def test_model_and_volumes_are_replayed_in_order_before_anything_else(simulated):
    supervisor, engine, clock, _, _ = simulated
    engine.answers["load"] = lambda _params: InputError("whatever")
    session, events = opened(supervisor), []
    engine.lives[-1].lose()
    supervisor.submit("warm", WarmParams(session, (0, 0, 0)), events.append)
    assert events == []
    clock.run(1.0)

    assert engine.asked() == ["initialize", "open", "warm"]
    assert engine.lives[-1].sent[-1]["params"]["session"] == "life-2"
    assert events == [Response(2, WarmResult(1))]


def test_the_model_is_loaded_first(simulated):
    supervisor, engine, clock, _, _ = simulated
    result = LoadResult("mini", "cpu", "", (), True, "vista3d-ct")
    engine.muted.add("load")
    events = []
    supervisor.submit("load", LoadParams("mini"), events.append)
    engine.lives[-1].deliver(result_message(2, result))
    assert isinstance(events[0], Response)
    opened(supervisor)
    engine.lives[-1].lose()
    engine.muted.clear()
    engine.answers["load"] = lambda _params: InputError("The model is gone.")
    clock.run(1.0)

    assert engine.asked() == ["initialize", "load", "open"]
    assert supervisor.state == "ready"


def test_a_volume_that_is_closed_while_it_is_opened_again_is_freed(simulated):
    supervisor, engine, clock, _, _ = simulated
    session, events = opened(supervisor), []
    engine.lives[-1].lose()
    engine.muted.add("open")
    clock.run(1.0)
    supervisor.submit("close", CloseParams(session), events.append)
    assert events == [Response(2, None)]
    engine.lives[-1].deliver(result_message(2, OpenResult("late", (1, 1, 1))))

    assert engine.lives[-1].sent[-1]["params"] == {"session": "late"}
    assert supervisor.state == "ready"


def test_requests_about_a_volume_that_the_engine_lost_wait_for_one_opening(simulated):
    supervisor, engine, _, _, _ = simulated
    session, events = opened(supervisor), []
    engine.answers["warm"] = lambda params: (
        WarmResult(1) if params["session"] == "new" else UnknownSessionError("It was closed.")
    )
    engine.muted.add("open")
    for _ in range(3):
        supervisor.submit("warm", WarmParams(session, (0, 0, 0)), events.append)
    assert engine.asked().count("open") == 2
    engine.lives[-1].deliver(result_message(engine.lives[-1].sent[-3]["id"], OpenResult("new", (1, 1, 1))))

    assert [event.result for event in events] == [WarmResult(1)] * 3


@pytest.mark.parametrize("how", ["fails", "closed", "lost", "stopped"])
def test_requests_that_wait_for_an_opening_end_in_any_case(simulated, how):
    supervisor, engine, _, _, _ = simulated
    session, events = opened(supervisor), []
    engine.answers["warm"] = lambda _params: UnknownSessionError("It was closed.")
    engine.muted.add("open")
    supervisor.submit("warm", WarmParams(session, (0, 0, 0)), events.append)
    opening = engine.lives[-1].sent[-1]["id"]
    {
        "fails": lambda: engine.lives[-1].deliver(error_message(opening, InputError("The file is gone."))),
        "closed": lambda: supervisor.submit("close", CloseParams(session), lambda _event: None),
        "lost": lambda: engine.lives[-1].lose("Gone."),
        "stopped": supervisor.close,
    }[how]()

    kinds = {"fails": InputError, "closed": UnknownSessionError, "lost": WorkerGoneError, "stopped": WorkerGoneError}
    assert [type(event.error) for event in events] == [kinds[how]]


def test_a_session_that_stays_unknown_is_an_error_and_no_loop(simulated):
    supervisor, engine, _, _, _ = simulated
    session, events = opened(supervisor), []
    engine.answers["warm"] = lambda _params: UnknownSessionError("It was closed.")
    supervisor.submit("warm", WarmParams(session, (0, 0, 0)), events.append)

    assert [type(event.error) for event in events] == [UnknownSessionError]
    assert engine.asked() == ["initialize", "open", "warm", "open", "warm"]


def test_a_silent_process_is_replaced(simulated):
    supervisor, engine, clock, reports, states = simulated
    clock.run(61.0)
    assert engine.asked() == ["initialize"] + ["status"] * 4
    events = []
    engine.muted |= {"status", "segment"}
    supervisor.submit("segment", SegmentParams(opened(supervisor), ("liver",)), events.append)
    clock.run(200.0)

    assert reports == ["The engine process did not answer for 60 s."]
    assert [type(event.error) for event in events] == [WorkerGoneError]
    assert engine.lives[0].closed
    engine.muted.clear()
    assert states[:5] == ["starting", "ready", "waiting", "starting", "ready"]


def test_a_slow_process_is_left_alone(simulated):
    _, engine, clock, reports, _ = simulated
    engine.muted.add("status")
    clock.run(16.0)
    for _ in range(20):
        clock.run(clock.now + 40.0)
        for message in engine.lives[-1].sent:
            engine.lives[-1].deliver(result_message(message["id"], StatusResult((), MEMORY, 0, None)))

    assert reports == []
    assert len(engine.lives) == 1


def test_a_queued_request_can_be_cancelled(simulated):
    supervisor, engine, clock, _, _ = simulated
    engine.lives[-1].lose()
    events = []
    identity = supervisor.submit("status", None, events.append)
    supervisor.cancel(identity)
    supervisor.cancel(identity)
    clock.run(1.0)

    assert [(event.id, type(event.error)) for event in events] == [(identity, Cancelled)]
    assert engine.asked() == ["initialize"]


def test_a_request_made_the_moment_that_another_fails_waits_for_the_next_process(simulated):
    supervisor, engine, clock, reports, _ = simulated
    session, events = opened(supervisor), []
    engine.muted.add("segment")

    def ask_again(event):
        # The supervisor has not heard yet that the connection is over.
        assert supervisor.state == "ready"
        supervisor.submit("warm", WarmParams(session, (0, 0, 0)), events.append)

    supervisor.submit("segment", SegmentParams(session, ("liver",)), ask_again)
    engine.lives[-1].lose("Gone.")
    assert events == []
    clock.run(1.0)

    assert [event.result for event in events] == [WarmResult(1)]
    assert reports == ["Gone."]


def test_closing_a_session_the_moment_that_the_process_ends_succeeds(simulated):
    supervisor, engine, _, _, _ = simulated
    session, events = opened(supervisor), []
    engine.muted.add("segment")
    supervisor.submit(
        "segment",
        SegmentParams(session, ("liver",)),
        lambda _event: supervisor.submit("close", CloseParams(session), events.append),
    )
    engine.lives[-1].lose("Gone.")

    assert [type(event) for event in events] == [Response]


def test_the_handshake_is_nobody_elses_business(simulated):
    supervisor, _, _, _, _ = simulated
    for method in ("initialize", "shutdown"):
        events = []
        supervisor.submit(method, None, events.append)
        assert [type(event.error) for event in events] == [ProtocolError]


def test_a_handler_that_raises_harms_nobody_else(simulated):
    supervisor, engine, _, _, _ = simulated
    engine.lives[-1].lose()
    events = []

    def broken(_event):
        raise ZeroDivisionError

    supervisor.submit("status", None, broken)
    supervisor.submit("status", None, events.append)
    with pytest.raises(ZeroDivisionError):
        supervisor.close()

    assert [type(event) for event in events] == [Failure]


def test_a_shared_directory_of_somebody_else_stays(tmp_path):
    with SharedDirectory() as shared:
        SupervisedClient(Engine(), shared=shared, call_later=Clock()).close()
        assert shared.path.exists()


def test_nothing_starts_before_it_is_asked_to():
    engine = Engine()
    with SupervisedClient(engine, call_later=Clock()) as supervisor:
        assert supervisor.state == "stopped"
        assert engine.lives == []
        supervisor.submit("status", None, lambda _event: None)
        assert supervisor.state == "ready"
        supervisor.start()
        assert len(engine.lives) == 1
