"""Starting the CUDA runtime: in the first mode that gives what PyTorch gives on the CPU.

Some combinations of torch, cuDNN and driver compute 3-D convolutions wrongly or slowly. So a small window goes through
both, and where they differ other modes are tried: images channels-first, then float32 rounded to TF32, which has the
resolution of float16.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from VISTA3DCore.backends.cuda.backend import CudaBackend, Mode
from VISTA3DCore.backends.cuda.cudnn import slow_in_half_precision, wrong_in_bfloat16
from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.errors import SlowerWarning
from VISTA3DCore.network.click_head import ClickTokens
from VISTA3DCore.network.config import ModelConfig

# Largest relative difference (root mean square) of features: several times what rounding makes of a window of two
# voxels a side on the coarsest level, and far below what a wrong convolution makes of it.
TOLERANCES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}
_TENSOR_FLOAT_TOLERANCE = 0.05


@dataclass(frozen=True, eq=False)
class Exercise:
    """A small window and what PyTorch makes of it on the CPU in float32.

    :param patch: [1, 1, x, y, z]; :param features: of the automatic branch.
    :param click_features: invented ones of such a window; :param scores: for one click, or None without that branch.
    """

    patch: torch.Tensor
    features: torch.Tensor
    click_features: torch.Tensor
    scores: torch.Tensor | None

    @classmethod
    def of(cls, network: nn.Module, config: ModelConfig) -> Exercise:
        """Solve it on a window of two voxels a side on the coarsest level."""
        side, reference = 2 ** len(config.blocks_down), TorchBackend(network, config, "cpu")
        steps = torch.linspace(0, 3, side)
        patch = (torch.sin(steps[:, None, None] * 2 + steps[:, None] * 3 + steps) / 2 + 0.5)[None, None]
        half = patch[0, :, ::2, ::2, ::2] * 2 - 1
        click_features = torch.cat([half.roll(shift, dims=1) for shift in range(config.click_features)])
        scores = reference.click_scores(click_features, _click(side)) if config.click_branch else None
        return cls(patch, reference.automatic_features(patch), click_features, scores)


def _click(side: int) -> ClickTokens:
    return ClickTokens(((side / 2, side / 2, side / 2),), (True,))


class UnusableError(Exception):
    """The runtime gives no right answer in any mode; the message says what was tried.

    :param broken: PyTorch gives none on this device either.
    """

    def __init__(self, message: str, broken: bool) -> None:
        super().__init__(message)
        self.broken = broken


def start(network: nn.Module, config: ModelConfig, device: torch.device, precision: str = "auto") -> CudaBackend:
    """Return the runtime in the best mode that works.

    :param precision: ``auto`` is float16 on CUDA, which is what the reference bundle runs, and float32 elsewhere.
    :raises UnusableError: if no mode works. :raises UnknownLayerError: if the network cannot be rebuilt.
    """
    wished = Mode(_default(device) if precision == "auto" else precision)
    exercise = Exercise.of(network, config)
    failures = [reason] if (reason := _known_problem(device, wished)) else []
    for mode in modes(wished, skip=bool(failures)):
        backend = CudaBackend(network, config, device, mode)
        try:
            problem = trial(backend, exercise)
        except (RuntimeError, MemoryError):
            # Memory ran out: nothing can be found out now, and the work itself knows what to do then.
            return backend
        if problem is None:
            _tell(backend, failures)
            backend.forget()
            return backend
        failures.append(f"{mode.precision}: {problem}")
    raise UnusableError("; ".join(failures), is_broken(network, config, device, exercise))


def is_broken(network: nn.Module, config: ModelConfig, device: torch.device, exercise: Exercise) -> bool:
    """Return whether PyTorch's own operations give no right answer on the device either."""
    try:
        return trial(TorchBackend(network, config).on(device), exercise) is not None
    except (RuntimeError, MemoryError):  # as above
        return False


def modes(wished: Mode, skip: bool = False) -> Iterator[Mode]:
    """Hand out the modes to try, the best first.

    :param skip: the wished precision is not worth trying.
    """
    if not skip:
        yield wished
        yield replace(wished, channels_last=False)
    if wished.precision != "float32":
        yield Mode("float32", tensor_float=True)
        yield Mode("float32")
        yield Mode("float32", channels_last=False)


def trial(backend: CudaBackend | TorchBackend, exercise: Exercise) -> str | None:
    """Return what is wrong with a backend's answers, or None.

    :raises RuntimeError: if memory runs out, as :func:`is_out_of_memory` tells it.
    """
    try:
        found = [backend.automatic_features(exercise.patch).cpu()]
        if exercise.scores is not None:
            found.append(backend.click_scores(exercise.click_features, _click(exercise.patch.shape[2])).cpu())
    except Exception as error:  # compilers and drivers have errors of many kinds
        if is_out_of_memory(error):
            raise
        return (str(error).splitlines() or ["it fails"])[0]
    rounded = isinstance(backend, CudaBackend) and backend.mode.tensor_float
    tolerance = _TENSOR_FLOAT_TOLERANCE if rounded else TOLERANCES[backend.precision]
    for answer, expected in zip(found, (exercise.features, exercise.scores), strict=False):
        difference = ((answer - expected).norm() / expected.norm()).item()
        if not (math.isfinite(difference) and difference <= tolerance):
            return f"the answer differs by {difference:.2g}"
    return None


def _default(device: torch.device) -> str:
    return "float16" if device.type == "cuda" else "float32"


def _known_problem(device: torch.device, mode: Mode) -> str | None:
    """Return why a precision is not worth trying here: by the lists of known cases, or as measured."""
    if device.type != "cuda" or mode.precision == "float32":
        return None
    cudnn = torch.backends.cudnn.version() or 0
    if mode.precision == "bfloat16" and wrong_in_bfloat16(cudnn):
        return "bfloat16: this cuDNN is known to compute it wrongly"
    try:
        slow = slow_in_half_precision(torch.__version__, cudnn) or (
            _milliseconds(device, mode.dtype) > 1.5 * _milliseconds(device, torch.float32)
        )
    except RuntimeError:  # the trial of the mode will tell what is wrong
        return None
    return f"{mode.precision} is slower than float32" if slow else None


@torch.inference_mode()
def _milliseconds(device: torch.device, dtype: torch.dtype) -> float:
    """Return how long a convolution of 48 channels at 64^3 takes, the best of three."""
    image, weight = (
        torch.randn(shape, device=device, dtype=dtype) for shape in ((1, 48, 64, 64, 64), (48, 48, 3, 3, 3))
    )
    image, weight = (one.contiguous(memory_format=torch.channels_last_3d) for one in (image, weight))
    times = []
    with torch.cuda.device(device), torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        functional.conv3d(image, weight, padding=1)
        for _ in range(3):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            functional.conv3d(image, weight, padding=1)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    return min(times)


def _tell(backend: CudaBackend, failures: list[str]) -> None:
    """Say once what makes everything slower."""
    sentences, mode = [], backend.mode
    if failures:
        how = "float32 rounded to TF32" if mode.tensor_float else mode.precision
        sentences.append(f"This GPU's software is wrong or slow in the fastest mode ({failures[0]}); {how} is used.")
    if backend.device.type == "cuda" and backend.kernels.wanting:
        sentences.append(f"{_capitalised(backend.kernels.wanting)}; the GPU works without them, more slowly.")
    if sentences:
        warnings.warn(" ".join(sentences), SlowerWarning, stacklevel=4)


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
