"""A narrow network with seeded weights in every official format, and a store of models on a local server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from local_hub import COMMIT, NARROW, Hub, Served
from safetensors.torch import save_file

from VISTA3DCore.models import downloads
from VISTA3DCore.models.registry import RegistryEntry
from VISTA3DCore.models.store import ModelStore
from VISTA3DCore.network.architecture import build_network


@pytest.fixture(scope="session")
def state() -> dict[str, torch.Tensor]:
    """Return seeded random weights of the narrow network."""
    torch.manual_seed(0)
    return {key: tensor.clone() for key, tensor in build_network(NARROW).state_dict().items()}


@pytest.fixture(scope="session")
def released(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in the layout of the hub's safetensors: prefix ``network.``, no configuration."""
    path = tmp_path_factory.mktemp("released") / "model.safetensors"
    save_file({f"network.{key}": tensor for key, tensor in state.items()}, path, metadata={"format": "pt"})
    return path


@pytest.fixture(scope="session")
def released_pt(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in the layout of the model zoo's ``model.pt``."""
    path = tmp_path_factory.mktemp("released_pt") / "model_vista3d.pt"
    torch.save(state, path)
    return path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run a local hub, make it the endpoint, and make retries quick."""
    for name in ("VISTA3D_OFFLINE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "RETRY_DELAY_S", 0.01)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Switch the network off; the hub's log shows whether that was obeyed."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return hub


@pytest.fixture
def registry(hub: Hub, released: Path, released_pt: Path) -> dict[str, RegistryEntry]:
    """Return entries of every kind whose files the local hub serves."""
    narrow = RegistryEntry(
        name="narrow",
        title="Narrow test model",
        repo="acme/narrow",
        revision=COMMIT,
        filename="weights/model.safetensors",
        size=released.stat().st_size,
        licence="Test Licence",
        licence_url=f"{hub.url}/about",
        label_set="vista3d-ct",
        config=NARROW,
    )
    moving = replace(narrow, name="moving", revision="main", config=replace(NARROW, label_set="vista3d-ctmr"))
    md5 = hashlib.md5(released_pt.read_bytes(), usedforsecurity=False).hexdigest()
    zoo = replace(
        narrow,
        name="zoo",
        repo=None,
        url=f"{hub.url}/zoo.pt",
        revision="1.0",
        filename="zoo.pt",
        md5=md5,
        licence_url=f"{hub.url}/LICENSE",
    )
    content = released.read_bytes()
    for revision in (COMMIT, "main"):
        hub.files[f"/acme/narrow/resolve/{revision}/weights/model.safetensors"] = Served(content)
        hub.files[f"/acme/narrow/resolve/{revision}/LICENSE"] = Served(b"You may test.\n", lfs=False)
    hub.files["/zoo.pt"] = Served(released_pt.read_bytes(), lfs=False)
    hub.files["/LICENSE"] = Served(b"You may evaluate.\n", lfs=False)
    return {entry.name: entry for entry in (narrow, moving, zoo)}


@pytest.fixture
def store(tmp_path: Path, registry: dict[str, RegistryEntry]) -> ModelStore:
    """Return an empty store of the test models."""
    return ModelStore(tmp_path / "home", registry)
