"""Models, managed by a real process against a local server: listed, read, downloaded, stopped, checked, removed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_helpers import EngineUnderTest, running_engine
from engine_processes import is_alive, wait_until
from local_hub import COMMIT, Hub, Served
from logic_helpers import Heard, MemoryStore, assert_sentence

from VISTA3DCore.models.registry import REGISTRY
from VISTA3DSegmentLib.logic.housekeeping import Housekeeping
from VISTA3DSegmentLib.logic.models import LoadedModel, ModelManager
from VISTA3DSegmentLib.logic.settings import Settings
from VISTA3DSegmentLib.logic.structures import StructureChoice

NAME = "vista3d-ct"
ENTRY = REGISTRY[NAME]
TITLE = "VISTA3D for CT (NV-Segment-CT)"
CONTENT = bytes(range(256)) * 32_000  # 8 MB


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Run a local hub that has the released model, and its licence."""
    with Hub() as server:
        for revision in (ENTRY.revision, COMMIT):
            server.files[f"/{ENTRY.repo}/resolve/{revision}/{ENTRY.filename}"] = Served(CONTENT)
            server.files[f"/{ENTRY.repo}/resolve/{revision}/LICENSE"] = Served(b"You may test.\n", lfs=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Managing:
    """A model manager, its process and an empty folder."""

    def __init__(self, under_test: EngineUnderTest) -> None:
        self.under_test = under_test
        self.manager = ModelManager(Housekeeping(under_test.engine, idle_s=0.3))
        self.heard = Heard(self.manager)

    def wait(self, *signals: str) -> None:
        """Wait until one of some signals is heard, and the list is up to date."""
        self.under_test.loop.run_until(lambda: self.heard.any(*signals))
        self.under_test.loop.run_until(lambda: self.heard.events[-1][0] == "listed" or "failed" in signals)

    def refresh(self) -> None:
        self.heard.events.clear()
        self.manager.refresh()
        self.under_test.loop.run_until(lambda: self.heard.any("listed", "failed"))

    def work(self) -> None:
        """Wait until nothing is being worked on."""
        self.under_test.loop.run_until(lambda: not self.manager.busy)


@pytest.fixture
def managing(hub: Hub, tmp_path: Path) -> Iterator[Managing]:
    environment = {
        "VISTA3D_HOME": str(tmp_path / "home"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HTTP_PROXY": "",
        "http_proxy": "",
        "HF_TOKEN": "",
    }
    with running_engine(environment, compute=False) as under_test:
        yield Managing(under_test)


def test_models_are_listed(managing: Managing, tmp_path: Path) -> None:
    assert (managing.manager.models, managing.manager.folder) == ((), "")
    managing.refresh()
    assert {model.name for model in managing.manager.models} == set(REGISTRY)
    assert managing.manager.folder == str(tmp_path / "home")
    assert [model.name for model in managing.manager.installed()] == ["mini"]
    assert managing.manager.find(NAME).download_size == ENTRY.size
    assert managing.manager.find("nothing") is None
    assert [model.name for model in managing.manager.models if model.cleanup] == ["mini"]


def test_a_model_comes_after_its_licence_was_read(managing: Managing) -> None:
    texts = []
    managing.manager.licence(NAME, texts.append)
    managing.under_test.loop.run_until(lambda: texts)
    assert (texts[0].title, texts[0].text) == (ENTRY.licence, "You may test.\n")
    managing.manager.download(NAME, accept_licence=True)
    assert managing.manager.busy == NAME
    managing.work()
    managing.refresh()
    assert managing.manager.find(NAME).state == "verified"


def test_a_download_tells_how_far_it_is_and_how_it_ended(managing: Managing) -> None:
    managing.manager.download(NAME, accept_licence=True)
    managing.wait("finished", "failed")
    assert managing.heard.sentence("finished") == f"The model '{TITLE}' is ready."
    assert any("MB" in text for _fraction, text, _remaining in managing.heard.all("progressed"))
    assert managing.heard.all("busy_changed") == [(NAME,), ("",)]
    managing.heard.events.clear()
    managing.manager.verify(NAME)
    managing.work()
    assert "is intact" in managing.heard.sentence("finished")


def test_without_the_licence_nothing_is_fetched(managing: Managing, hub: Hub) -> None:
    managing.manager.download(NAME, accept_licence=False)
    managing.work()
    assert "Setup" in managing.heard.sentence("failed")
    assert hub.log == []


def test_a_stopped_download_goes_on_later(managing: Managing, hub: Hub) -> None:
    served = hub.files[f"/{ENTRY.repo}/resolve/{COMMIT}/{ENTRY.filename}"]
    served.stall_after = 2_000_000
    managing.manager.download(NAME, accept_licence=True)
    managing.under_test.loop.run_until(lambda: any(update[0] > 0.1 for update in managing.heard.all("progressed")))
    managing.manager.cancel()
    managing.work()
    assert managing.heard.sentence("finished").startswith("Stopped")
    managing.refresh()
    kept = managing.manager.find(NAME)
    assert (kept.state, kept.path) == ("partial", None)
    served.stall_after = None
    managing.manager.download(NAME, accept_licence=True)
    managing.work()
    assert hub.requests("GET", "/cdn")[-1]["Range"] == f"bytes={kept.size}-"


def test_one_thing_at_a_time(managing: Managing) -> None:
    managing.manager.download(NAME, accept_licence=True)
    managing.manager.verify("mini")
    assert_sentence(managing.heard.sentence("failed"))
    managing.work()
    assert managing.heard.all("finished")


def test_a_broken_model_is_told_and_deleted(managing: Managing) -> None:
    managing.manager.download(NAME, accept_licence=True)
    managing.wait("finished")
    path = Path(managing.manager.find(NAME).path)
    path.write_bytes(b"x" * len(CONTENT))
    managing.heard.events.clear()
    managing.manager.verify(NAME)
    managing.work()
    assert_sentence(managing.heard.sentence("failed"))
    managing.manager.delete(NAME)
    managing.work()
    assert managing.heard.sentence("finished") == f"The model '{TITLE}' was deleted."
    assert not path.exists()


def test_a_file_that_is_no_model_is_told(managing: Managing, tmp_path: Path) -> None:
    file = tmp_path / "page.safetensors"
    file.write_text("<!doctype html>", encoding="utf-8")
    managing.manager.import_file(str(file), NAME, accept_licence=True)
    managing.work()
    assert "web page" in managing.heard.sentence("failed")


def test_a_server_that_cannot_be_reached_is_told(managing: Managing) -> None:
    managing.under_test.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"
    managing.manager.download(NAME, accept_licence=True)
    managing.work()
    assert "'Import file' in Setup" in managing.heard.sentence("failed")


def test_a_killed_process_is_told_and_the_next_one_works(managing: Managing, hub: Hub) -> None:
    hub.files[f"/{ENTRY.repo}/resolve/{COMMIT}/{ENTRY.filename}"].stall_after = 1_000_000
    managing.manager.download(NAME, accept_licence=True)
    managing.under_test.loop.run_until(lambda: managing.heard.all("progressed"))
    managing.under_test.kill()
    managing.work()
    assert "ended unexpectedly" in managing.heard.sentence("failed")
    managing.refresh()
    assert managing.manager.find(NAME).state == "partial"


def test_the_process_ends_when_nobody_needs_it(managing: Managing) -> None:
    managing.refresh()
    pid = managing.under_test.processes[-1].pid
    managing.under_test.loop.run_until(lambda: managing.under_test.engine.state == "stopped", 10)
    wait_until(lambda: not is_alive(pid), 10)
    managing.refresh()
    assert managing.heard.any("listed")
    assert len(managing.under_test.processes) == 2


def test_a_dropped_request_keeps_no_process(managing: Managing) -> None:
    under_test = managing.under_test
    housekeeping, told = Housekeeping(under_test.engine, idle_s=0.3), []
    for _ in range(2):
        request = housekeeping.request("models", None, told.append, told.append)
        under_test.loop.run_until(lambda: under_test.engine.state == "ready", 60)
        request.drop()
        request.drop()
        under_test.loop.run_until(lambda: under_test.engine.state == "stopped", 10)
    assert told == []


@pytest.fixture(scope="module")
def computing() -> Iterator[EngineUnderTest]:
    with running_engine() as under_test:
        yield under_test


def test_the_chosen_model_tells_what_it_knows(computing: EngineUnderTest, tiny_model: Path) -> None:
    loaded = LoadedModel(computing.engine)
    heard = Heard(loaded)
    loaded.load("mini")
    loaded.load(str(tiny_model), "cpu")
    loaded.load(str(tiny_model), "cpu")
    computing.loop.run_until(lambda: heard.any("loaded", "failed"))
    assert len(heard.all("loaded")) == 1
    assert (loaded.result.available, loaded.result.label_set) == ((1, 3, 5, 14, 23), "vista3d-ct")
    computing.engine.stop()
    assert loaded.result is None


def test_the_chosen_model_reports_its_claims(computing: EngineUnderTest, claiming_model: Path) -> None:
    loaded = LoadedModel(computing.engine)
    heard = Heard(loaded)
    loaded.load(str(claiming_model), "cpu")
    computing.loop.run_until(lambda: heard.any("loaded", "failed"))
    choice = StructureChoice(Settings(MemoryStore()))
    choice.use_model(loaded.result.label_set, loaded.result.available, loaded.result.claims)
    choice.check_everything()
    assert choice.checked == (1, 5)
    assert "0.91 (24 patients)" in choice.tooltip(choice.catalogue[1])
    assert "needs the full model" in choice.reason(choice.catalogue[3])


def test_a_model_that_is_not_here_is_told_and_can_be_tried_again(computing: EngineUnderTest) -> None:
    loaded = LoadedModel(computing.engine)
    heard = Heard(loaded)
    for count in (1, 2):
        loaded.load("vista3d-ct")
        computing.loop.run_until(lambda count=count: len(heard.all("failed")) == count)
    assert "'Import file' in Setup" in heard.all("failed")[0][0]
