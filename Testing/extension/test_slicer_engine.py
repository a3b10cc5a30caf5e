"""The engine as the front end sees it: one answer to each request, none after close; real processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_helpers import EngineUnderTest, running_engine
from engine_processes import coarse_phantom, is_alive, wait_until
from logic_helpers import SHAPE, Answers, Heard, assert_sentence

from VISTA3DCore.engine.protocol import LoadParams, OpenParams, SegmentParams, WorkerGoneError
from VISTA3DCore.engine.supervisor import RestartPolicy
from VISTA3DCore.errors import (
    Cancelled,
    DeviceError,
    LicenseNotAcceptedError,
    ModelError,
    OutputError,
    UnknownStructureError,
    VistaError,
)
from VISTA3DSegmentLib.logic.engine import Engine
from VISTA3DSegmentLib.logic.wording import in_panel_words, panel_sentence, title_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def under_test() -> Iterator[EngineUnderTest]:
    """Return an engine that the tests of this file share."""
    with running_engine() as under_test:
        yield under_test


@pytest.fixture
def own() -> Iterator[EngineUnderTest]:
    """Return an engine that a test may spoil."""
    with running_engine() as under_test:
        yield under_test


@pytest.fixture(scope="module")
def session(under_test: EngineUnderTest, tiny_model: Path) -> str:
    """Return the phantom, opened in the shared engine."""
    return open_phantom(under_test, tiny_model)


def ask(under_test: EngineUnderTest, method: str, params: object = None) -> Answers:
    """Send a request and wait for its answer."""
    answers = Answers()
    under_test.engine.request(method, params, *answers.callbacks)
    assert answers.count == 0  # never before the request is known
    under_test.loop.run_until(lambda: answers.count)
    return answers


def open_phantom(under_test: EngineUnderTest, model: Path) -> str:
    volume = coarse_phantom(SHAPE)
    ref = under_test.engine.put_array(volume.array, volume.affine)
    (opened,) = ask(under_test, "open", OpenParams(ref, str(model))).results
    return opened.session


def test_the_first_request_starts_the_process_and_signals_tell(own: EngineUnderTest) -> None:
    heard = Heard(own.engine)
    assert (own.engine.state, own.engine.info) == ("stopped", None)
    (status,) = ask(own, "status").results
    assert (status.sessions, own.engine.state) == ((), "ready")
    assert heard.all("state_changed") == [("starting",), ("ready",)]
    assert own.engine.info.device == "cpu"


def test_an_error_comes_to_on_error_as_a_sentence(under_test: EngineUnderTest) -> None:
    (error,) = ask(under_test, "load", LoadParams("vista3d-ct")).errors
    assert_sentence(str(error))
    assert "'Import file' in Setup" in str(error)
    assert "vista3d models" not in str(error)


def test_results_with_arrays_are_taken(under_test: EngineUnderTest, session: str) -> None:
    answers = ask(under_test, "segment", SegmentParams(session, ("liver",)))
    labels = under_test.engine.take_array(answers.results[0].labels)
    assert (labels.shape, labels.dtype) == (SHAPE, np.uint16)
    assert [update.fraction for update in answers.progress] == sorted(update.fraction for update in answers.progress)


def test_a_cancelled_request_is_answered_once(under_test: EngineUnderTest, session: str) -> None:
    answers = Answers()
    params = SegmentParams(session, ("everything",), "paper")
    request = under_test.engine.request("segment", params, *answers.callbacks)
    under_test.loop.run_until(lambda: answers.progress)
    request.cancel()
    under_test.loop.run_until(lambda: answers.count)
    request.cancel()
    under_test.loop.run_for(0.2)
    assert request.done
    assert [type(error) for error in answers.errors] == [Cancelled]
    assert answers.results == []


def test_a_dropped_request_is_heard_of_no_more_and_leaves_no_files(
    under_test: EngineUnderTest, session: str, tiny_model: Path
) -> None:
    answers = Answers()
    files = under_test.files()
    long = SegmentParams(session, ("everything",), "paper")  # at work still when it is dropped
    request = under_test.engine.request("segment", long, *answers.callbacks)
    (status,) = ask(under_test, "status").results  # sent after it
    request.drop()
    under_test.engine.request("segment", SegmentParams(session, ("spleen",)), *answers.callbacks).drop()
    ask(under_test, "load", LoadParams(str(tiny_model)))  # answered behind the others
    assert status.busy in (None, "segment")
    assert answers.count == 0
    assert under_test.files() == files


def test_a_request_that_is_dropped_before_the_process_is_ready_is_not_heard_of(own: EngineUnderTest) -> None:
    dropped, answers = Answers(), Answers()
    own.engine.request("status", None, *dropped.callbacks).drop()
    own.engine.request("status", None, *answers.callbacks)
    own.loop.run_until(lambda: answers.count)
    assert dropped.count == 0


def test_a_result_that_was_faster_than_its_drop_leaves_no_files(under_test: EngineUnderTest, session: str) -> None:
    ask(under_test, "segment", SegmentParams(session, ("liver",)))  # its files stay: nobody took them
    files, answers = under_test.files(), Answers()
    request = under_test.engine.request("segment", SegmentParams(session, ("spleen",)), *answers.callbacks)
    wait_until(lambda: len(under_test.files()) > len(files), 30)  # the loop stands still meanwhile
    request.drop()
    under_test.loop.run_until(lambda: under_test.files() == files)
    assert answers.count == 0


def test_a_killed_process_fails_the_request_once_and_the_next_one_works(own: EngineUnderTest, tiny_model: Path) -> None:
    heard, session, answers = Heard(own.engine), open_phantom(own, tiny_model), Answers()
    own.engine.request("segment", SegmentParams(session, ("liver",), "paper"), *answers.callbacks)
    own.loop.run_until(lambda: answers.progress)
    own.kill()
    own.loop.run_until(lambda: answers.count)
    assert isinstance(answers.errors[0], WorkerGoneError)
    assert heard.sentence("reported") == str(answers.errors[0])
    assert ask(own, "segment", SegmentParams(session, ("liver",))).results
    assert len(own.processes) == 2


def test_stop_ends_the_process_and_the_next_request_starts_another(own: EngineUnderTest) -> None:
    heard = Heard(own.engine)
    ask(own, "status")
    pid = own.processes[-1].pid
    own.engine.stop()
    assert own.engine.state == "stopped"
    assert heard.all("stopped") == [()]
    wait_until(lambda: not is_alive(pid), 10)
    assert ask(own, "status").results


def test_nothing_is_heard_after_close(own: EngineUnderTest, tiny_model: Path) -> None:
    session, answers = open_phantom(own, tiny_model), Answers()
    own.engine.request("segment", SegmentParams(session, ("liver",)), *answers.callbacks)
    heard, folder, pid = Heard(own.engine), own.engine.shared.path, own.processes[-1].pid
    own.engine.close()
    late = own.engine.request("status", None, *answers.callbacks)
    own.loop.run_for(0.3)
    assert (answers.count, answers.progress, heard.events, late.done) == (0, [], [], True)
    assert own.engine.state == "closed"
    assert not folder.exists()
    assert not is_alive(pid)


def test_an_interpreter_that_is_not_there_is_one_sentence() -> None:
    class Nothing:
        def start(self) -> None:
            raise WorkerGoneError("The engine process cannot be started with 'nothing' (No such file or directory).")

        def kill(self) -> None:
            pass

    under_test = EngineUnderTest()
    under_test.engine = Engine(Nothing, under_test.loop.call_later, policy=RestartPolicy(0.01, 0.02, restarts=2))
    heard = Heard(under_test.engine)
    answers = ask(under_test, "status")
    assert isinstance(answers.errors[0], WorkerGoneError)
    assert heard.sentence("reported") == str(answers.errors[0])
    assert under_test.engine.state == "failed"
    under_test.engine.close()


def test_a_large_array_goes_over_in_steps(under_test: EngineUnderTest) -> None:
    done, errors, turns = [], [], []
    array = np.arange(12_000_000, dtype=np.int32)  # 48 MB, three pieces
    call_later = under_test.engine.call_later
    under_test.engine.call_later = lambda seconds, function: (turns.append(seconds), call_later(seconds, function))
    handover = under_test.engine.hand_over(array, None, done.append, errors.append)
    assert not done
    under_test.loop.run_until(lambda: done or errors)
    assert handover.done
    assert len(turns) == 4  # three pieces, and the end
    np.testing.assert_array_equal(under_test.engine.take_array(done[0]), array)


def test_a_handover_can_be_given_up(under_test: EngineUnderTest) -> None:
    done, errors = [], []
    array = np.zeros(12_000_000, dtype=np.int32)
    under_test.engine.hand_over(array, None, done.append, errors.append).drop()
    handover = under_test.engine.hand_over(array, None, done.append, errors.append)
    under_test.loop.run_once(0.1)
    handover.cancel()
    under_test.loop.run_until(lambda: errors)
    under_test.loop.run_for(0.05)
    assert (done, [type(error) for error in errors]) == ([], [Cancelled])
    assert not [name for name in under_test.files() if name.endswith(".part")]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_is_one_sentence(under_test: EngineUnderTest) -> None:
    import resource

    done, errors = [], []
    files, before = under_test.files(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        under_test.engine.hand_over(np.zeros(1_000_000), None, done.append, errors.append)
        under_test.loop.run_until(lambda: done or errors)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(errors[0], OutputError)
    assert_sentence(str(errors[0]))
    assert under_test.files() == files


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            DeviceError("{subject} is not available", hint="choose-device", facts={"device": "cuda:1", "subject": "X"}),
            "The graphics card is not available; choose Automatic or Processor.",
        ),
        (
            ModelError(
                "The model '{model}' was not trained for clicks", hint="choose-click-model", facts={"model": "mini"}
            ),
            "The model 'Small demonstration model' was not trained for clicks; use 'VISTA3D' for them.",
        ),
        (
            LicenseNotAcceptedError(
                "The model '{model}' comes under the {license}",
                hint="accept-license",
                facts={"model": "mini", "license": "L", "url": "http://x.y"},
            ),
            "The model 'Small demonstration model' comes under the L; read and accept it in Setup (http://x.y).",
        ),
    ],
)
def test_commands_to_type_become_buttons(error: VistaError, words: str) -> None:
    worded = in_panel_words(error)
    assert str(worded) == words.replace("'VISTA3D'", f"'{title_of('vista3d-ct')}'")
    assert (type(worded), worded.hint, worded.facts) == (type(error), error.hint, error.facts)
    assert_sentence(str(worded))


def test_other_sentences_stay_as_they_are() -> None:
    error: VistaError = UnknownStructureError("There is no structure 'livre'; did you mean: liver?")
    assert panel_sentence(error) == str(error)
