"""Segment Anything of any size: a small one with random weights, downloaded from a local hub."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from VISTA3DCore.errors import ModelError, OfflineError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.supervoxels.generation import compute_supervoxels
from VISTA3DCore.supervoxels.segment_anything import FILES, SegmentAnything, fetch_model

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a saved SamModel with the real layout, as small as it gets."""
    vision = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
        "global_attn_indexes": [1], "window_size": 2, "mlp_dim": 64, "num_pos_feats": 16, "output_channels": 256,
    }  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam")
    transformers.SamModel(transformers.SamConfig(vision_config=vision)).save_pretrained(path)
    return path


@pytest.fixture
def hub(folder, monkeypatch):
    """Run a local hub that has it under the name of the base model."""
    from local_hub import Hub, Served

    for name in ("VISTA3D_OFFLINE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        for file in FILES:
            served = Served((folder / file).read_bytes(), lfs=file.endswith(".safetensors"))
            for revision in ("main", "0123456789abcdef0123456789abcdef01234567"):
                server.files[f"/facebook/sam-vit-base/resolve/{revision}/{file}"] = served
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def test_features_are_those_of_the_decoder_without_prompts(folder):
    encoder = SegmentAnything(folder, "cpu")
    features = encoder.features(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1)))

    assert (encoder.side, encoder.channels) == (64, 32)
    assert features.shape == (3, 32, 16, 16)
    assert features.dtype == torch.float32


def test_supervoxels_of_its_features(folder, phantom):
    made = compute_supervoxels(phantom[0], SegmentAnything(folder, "cpu"), segments=20)

    assert made.generator.startswith("sam")
    assert 5 <= made.count <= 40


def test_downloaded_once_with_commit_and_hash(hub, tmp_path):
    found = fetch_model("base", tmp_path)
    facts = json.loads((found / "model.safetensors.json").read_text(encoding="utf-8"))
    requests = len(hub.log)

    assert fetch_model("base", tmp_path) == found
    assert len(hub.log) == requests
    assert facts["revision"] == "0123456789abcdef0123456789abcdef01234567"
    assert set(facts["files"]) == set(FILES)
    assert SegmentAnything(found, "cpu").name == "sam (sam-vit-base)"


def test_a_changed_file_is_refused(hub, tmp_path):
    weights = fetch_model("base", tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="damaged"):
        fetch_model("base", tmp_path)


def test_a_file_that_is_not_the_hubs_is_not_kept(hub, tmp_path):
    for path, served in hub.files.items():
        if path.endswith(".safetensors"):
            served.sha256 = "0" * 64
    with pytest.raises(ModelError, match="SHA-256"):
        fetch_model("base", tmp_path)
    assert not list(tmp_path.rglob("model.safetensors"))


def test_without_a_network_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("VISTA3D_OFFLINE", "1")
    with pytest.raises(OfflineError):
        fetch_model("base", tmp_path)


def test_weights_of_another_network_are_refused(folder, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lack"):
        SegmentAnything(tmp_path, "cpu")


def test_there_are_three_sizes(tmp_path):
    with pytest.raises(ModelError, match="base, large, huge"):
        fetch_model("giant", tmp_path)


def test_an_anisotropic_volume_goes_through(folder):
    volume = Volume(np.random.default_rng(0).integers(-100, 200, (24, 20, 6)).astype(np.int16), np.diag([1, 1, 5, 1]))

    assert compute_supervoxels(volume, SegmentAnything(folder, "cpu"), segments=8).labels.shape == (24, 20, 6)
