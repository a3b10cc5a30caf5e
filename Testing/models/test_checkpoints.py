"""Every known layout loads to the same network; whatever else is refused with the reason."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from local_hub import NARROW
from monai.networks.nets.vista3d import vista3d132
from safetensors.torch import save_file

from VISTA3DCore.errors import ModelError, OutputError
from VISTA3DCore.models.checkpoints import expected_shapes, inferred_config, load_checkpoint, save_checkpoint
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig

State = dict[str, torch.Tensor]
BUFFER = "point_head.pe_layer.positional_encoding_gaussian_matrix"


def research_layout(state: State) -> State:
    """Return the 275-tensor layout of MONAI 1.3: other names in the transformer's MLPs, and 16 more tensors."""
    old = {key.replace(".mlp.linear", ".mlp.lin"): tensor for key, tensor in state.items()}
    for layer in (0, 3):
        for kind in ("weight", "bias"):
            old[f"weight_mapper.{layer}.{kind}"] = torch.zeros(4)
    for head in range(2):
        for layer in range(3):
            for kind in ("weight", "bias"):
                old[f"point_head.output_add_hypernetworks_mlps.{head}.layers.{layer}.{kind}"] = torch.zeros(4)
    return old


LAYOUTS = {
    "bare": lambda state: state,
    "network.": lambda state: {f"network.{key}": value for key, value in state.items()},
    "module.": lambda state: {f"module.{key}": value for key, value in state.items()},
    "module.network.": lambda state: {f"module.network.{key}": value for key, value in state.items()},
    "model": lambda state: {"model": state, "epoch": 3},
    "state_dict and module.": lambda state: {"state_dict": LAYOUTS["module."](state), "optimizer": {"lr": 1.0}},
    "research": research_layout,
}


def assert_same(loaded: State, state: State) -> None:
    assert loaded.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(loaded[key], tensor), key


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_torch_layouts(layout: str, legacy: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(LAYOUTS[layout](state), path, _use_new_zipfile_serialization=not legacy)
    config, loaded = load_checkpoint(path)
    assert_same(loaded, state)
    assert (config.width, config.blocks_down, config.n_classes) == (8, (1, 1, 1), 512)
    build_network(config).load_state_dict(loaded, strict=True)


@pytest.mark.parametrize("layout", ["bare", "network.", "module.", "research"])
def test_safetensors_layouts(layout: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "whatever.bin"  # the content counts, not the name
    save_file(LAYOUTS[layout](state), path)
    assert_same(load_checkpoint(path)[1], state)


def test_official_network_has_the_259_tensors_that_the_conversion_yields() -> None:
    """The full-size official network, without allocating it."""
    with torch.device("meta"):
        official = vista3d132().state_dict()
    assert len(official) == 259
    assert sum(tensor.numel() for tensor in official.values()) == 217_964_982 + 72
    assert {key: tuple(tensor.shape) for key, tensor in official.items()} == expected_shapes(ModelConfig())
    assert inferred_config(official) == ModelConfig()
    assert len(research_layout(official)) == 275


@pytest.mark.slow
def test_full_size_checkpoint_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = vista3d132().state_dict()
    path = tmp_path / "model.safetensors"
    save_file({f"network.{key}": tensor for key, tensor in state.items()}, path)
    assert path.stat().st_size == pytest.approx(871.9e6, rel=1e-4)
    config, loaded = load_checkpoint(path)
    assert config == ModelConfig()
    assert_same(loaded, state)


def test_saved_configuration_and_metadata_come_back(state: State, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, NARROW, state, metadata={"licence": "CC BY 4.0"})
    config, loaded = load_checkpoint(path)
    assert config == NARROW
    assert_same(loaded, state)
    assert list(tmp_path.iterdir()) == [path]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_half_precision_is_stored_small_and_loaded_as_float32(state: State, tmp_path: Path) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(full, NARROW, state)
    save_checkpoint(half, NARROW, state, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    loaded = load_checkpoint(half)[1]
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    for key, tensor in state.items():
        assert torch.equal(loaded[key], tensor.half().float())


def test_loaded_weights_give_the_same_scores(state: State, released: Path) -> None:
    original, reloaded = build_network(NARROW), build_network(NARROW)
    original.load_state_dict(state)
    reloaded.load_state_dict(load_checkpoint(released)[1])
    patch, classes = torch.rand(1, 1, 32, 32, 32), torch.tensor([[1], [3]])
    with torch.inference_mode():
        assert torch.equal(original(patch, class_vector=classes), reloaded(patch, class_vector=classes))


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load_checkpoint(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n\n  <html lang='en'>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "LFS pointer"),
        (b'{"error": "Repository not found"}', "not a model file"),
        (b"\x1f\x8b\x08 a gzip file", "not a model file"),
        (b"cos\nsystem\n(S'true'\ntR.", "not a model file"),
        (bytes(100), "not a model file"),
        (b"PK\x03\x04 and then nothing", "truncated"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{", "truncated or damaged"),
        (b"\x80\x02}q\x00", "damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert reason in refusal(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "model.pt")
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_truncated_files_are_refused(
    share: float, kind: str, released: Path, released_pt: Path, tmp_path: Path
) -> None:
    content = (released if kind == "safetensors" else released_pt).read_bytes()
    path = tmp_path / f"model.{kind}"
    path.write_bytes(content[: int(len(content) * share)])
    assert "truncated" in refusal(path) or "damaged" in refusal(path)


class _Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["pickle", "torch", "torch legacy", "hidden in a state dict"])
def test_code_in_a_checkpoint_is_never_run(form: str, state: State, tmp_path: Path) -> None:
    trap, path = tmp_path / "executed", tmp_path / "model.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(_Malicious(trap), protocol=2))
    elif form == "hidden in a state dict":
        torch.save({**state, "extra": _Malicious(trap)}, path)
    else:
        torch.save(_Malicious(trap), path, _use_new_zipfile_serialization=form == "torch")
    assert "refused" in refusal(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(_Malicious(trap)))
    assert trap.exists(), "the trap itself must work"


def test_other_archives_and_objects_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("word/document.xml", "text")
    assert "not a PyTorch checkpoint" in refusal(archive)
    for name, content, reason in [
        ("list", [1, 2], "type 'list'"),
        ("empty", {}, "holds no model weights"),
        ("tensor", torch.zeros(3), "type 'Tensor'"),
        ("numbers", {"epoch": 3}, "'epoch' is no floating-point tensor"),
        ("quantised", {"conv_init.weight": torch.zeros(3, dtype=torch.int8)}, "no floating-point tensor"),
    ]:
        path = tmp_path / f"{name}.pt"
        torch.save(content, path)
        assert reason in refusal(path)


def test_the_refusal_names_keys_and_shapes(state: State, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    broken = {key: tensor for key, tensor in state.items() if key != BUFFER}
    broken["head.new.weight"] = torch.zeros(2)
    broken["point_head.mask_tokens.weight"] = torch.zeros(1, 24)
    torch.save(broken, path)
    message = refusal(path)
    assert f"1 tensor missing ({BUFFER})" in message
    assert "1 tensor unexpected (head.new.weight)" in message
    assert "point_head.mask_tokens.weight is 1x24 instead of 1x8" in message


def test_another_network_is_refused_with_the_count(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    torch.save(torch.nn.Conv3d(1, 8, 3).state_dict(), path)
    message = refusal(path)
    assert "259 tensors missing" in message
    assert "2 tensors unexpected (weight, bias)" in message
    assert len(message) < 600


def test_weights_that_do_not_fit_their_configuration_are_not_saved(state: State, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wrong shape"):
        save_checkpoint(tmp_path / "own.safetensors", ModelConfig(width=16, blocks_down=(1, 1, 1)), state)
    assert not list(tmp_path.iterdir())


def test_damaged_configuration_is_refused(state: State, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file(state, path, metadata={"vista3d": '{"width": 8, "attention": "flash"}'})
    assert "newer version" in refusal(path)
    save_file(state, path, metadata={"vista3d": "{"})
    assert "cannot be read" in refusal(path)


def test_saving_into_a_missing_folder_says_so(state: State, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_checkpoint(tmp_path / "missing" / "own.safetensors", NARROW, state)


def test_a_full_disk_leaves_the_old_file(state: State, tmp_path: Path) -> None:
    """The limit on file sizes makes every write beyond it fail, as a full disk does."""
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, NARROW, state)
    before = path.read_bytes()
    code = (
        "import resource, sys; from VISTA3DCore.models.checkpoints import load_checkpoint, save_checkpoint\n"
        "from VISTA3DCore.errors import OutputError\n"
        "config, state = load_checkpoint(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: save_checkpoint(sys.argv[1], config, state)\n"
        "except OutputError as error: print(error); sys.exit(OutputError.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == OutputError.exit_code, done.stderr
    assert "cannot be written" in done.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
