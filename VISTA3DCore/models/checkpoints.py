"""Reading and writing weights: every known layout in, one layout out, wrong files refused with the reason.

Program code in a file is never run: weights are read as safetensors, or by torch with ``weights_only=True``.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from VISTA3DCore.atomic_files import replacing
from VISTA3DCore.errors import ModelError
from VISTA3DCore.models.sidecar import read_sidecar
from VISTA3DCore.network.config import ModelConfig

CONFIG_KEY = "vista3d"
"""Metadata key of a safetensors file under which the ModelConfig stands as JSON."""

State = dict[str, torch.Tensor]

_WRAPPERS = ("model", "state_dict")
_PREFIXES = ("network.", "module.")
# Modules of the research network (MONAI 1.3, 275 tensors) that the released one (259 tensors) does not have.
_RESEARCH_ONLY = ("weight_mapper.", "point_head.output_add_hypernetworks_mlps.")
_RESEARCH_NAMES = re.compile(r"(point_head\.transformer\.layers\.\d+\.mlp\.)lin([12]\.)")
_STEM = "image_encoder.encoder.conv_init.weight"
_EMBEDDINGS = "class_head.class_embeddings.weight"
_BLOCK = re.compile(r"image_encoder\.encoder\.layers\.(\d+)\.blocks\.(\d+)\.")


def load_checkpoint(path: str | Path) -> tuple[ModelConfig, State]:
    """Load weights and the configuration that they need.

    The configuration stands in the file's metadata, else in the JSON beside it (written by the model store), else it
    is that of the released model with the widths and levels that the tensors have.

    :param path: ``.safetensors`` or ``.pt``/``.pth``; what counts is the content, not the name.
    :return: the configuration, and the float32 tensors on the CPU under the names of ``build_network(config)``.
    :raises ModelError: if the file is missing, damaged, or not a VISTA3D checkpoint; the message says why.
    """
    config, state, _ = _load(Path(path))
    return config, {key: tensor.to(torch.float32) for key, tensor in state.items()}


def inspect_checkpoint(path: str | Path) -> tuple[ModelConfig, bool]:
    """Check that a file loads, without reading all of it.

    :return: its configuration, and whether that was stored with it (else it was inferred from the tensors).
    :raises ModelError: as :func:`load_checkpoint`.
    """
    config, _, stored = _load(Path(path))
    return config, stored


def save_checkpoint(
    path: str | Path,
    config: ModelConfig,
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights as safetensors with their configuration; the file appears by rename.

    :param state: tensors under the names of ``build_network(config)``.
    :param dtype: type to store floating-point tensors in (``torch.float16`` halves the file); None keeps them.
    :param metadata: further facts to store (licence, training data), all strings.
    :raises ModelError: if the tensors do not fit the configuration.
    :raises OutputError: if the file cannot be written.
    """
    path = Path(path)
    _check(path, config, state)
    tensors = {key: tensor.detach().cpu().to(dtype or tensor.dtype).contiguous() for key, tensor in state.items()}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {}), CONFIG_KEY: config.to_json()})
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from error
        temporary.chmod(mode)  # the library makes files private; a checkpoint is an ordinary file


def inferred_config(state: Mapping[str, torch.Tensor]) -> ModelConfig:
    """Return the released model's configuration with the width, levels and classes that the tensors have.

    :raises ModelError: if the width is impossible.
    """
    if _STEM not in state or _EMBEDDINGS not in state:
        return ModelConfig()
    blocks: dict[int, int] = {}
    for level, block in (map(int, match.groups()) for key in state if (match := _BLOCK.match(key))):
        blocks[level] = max(blocks.get(level, 0), block + 1)
    return replace(
        ModelConfig(),
        width=state[_STEM].shape[0],
        blocks_down=tuple(blocks[level] for level in sorted(blocks)),
        n_classes=state[_EMBEDDINGS].shape[0],
    )


@lru_cache(maxsize=4)
def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of the network, without allocating it."""
    from VISTA3DCore.network.architecture import empty_network

    return {key: tuple(tensor.shape) for key, tensor in empty_network(config).state_dict().items()}


def _load(path: Path) -> tuple[ModelConfig, State, bool]:
    """Return configuration, tensors as stored (not yet read from the disk), and whether the former was stored too."""
    tensors, metadata = _read(path)
    state = _released_names(path, tensors)
    stored = _stored_config(path, metadata)
    config = stored or inferred_config(state)
    _check(path, config, state)
    return config, state, stored is not None


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    """Return what the file holds (tensors by name, if it is what it should be) and its metadata."""
    try:
        if _kind(path) == "safetensors":
            return _read_safetensors(path)
        return _read_torch(path), {}
    except FileNotFoundError as error:
        raise ModelError(f"The model file '{path}' does not exist.") from error
    except OSError as error:
        raise ModelError(f"The model file '{path}' cannot be read: {error.strerror or error}.") from error


def _kind(path: Path) -> str:
    """Tell by the first bytes what the file is, because names lie (above all those of saved web pages)."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ModelError(f"The model file '{path}' is empty; download it again.")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ModelError(f"'{path}' is a web page and not a model; download the file itself, not the page about it.")
    if text.startswith(b"version https://git-lfs"):
        raise ModelError(f"'{path}' is only a Git LFS pointer to the weights; download the file itself.")
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise ModelError(f"The model file '{path}' is truncated; download it again.")
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    raise ModelError(f"'{path}' is not a model file (expected safetensors or a PyTorch checkpoint).")


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"The model file '{path}' is truncated or damaged ({error}); download it again.") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"'{path}' was refused: it holds more than plain weights (code that would run on loading) or is damaged; "
            "get the file from its official source."
        ) from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"'{path}' is not a PyTorch checkpoint of weights, or is damaged ({reason}).") from error


def _released_names(path: Path, content: Any) -> State:
    """Unwrap, strip prefixes and rename until the names are those of the released 259-tensor network."""
    while isinstance(content, dict) and (inner := next((key for key in _WRAPPERS if _holds(content, key)), None)):
        content = content[inner]
    if not isinstance(content, dict) or not content:
        raise ModelError(f"'{path}' holds no model weights but {_described(content)}.")
    other = next((key for key, value in content.items() if not _is_weight(key, value)), None)
    if other is not None:
        raise ModelError(f"'{path}' is not a checkpoint of weights: its entry '{other}' is no floating-point tensor.")
    while prefix := next((p for p in _PREFIXES if all(key.startswith(p) for key in content)), None):
        content = {key.removeprefix(prefix): tensor for key, tensor in content.items()}
    kept = {key: tensor for key, tensor in content.items() if not key.startswith(_RESEARCH_ONLY)}
    return {_RESEARCH_NAMES.sub(r"\1linear\2", key): tensor for key, tensor in kept.items()}


def _holds(content: dict, key: str) -> bool:
    return isinstance(content.get(key), dict)


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor) and value.is_floating_point()


def _described(content: Any) -> str:
    return "nothing" if content is None or content == {} else f"an object of type '{type(content).__name__}'"


def _stored_config(path: Path, metadata: Mapping[str, str]) -> ModelConfig | None:
    text = metadata.get(CONFIG_KEY) or read_sidecar(path).get("config")
    return ModelConfig.from_json(text) if text else None


def _check(path: Path, config: ModelConfig, state: Mapping[str, torch.Tensor]) -> None:
    """Compare names and shapes with the network's.

    :raises ModelError: naming the first differences and their number.
    """
    expected = expected_shapes(config)
    differing = [
        f"{key} is {_shape(state[key].shape)} instead of {_shape(shape)}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    problems = [
        _listed("missing", [key for key in expected if key not in state]),
        _listed("unexpected", [key for key in state if key not in expected]),
        _listed("of the wrong shape", differing),
    ]
    if any(problems):
        raise ModelError(f"'{path}' is not a VISTA3D checkpoint: {'; '.join(filter(None, problems))}.")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _listed(what: str, items: list[str]) -> str:
    """Return e.g. ``12 tensors missing (a, b, c, ...)``, or nothing for nothing."""
    if not items:
        return ""
    shown = ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")
    return f"{len(items)} tensor{'s' if len(items) > 1 else ''} {what} ({shown})"
