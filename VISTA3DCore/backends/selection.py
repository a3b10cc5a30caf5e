"""Which runtime runs the network: the one place that knows which ones exist.

PyTorch can always do it and defines what is correct. The other runtimes are faster; one that is missing, broken or
wrong is replaced by PyTorch, with the same results.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from VISTA3DCore.errors import InputError, SlowerWarning

if TYPE_CHECKING:
    import torch
    from torch import nn

    from VISTA3DCore.network.click_head import ClickTokens, ImageSide
    from VISTA3DCore.network.config import ModelConfig

    NetworkSource = nn.Module | Callable[[], nn.Module]

RUNTIMES = ("auto", "torch", "openvino", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


class Backend(Protocol):
    """A runtime that holds one network on one device; shapes as :class:`TorchBackend` has them.

    ``runtime``, ``precision``: which of :data:`RUNTIMES` and :data:`PRECISIONS` it really is.
    """

    config: ModelConfig
    device: torch.device
    runtime: str
    precision: str

    def on(self, device: torch.device | str) -> Backend: ...
    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor: ...
    def class_matrix(self, indices: Sequence[int]) -> torch.Tensor: ...
    def click_features(self, patch: torch.Tensor) -> torch.Tensor: ...
    def click_image(self, features: torch.Tensor) -> ImageSide: ...
    def click_scores(self, features: torch.Tensor | ImageSide, tokens: ClickTokens) -> torch.Tensor: ...


class RuntimeUnavailableError(Exception):
    """A runtime cannot be used here; the message is a sentence for people.

    :param expected: that it is so is nothing to worry about (not installed, another device), so that nobody who did
        not ask for the runtime has to hear of it.
    :param broken: that nothing gives right answers on this device, PyTorch neither.
    """

    def __init__(self, sentence: str, expected: bool = False, broken: bool = False) -> None:
        super().__init__(sentence)
        self.expected, self.broken = expected, broken


def choose_backend(
    network: NetworkSource,
    config: ModelConfig,
    device: torch.device | str = "cpu",
    runtime: str = "auto",
    precision: str = "auto",
) -> tuple[Backend, str]:
    """Return a runtime for a network, and why it is this one, for people.

    On processors, torch's number of threads is lowered to what this process may use.

    :param network: what :func:`VISTA3DCore.network.architecture.build_network` returns, or a function that loads it;
        a runtime with its own copy of the weights then need not keep the network, and loads it again if it must.
    :param device: where to run, already checked.
    :param runtime: one of :data:`RUNTIMES`; ``auto`` takes the one that ``VISTA3D_RUNTIME`` names, else the fastest
        that gives the results of PyTorch.
    :param precision: one of :data:`PRECISIONS`; ``auto`` is float32 on processors and Apple's GPUs, float16 on CUDA.
    :raises InputError: for names that do not exist.
    """
    import torch

    from VISTA3DCore.backends.processor import limit_threads

    runtime = os.environ.get("VISTA3D_RUNTIME") or runtime if runtime == "auto" else runtime
    _check("runtime", runtime, RUNTIMES)
    _check("precision", precision, PRECISIONS)
    device = torch.device(device)
    if device.type == "cpu":
        limit_threads()
    candidate = _AUTOMATIC.get(device.type, "torch") if runtime == "auto" else runtime
    if candidate == "torch":
        return _start_torch(network, config, device, precision), "as asked for" if runtime == "torch" else _TORCH_ONLY
    try:
        backend = _start(candidate, network, config, device, precision)
        return backend, "as asked for" if runtime == candidate else f"the fastest on '{device.type}'"
    except RuntimeUnavailableError as error:
        if error.broken:
            _warn(f"{error} The processor is used instead.")
            return choose_backend(network, config, "cpu")
        if runtime != "auto" or not error.expected:
            _warn(f"{error} PyTorch is used instead.")
        return _start_torch(network, config, device, precision), str(error)


def _start(name: str, network: NetworkSource, config: ModelConfig, device: torch.device, precision: str) -> Backend:
    if name not in _STARTERS:
        raise RuntimeUnavailableError(f"This version of VISTA3D has no runtime '{name}'.")
    return _STARTERS[name](network, config, device, precision)


def load(network: NetworkSource) -> nn.Module:
    """Return the network that a source stands for."""
    from torch import nn

    return network if isinstance(network, nn.Module) else network()


def _start_torch(network: NetworkSource, config: ModelConfig, device: torch.device, precision: str) -> Backend:
    from VISTA3DCore.backends.processor import has_bfloat16
    from VISTA3DCore.backends.torch_backend import TorchBackend

    if granted_precision("PyTorch", precision, device.type == "cpu" and has_bfloat16()) == "float32":
        return TorchBackend(load(network), config, device)
    from VISTA3DCore.backends.torch_bfloat16 import BFloat16Backend

    return BFloat16Backend(network, config)


def _start_openvino(network: NetworkSource, config: ModelConfig, device: torch.device, precision: str) -> Backend:
    if device.type != "cpu":
        raise RuntimeUnavailableError(f"OpenVINO is for processors, not for '{device.type}'.", expected=True)
    from VISTA3DCore.backends.openvino.backend import OpenVinoBackend

    return OpenVinoBackend(network, config, precision)


def _start_cuda(network: NetworkSource, config: ModelConfig, device: torch.device, precision: str) -> Backend:
    if device.type == "cpu":
        raise RuntimeUnavailableError("The runtime 'cuda' is for GPUs, not for processors.", expected=True)
    from VISTA3DCore.backends.cuda.fused_network import UnknownLayerError
    from VISTA3DCore.backends.cuda.startup import UnusableError, start

    try:
        return start(load(network), config, device, precision)
    except UnusableError as error:
        what = f"The device '{device}'" if error.broken else "The runtime 'cuda'"
        raise RuntimeUnavailableError(f"{what} cannot be used here ({error}).", broken=error.broken) from error
    except UnknownLayerError as error:
        raise RuntimeUnavailableError(f"The runtime 'cuda' cannot be used here ({error}).") from error


def granted_precision(runtime: str, precision: str, bfloat16: bool) -> str:
    """Return the precision of a runtime on a processor: what was asked for, else float32 with a warning.

    :param runtime: its name for people.
    :param bfloat16: whether it has that to offer here.
    """
    if precision in ("auto", "float32"):
        return "float32"
    if precision == "bfloat16" and bfloat16:
        return precision
    _warn(f"{runtime} cannot compute in {precision} quickly here; float32 is used instead.")
    return "float32"


def _check(kind: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError(f"There is no {kind} '{name}'; use one of: {', '.join(known)}.")


_TORCH_ONLY = "PyTorch is the runtime for this device"


def _warn(sentence: str) -> None:
    warnings.warn(sentence, SlowerWarning, stacklevel=3)


Starter = Callable[["NetworkSource", "ModelConfig", "torch.device", str], Backend]
# By name; each raises RuntimeUnavailableError where it cannot be used, and imports its runtime only when it is called.
_STARTERS: dict[str, Starter] = {"openvino": _start_openvino, "cuda": _start_cuda}
# What `auto` tries on a kind of device before PyTorch.
_AUTOMATIC: dict[str, str] = {"cpu": "openvino", "cuda": "cuda"}
