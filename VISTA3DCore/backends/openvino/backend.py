"""OpenVINO on processors: the same network in compiled form, more than twice as fast as PyTorch in float32.

Encoder, decoders and the convolutions of the class head run in OpenVINO; the class vectors and the clicks' own part are
cheap and stay with PyTorch. Each branch is compiled when it is first needed, and trusted only if it agrees with PyTorch
on a small window. Nothing is reported to OpenVINO's manufacturer: its package for that is kept out, and the conversion
uses the PyTorch front end directly and not ``openvino.convert_model``.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.backends.openvino.normalization import with_exact_normalisation
from VISTA3DCore.backends.openvino.winograd import with_fewer_products
from VISTA3DCore.backends.processor import has_bfloat16, is_bound_by_products, thread_count
from VISTA3DCore.backends.selection import RuntimeUnavailableError, granted_precision, load
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.errors import SlowerWarning
from VISTA3DCore.models.mapped_weights import let_go
from VISTA3DCore.network.click_head import ClickTokens, ImageSide
from VISTA3DCore.network.config import ModelConfig

if TYPE_CHECKING:
    from VISTA3DCore.backends.selection import NetworkSource

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest difference from PyTorch, as a share of the largest feature, with which a compiled branch is trusted.

float32: the gate of the benchmark protocol. bfloat16 has 8 significant bits, and errors add up over some forty layers:
this only tells an answer from nonsense; what it means for labels is in Documentation/exactness.md.
"""

_SMALL = 32
"""Sides of the small window in voxels; a multiple of what five levels need (16)."""

_REPORTER = "openvino_telemetry"
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class AutomaticBranch(nn.Module):
    """The network from a window [1, 1, w, w, w] to its automatic features [1, w, w, w, C].

    The features stay as they lie between the layers, channels last: to turn them over took a tenth of the time of a
    window in bfloat16.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder, self.tail = network.image_encoder, network.class_head.image_post_mapping

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        return self.tail(self.encoder(patch, with_point=False, with_label=True)[1]).movedim(1, -1)


class ClickBranch(nn.Module):
    """The network from a window [1, 1, w, w, w] to its click features [1, w/2, w/2, w/2, C], channels last as above."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder, self.tail = network.image_encoder, network.point_head.feat_downsample

    def forward(self, patch: torch.Tensor) -> torch.Tensor:
        return self.tail(self.encoder(patch, with_point=True, with_label=False)[0]).movedim(1, -1)


_BRANCHES: dict[str, type[nn.Module]] = {"automatic": AutomaticBranch, "click": ClickBranch}


class _Heads(nn.Module):
    """What of a network stays with PyTorch; the rest can be freed once it is compiled."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.class_head, self.point_head = network.class_head, network.point_head


class OpenVinoBackend:
    """Runs one network on the processor by OpenVINO; methods as :class:`TorchBackend`.

    :param network: a network, which stays as it is, or a function that loads it; then PyTorch's copy of the weights is
        freed when the first branch is compiled, and loaded again for the other one.
    :param precision: ``auto`` (float32), ``float32``, or ``bfloat16`` where the processor has it.
    :raises RuntimeUnavailableError: if OpenVINO is missing or broken, or does not agree with PyTorch.
    """

    runtime = "openvino"
    device = torch.device("cpu")
    channels_last = True

    def __init__(self, network: NetworkSource, config: ModelConfig, precision: str = "auto") -> None:
        self.config = config
        self._compiler = Compiler(precision)
        self.precision = self._compiler.precision
        self._source, self._loaded = network, load(network).eval()
        self._heads = TorchBackend(_Heads(self._loaded), config, upscaling=getattr(torch, self.precision))
        self._lock = threading.Lock()
        self._packed: list[torch.Tensor] = []
        self._ready: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
        try:
            self._check("automatic", self._converted("automatic"))
        except Exception as error:  # whatever a broken installation raises
            raise RuntimeUnavailableError(_sentence(error)) from error

    def on(self, device: torch.device | str) -> OpenVinoBackend | TorchBackend:
        """Return the same network on another device, by PyTorch; on the processor, this one."""
        if torch.device(device).type == "cpu":
            return self
        return TorchBackend(load(self._source), self.config).on(device)

    def automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        """As :meth:`TorchBackend.automatic_features`."""
        return self._run("automatic", patch)

    def click_features(self, patch: torch.Tensor) -> torch.Tensor:
        """As :meth:`TorchBackend.click_features`."""
        return self._run("click", patch)

    def class_matrix(self, indices: Sequence[int]) -> torch.Tensor:
        """As :meth:`TorchBackend.class_matrix`."""
        return self._heads.class_matrix(indices)

    def click_image(self, features: torch.Tensor) -> ImageSide:
        """As :meth:`TorchBackend.click_image`."""
        return self._heads.click_image(features)

    def click_scores(self, features: torch.Tensor | ImageSide, tokens: ClickTokens) -> torch.Tensor:
        """As :meth:`TorchBackend.click_scores`."""
        return self._heads.click_scores(features, tokens)

    def _run(self, name: str, patch: torch.Tensor) -> torch.Tensor:
        with self._lock:
            for other, branch in self._ready.items():
                if other != name and isinstance(branch, CompiledBranch):
                    branch.release()
            if name not in self._ready:
                self._ready[name] = self._prepared(name)
            features = self._answer(name, patch)
            # OpenVINO has its own copy of the weights in the order that it needs, and never looks at them again.
            let_go(self._packed)
            self._packed.clear()
            return features

    def _answer(self, name: str, patch: torch.Tensor) -> torch.Tensor:
        try:
            return self._ready[name](patch)
        except RuntimeError as error:
            if is_out_of_memory(error) or not isinstance(self._ready[name], CompiledBranch):
                raise
            self._ready[name] = self._by_torch(name, error)
        return self._ready[name](patch)

    def _prepared(self, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a branch for whole windows; by PyTorch if OpenVINO cannot do it after all."""
        try:
            model = self._converted(name)
            if name != "automatic":
                self._check(name, model)
            branch = self._compiled(name, model, self.config.window)
        except Exception as error:  # as above
            if is_out_of_memory(error):  # PyTorch would take more
                raise
            return self._by_torch(name, error)
        if not isinstance(self._source, nn.Module):
            self._packed = list(self._loaded.parameters())
            self._loaded = None
            let_go(self._packed)
        return branch

    def _by_torch(self, name: str, error: Exception) -> Callable[[torch.Tensor], torch.Tensor]:
        warnings.warn(f"{_sentence(error)} PyTorch is used instead.", SlowerWarning, stacklevel=4)
        fallback = TorchBackend(self._network(), self.config)
        return fallback.automatic_features if name == "automatic" else fallback.click_features

    def _network(self) -> nn.Module:
        if self._loaded is None:
            self._loaded = load(self._source).eval()
        return self._loaded

    def _converted(self, name: str) -> Any:
        return self._compiler.converted(_BRANCHES[name](self._network()), small_window(self.config))

    def _compiled(self, name: str, model: Any, window: Sequence[int]) -> CompiledBranch:
        # A click's one window would be faster by less than what compiling takes longer.
        return self._compiler.compiled(model, window, fewer_products=name == "automatic")

    @torch.inference_mode()
    def _check(self, name: str, model: Any) -> None:
        """:raises RuntimeError: if a converted branch and PyTorch do not agree on a small window."""
        window = small_window(self.config)
        patch = torch.rand(1, 1, *window, generator=torch.Generator().manual_seed(0))
        expected = _BRANCHES[name](self._network())(patch)[0].movedim(-1, 0)
        found = self._compiled(name, model, window)(patch)
        difference = float((found - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE[self.precision]:  # NaN is no agreement either
            raise RuntimeError(f"its features differ from PyTorch's by {difference:.1g} of the largest")


class CompiledBranch:
    """A branch in compiled form, for windows of one size.

    :param compiled: an OpenVINO ``CompiledModel`` with one input and one output of fixed shapes.
    """

    def __init__(self, openvino: ModuleType, compiled: Any) -> None:
        self._openvino, self._compiled = openvino, compiled
        self._request = compiled.create_infer_request()
        self._shape = tuple(compiled.output(0).shape)

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return the features [C, x, y, z], float32, channels last, of a window [1, 1, w, w, w] on any device.

        :raises RuntimeError: if it fails, also for want of memory.
        """
        image = patch.to("cpu", torch.float32).contiguous()
        # NumPy asks for huge pages where it can; to touch 400 MB in small ones takes 2 % of a window in bfloat16.
        found = np.empty(self._shape, np.float32)
        self._request.set_input_tensor(self._openvino.Tensor(image.numpy(), shared_memory=True))
        self._request.set_output_tensor(self._openvino.Tensor(found, shared_memory=True))
        # By default what it returns is another copy of the features.
        self._request.infer(share_outputs=True)
        return torch.from_numpy(found)[0].movedim(-1, 0)

    def release(self) -> None:
        """Give back the memory between the layers until the next window."""
        self._compiled.release_memory()


class Compiler:
    """Turns branches of the network into compiled models.

    :param precision: as for :class:`OpenVinoBackend`.
    :raises RuntimeUnavailableError: if OpenVINO is missing or cannot be loaded.
    """

    def __init__(self, precision: str = "auto") -> None:
        self._openvino = _import()
        try:
            self._core = _core(self._openvino)
            capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except Exception as error:  # whatever a broken installation raises
            raise RuntimeUnavailableError(_sentence(error)) from error
        # OpenVINO also names bfloat16 where it has to imitate it.
        self.precision = granted_precision("OpenVINO", precision, "BF16" in capabilities and has_bfloat16())

    def converted(self, branch: nn.Module, window: Sequence[int]) -> Any:
        """Return a branch as an OpenVINO ``Model``, which shares the weights with it.

        :param window: of the example that is followed through the branch; the model fits other windows too.
        """
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            # MONAI checks the window's shape, which a tracer cannot follow and need not.
            warnings.simplefilter("ignore")
            decoder = TorchScriptPythonDecoder(
                branch.eval(), example_input=(torch.zeros(1, 1, *window),), trace_kwargs={"check_trace": False}
            )
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        # In bfloat16 intermediate sums would be rounded; OpenVINO's own operation keeps them in float32.
        return with_exact_normalisation(model) if self.precision == "float32" else model

    def compiled(self, model: Any, window: Sequence[int], fewer_products: bool = False) -> CompiledBranch:
        """Return a converted branch in compiled form for windows of a size.

        :param fewer_products: by :func:`with_fewer_products`, where it pays; compiling takes seconds longer. Never in
            bfloat16, where the rounding of combined planes would show.
        """
        model.reshape([1, 1, *window])
        if fewer_products and self.precision == "float32" and is_bound_by_products():
            model = with_fewer_products(model.clone())
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": thread_count(),
            # The process may be bound to some processors from outside, or share them with others.
            "ENABLE_CPU_PINNING": False,
        }
        return CompiledBranch(self._openvino, self._core.compile_model(model, "CPU", options))


def small_window(config: ModelConfig) -> tuple[int, ...]:
    """Return the sides of the window on which a branch is checked: those of the model, or less."""
    factor = 2 ** (len(config.blocks_down) - 1)
    return tuple(min(side, max(_SMALL, factor)) for side in config.window)


def _import() -> ModuleType:
    try:
        with _without_reports():
            import openvino
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError("OpenVINO is not installed (package openvino).", expected=True) from error
    except Exception as error:  # whatever a broken installation raises
        raise RuntimeUnavailableError(_sentence(error)) from error
    return openvino


@cache
def _core(openvino: ModuleType) -> Any:
    """Return the one ``Core`` of this process, which lives as long as the process.

    Each one gives the thread that starts it a stack for signals of its own and takes it away when it ends. Two that do
    not end in the reverse order leave a stack that is gone, and the next signal, such as Ctrl+C, ends the process.
    """
    return openvino.Core()


@contextmanager
def _without_reports() -> Iterator[None]:
    """Let OpenVINO do without the package by which it reports every import to its manufacturer, if nobody has it yet.

    Without it OpenVINO takes a stand-in of its own that sends nothing.
    """
    if _REPORTER in sys.modules:
        yield
        return
    sys.modules[_REPORTER] = None
    try:
        yield
    finally:
        sys.modules.pop(_REPORTER, None)


def _sentence(error: Exception) -> str:
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    return f"OpenVINO cannot be used ({reason.rstrip('.')})."
