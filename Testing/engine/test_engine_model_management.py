"""Models and this computer, asked of a real engine process: before PyTorch is installed, and against a local server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from local_hub import Hub, Served

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.environment import clean_environment
from VISTA3DCore.engine.protocol import (
    DownloadParams,
    ImportParams,
    LoadParams,
    ModelDetails,
    ModelParams,
    ProtocolError,
)
from VISTA3DCore.engine.supervised_client import SupervisedClient
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.errors import Cancelled, DeviceError, LicenseNotAcceptedError, ModelError, OfflineError
from VISTA3DCore.models.registry import REGISTRY
from VISTA3DCore.progress import Progress, ProgressUpdate

NAME = "vista3d-ct"
ENTRY = REGISTRY[NAME]
CONTENT = bytes(range(256)) * 32_000  # 8 MB: several chunks
NOT_IN_SLICER = ("torch", "monai", "psutil", "filelock", "huggingface_hub", "safetensors", "typer", "rich", "scipy")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., BlockingClient]]:
    """Start engines that keep house, with an empty folder of models and further variables of the environment."""
    with ExitStack() as stack:

        def started(compute: bool = False, **variables: str) -> BlockingClient:
            environment = {**clean_environment(), "VISTA3D_HOME": str(tmp_path / "home"), **variables}
            supervisor = SupervisedClient(lambda: ChildProcess(environment=environment), compute=compute)
            stack.enter_context(supervisor)
            return stack.enter_context(BlockingClient(supervisor))

        yield started


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Run a local hub that has the released model, and its licence."""
    with Hub() as server:
        folder = f"/{ENTRY.repo}/resolve/{ENTRY.revision}"
        commit = f"/{ENTRY.repo}/resolve/0123456789abcdef0123456789abcdef01234567"
        for place in (folder, commit):
            server.files[f"{place}/{ENTRY.filename}"] = Served(CONTENT)
            server.files[f"{place}/LICENSE"] = Served(b"You may test.\n", lfs=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def online(start: Callable[..., BlockingClient], hub: Hub) -> BlockingClient:
    """Return an engine that keeps house and reaches the local hub."""
    return start(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", HTTP_PROXY="", http_proxy="", HF_TOKEN="")


@pytest.fixture
def bare(start: Callable[..., BlockingClient], tmp_path: Path) -> BlockingClient:
    """Return one under a Python that has numpy and nothing else, as Slicer's before anything was installed."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    for name in NOT_IN_SLICER:
        sentence = f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n"
        (hidden / f"{name}.py").write_text(sentence, encoding="utf-8")
    return start(PYTHONPATH=str(hidden), HF_HUB_OFFLINE="0")


def found(engine: BlockingClient, name: str = NAME) -> ModelDetails:
    return next(one for one in engine.call("models").models if one.name == name)


def downloading(engine: BlockingClient, progress: Progress | None = None) -> ModelDetails:
    return engine.call("download", DownloadParams(NAME, accept_licence=True), progress).model


class TestBeforeAnythingIsInstalled:
    def test_models_are_listed(self, bare: BlockingClient) -> None:
        assert (found(bare).state, found(bare).path, found(bare).download_size) == ("missing", None, ENTRY.size)
        mini = found(bare, "mini")
        assert (mini.state, mini.bundled, Path(mini.path).is_file()) == ("present", True, True)

    def test_the_handshake_and_the_status_do_without_a_device(self, bare: BlockingClient) -> None:
        bare.call("models")
        assert (bare.info.device, bare.info.memory.total) == ("", 0)
        assert {one.name for one in bare.info.models} == set(REGISTRY)
        assert bare.call("status").busy is None

    def test_the_licence_of_a_bundled_model_is_told(self, bare: BlockingClient) -> None:
        licence = bare.call("licence", ModelParams("mini"))
        assert licence.title == "CC BY 4.0"
        assert licence.url in licence.text

    def test_the_computer_is_described(self, bare: BlockingClient) -> None:
        report = bare.call("diagnose")
        assert report.system["cpu_threads"] >= 1
        assert report.models["mini"] == "present"
        assert "does not load" in report.problems[0]  # installed, as the metadata says, and hidden

    def test_a_missing_package_is_named(self, bare: BlockingClient) -> None:
        with pytest.raises(DeviceError, match=r"^The Python package 'filelock' is missing; install .* first\.$"):
            downloading(bare)

    def test_nothing_is_computed(self, bare: BlockingClient) -> None:
        with pytest.raises(ProtocolError, match=r"not started to compute, and 'load' does"):
            bare.call("load", LoadParams("mini"))


class TestDownload:
    def test_the_licence_comes_first(self, online: BlockingClient, hub: Hub) -> None:
        with pytest.raises(LicenseNotAcceptedError):
            online.call("download", DownloadParams(NAME))
        assert not hub.log
        assert online.call("licence", ModelParams(NAME)).text == "You may test.\n"

    def test_it_arrives_with_progress_and_proof(self, online: BlockingClient) -> None:
        updates: list[ProgressUpdate] = []
        model = downloading(online, Progress(updates.append))
        assert (model.state, model.size) == ("verified", len(CONTENT))
        assert Path(model.path).read_bytes() == CONTENT
        assert updates
        assert all(0 <= update.fraction <= 1 for update in updates)
        assert online.call("verify", ModelParams(NAME)).model == model

    def test_cancelled_it_goes_on_where_it_stopped(self, online: BlockingClient, hub: Hub) -> None:
        served = hub.files[f"/{ENTRY.repo}/resolve/0123456789abcdef0123456789abcdef01234567/{ENTRY.filename}"]
        served.stall_after = 2_000_000  # at a time, then the line breaks
        progress = Progress()
        progress._on_update = lambda update: progress.cancel() if update.fraction > 0.2 else None
        with pytest.raises(Cancelled):
            downloading(online, progress)
        kept = found(online)
        assert kept.state == "partial"
        assert 0.2 * len(CONTENT) < kept.size < len(CONTENT)
        served.stall_after = None
        assert downloading(online).state == "verified"
        assert hub.requests("GET", "/cdn")[-1]["Range"] == f"bytes={kept.size}-"

    def test_a_broken_file_is_found_and_deleted(self, online: BlockingClient) -> None:
        path = Path(downloading(online).path)
        path.write_bytes(CONTENT[:-1] + b"x")
        with pytest.raises(ModelError):
            online.call("verify", ModelParams(NAME))
        assert online.call("delete", ModelParams(NAME)) is None
        assert found(online).state == "missing"
        with pytest.raises(ModelError, match="not on this computer"):
            online.call("delete", ModelParams(NAME))

    def test_without_a_network_one_sentence(self, start: Callable[..., BlockingClient]) -> None:
        with pytest.raises(OfflineError) as caught:
            downloading(start(HF_HUB_OFFLINE="1"))
        assert str(caught.value).count("\n") == 0


def test_a_file_that_is_another_model_is_refused(
    start: Callable[..., BlockingClient], tiny_model: Path, tmp_path: Path
) -> None:
    engine = start()
    with pytest.raises(ModelError, match="is the model 'tiny', which need not be imported"):
        engine.call("import", ImportParams(str(tiny_model), None, True))
    with pytest.raises(ModelError, match="is not the model 'vista3d-ct': width 8 instead of 48"):
        engine.call("import", ImportParams(str(tiny_model), NAME, True))
    with pytest.raises(ModelError, match="does not exist"):
        engine.call("import", ImportParams(str(tmp_path / "nothing.safetensors"), NAME, True))
    assert found(engine).state == "missing"


def test_an_engine_that_computes_keeps_house_too(start: Callable[..., BlockingClient]) -> None:
    engine = start(compute=True)
    assert found(engine, "mini").state == "present"
    assert engine.call("diagnose").torch["version"]
    assert engine.info.device == "cpu"
