"""How long the panel complains about the engine: with real processes that end, or cannot be started at first."""

from __future__ import annotations

import sys

from engine_helpers import EngineUnderTest, running_engine
from logic_helpers import Answers, Heard

from VISTA3DCore.engine.supervisor import RestartPolicy
from VISTA3DSegmentLib.logic.signals import Signal
from VISTA3DSegmentLib.logic.trouble import EngineTrouble


def work(under_test: EngineUnderTest) -> None:
    answers = Answers()
    under_test.engine.request("status", None, *answers.callbacks)
    under_test.loop.run_until(lambda: answers.count)
    assert answers.results


def test_a_process_that_ended_is_a_trouble_until_something_was_done() -> None:
    with running_engine() as under_test:
        work(under_test)
        done = Signal()
        heard = Heard(EngineTrouble(under_test.engine, done))
        under_test.kill()
        under_test.loop.run_until(lambda: heard.any("began") and under_test.engine.state == "ready")
        assert "engine process ended" in heard.sentence("began")
        assert not heard.any("ended"), "nobody could have read it"
        done()
        done()
        assert heard.all("ended") == [()]


def test_a_process_that_could_not_be_started_is_a_trouble_until_it_runs() -> None:
    broken = [sys.executable, "-c", "raise SystemExit(3)"]
    with running_engine(command=broken, policy=RestartPolicy(0.01, 0.02, restarts=1)) as under_test:
        heard = Heard(EngineTrouble(under_test.engine))
        under_test.engine.start()
        under_test.loop.run_until(lambda: under_test.engine.state == "failed")
        assert heard.any("began")
        assert not heard.any("ended")
        under_test.command = None
        under_test.engine.stop()  # as after an installation
        work(under_test)
        assert heard.all("ended") == [()]


def test_nothing_is_followed_after_the_end() -> None:
    with running_engine() as under_test:
        work(under_test)
        trouble = EngineTrouble(under_test.engine)
        heard = Heard(trouble)
        trouble.close()
        under_test.kill()
        under_test.loop.run_for(0.5)
        assert heard.events == []
