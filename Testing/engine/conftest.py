"""Real engine processes for the tests, and something small to open in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from engine_processes import RawWorker, coarse_phantom

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.imaging.volume import Volume


@pytest.fixture(scope="session", autouse=True)
def quiet_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep engine processes off the network and out of the user's data folder, with one thread each.

    The engine in this process gets one thread too: with another number of threads, sums round otherwise.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISTA3D_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def engine() -> Iterator[BlockingClient]:
    """Return one engine process for all tests of a file."""
    with BlockingClient(ChildProcess()) as client:
        yield client


@pytest.fixture(scope="session")
def phantom() -> Volume:
    """Return a small volume: four windows of the tiny model, about half a second of work."""
    return coarse_phantom((40, 40, 32))


@pytest.fixture
def raw_worker() -> Iterator[Callable[..., RawWorker]]:
    """Start engine processes by hand; they end with the test."""
    workers: list[RawWorker] = []

    def start(command: list[str] | None = None) -> RawWorker:
        workers.append(RawWorker(command))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[SharedDirectory]:
    with SharedDirectory(tmp_path) as directory:
        yield directory
