"""Weights in a mapped file: their memory is given back, and what they are stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint
from VISTA3DCore.models.mapped_weights import let_go
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems drop such pages by themselves")
PAGE = 4096


def resident(path: Path) -> int:
    """Return how many bytes of a file are in this process's memory."""
    blocks = Path("/proc/self/smaps").read_text().split(str(path))[1:]
    return sum(int(block.split("Rss:")[1].split()[0]) * 1024 for block in blocks)


@linux_only
def test_mapped_tensors_leave_memory_and_come_back_unchanged(tmp_path):
    path = tmp_path / "weights.safetensors"
    values = torch.rand(1000, 1000, generator=torch.Generator().manual_seed(0))
    save_file({"a": values, "b": -values}, path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in ("a", "b")}
    assert torch.equal(tensors["a"], values)
    assert torch.equal(tensors["b"], -values)
    before = resident(path)

    freed = let_go(tensors.values())

    assert 2 * values.nbytes - 4 * PAGE <= freed <= 2 * values.nbytes
    assert resident(path) <= before - freed + 4 * PAGE
    assert torch.equal(tensors["a"], values)
    assert torch.equal(tensors["b"], -values)


@linux_only
def test_tensors_in_ordinary_memory_stay(tmp_path):
    values = torch.rand(1000, 1000)
    copy = values.clone()

    assert let_go([values, values[3:], torch.zeros(3), torch.zeros(0)]) == 0
    assert torch.equal(values, copy)


@linux_only
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_compiled_model_gives_the_weights_of_its_file_back(tmp_path, monkeypatch, kind):
    pytest.importorskip("openvino")
    monkeypatch.delenv("VISTA3D_RUNTIME", raising=False)
    config = ModelConfig(name="small", width=16, window=(32, 32, 32))
    torch.manual_seed(0)
    state = build_network(config).state_dict()
    path = tmp_path / f"small.{kind}"
    if kind == "pt":
        torch.save(state, path)
        config = load_checkpoint(path)[0]
    else:
        save_checkpoint(path, config, state)
    segmenter = Segmenter.from_pretrained(path, "cpu", runtime="openvino")
    size, loaded = path.stat().st_size, resident(path)
    patch = torch.rand(1, 1, *config.window, generator=torch.Generator().manual_seed(1))

    first = segmenter.backend.automatic_features(patch).clone()

    assert loaded > 0.8 * size
    assert resident(path) < 0.2 * size
    assert torch.equal(segmenter.backend.automatic_features(patch), first)
    expected = Segmenter.from_pretrained(path, "cpu", runtime="torch").backend.automatic_features(patch)
    assert (first - expected).abs().max() < 1e-3 * expected.abs().max()
    click = segmenter.backend.click_features(patch)
    assert resident(path) < 0.2 * size
    assert torch.isfinite(click).all()
