"""What the hardware gives: matrix products per number type and copies in memory, with all threads and with one.

These are the roof under which every other figure is shown: convolutions are matrix products to the libraries, and what
is no arithmetic is a copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.functional import linear

from beside_reference.measuring import synchronize

# Sides of the matrices: large enough to reach the peak, small enough for about a tenth of a second each.
_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
_COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31, "mps": 1 << 28}
_TRIES = 5
_TYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.float16, torch.bfloat16),
    "mps": (torch.float32, torch.float16),
}


def probe(device: torch.device, threads: int, side: int | None = None, copy_bytes: int | None = None) -> dict[str, Any]:
    """Measure the roof.

    :param threads: of the CPU; one thread is measured as well. :param side: of the matrices instead of the usual one.
    :return: ``gemm``: number type -> threads -> GFLOP/s, ``copy``: threads -> GB/s (read and written bytes counted);
        threads are text, as JSON has it.
    """
    counts = sorted({1, threads}) if device.type == "cpu" else [threads]
    side, copy_bytes = side or _SIDE[device.type], copy_bytes or _COPY_BYTES[device.type]
    result: dict[str, Any] = {"gemm": {}, "copy": {}}
    before = torch.get_num_threads()
    try:
        for count in counts:
            torch.set_num_threads(count)
            for dtype in _TYPES[device.type]:
                rates = result["gemm"].setdefault(str(dtype).removeprefix("torch."), {})
                rates[str(count)] = _product_rate(device, dtype, side)
            result["copy"][str(count)] = _copy_rate(device, copy_bytes)
    finally:
        torch.set_num_threads(before)
    return result


def _product_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Return GFLOP/s of the fastest matrix product; float32 without TensorFloat32, as exact convolutions are."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        return 2 * side**3 / min(_best(product, device) for product in _products(device, dtype, side)) / 1e9
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def _products(device: torch.device, dtype: torch.dtype, side: int) -> Iterator[Callable[[], object]]:
    """Yield what multiplies matrices.

    On processors torch has two libraries: MKL, which is at half of its speed on AMD's, and oneDNN, which convolves.
    """
    first, second = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(first)
    yield lambda: torch.mm(first, second, out=result)
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        blocked = first.to_mkldnn(), second.to_mkldnn()
        yield lambda: linear(*blocked)


def _copy_rate(device: torch.device, size: int) -> float:
    """Return GB/s."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2 * size / _best(lambda: target.copy_(source), device) / 1e9


def _best(action: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the fastest of some tries; the first one, which warms up, does not count."""
    action()
    seconds = []
    for _ in range(_TRIES):
        synchronize(device)
        started = time.perf_counter()
        action()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def peak_gemm(roof: dict[str, Any], precision: str, threads: int) -> float | None:
    """Return the roof's GFLOP/s for a precision; None where it was not measured."""
    return roof["gemm"].get(precision, {}).get(str(threads))
