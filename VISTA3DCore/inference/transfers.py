"""Arrays between the host and a CUDA device, through page-locked memory that is used again and again.

Copies from and to ordinary memory go through such a buffer anyway, one piece after the other; here the next piece is on
its way while the last one is put in place.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

# Bytes of a piece: large enough for full speed, small enough for the buffers never to matter.
_PIECE = 16 << 20


def upload(array: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device; on the CPU, the tensor itself."""
    if device.type != "cuda":
        return array.to(device)
    array = array.contiguous()
    result = torch.empty(array.shape, dtype=array.dtype, device=device)
    source, target = array.view(-1), result.view(-1)
    buffers, events = _buffers(array.dtype)
    for number, part in enumerate(_pieces(source.numel(), array.element_size())):
        buffer, event = buffers[number % 2][: part.stop - part.start], events[number % 2]
        event.synchronize()
        target[part].copy_(buffer.copy_(source[part]), non_blocking=True)
        event.record()
    return result


def download(tensor: torch.Tensor, out: np.ndarray) -> None:
    """Copy a tensor into an array of its shape, both contiguous; the array may be of a wider type."""
    if tensor.device.type != "cuda":
        np.copyto(out, tensor.cpu().numpy(), casting="unsafe")
        return
    source, target = tensor.reshape(-1), out.reshape(-1)
    buffers, events = _buffers(tensor.dtype)
    waiting: tuple[slice, int] | None = None
    for number, part in enumerate(_pieces(source.numel(), tensor.element_size())):
        buffers[number % 2][: part.stop - part.start].copy_(source[part], non_blocking=True)
        events[number % 2].record()
        if waiting is not None:
            _put(target, *waiting, buffers, events)
        waiting = part, number % 2
    if waiting is not None:
        _put(target, *waiting, buffers, events)


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; on the CPU it is the tensor's own memory."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy()
    result = torch.empty(tensor.shape, dtype=tensor.dtype).numpy()
    download(tensor.contiguous(), result)
    return result


def _put(
    target: np.ndarray, part: slice, number: int, buffers: list[torch.Tensor], events: list[torch.cuda.Event]
) -> None:
    events[number].synchronize()
    target[part] = buffers[number][: part.stop - part.start].numpy()


def _buffers(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.cuda.Event]]:
    """Return two page-locked buffers, which torch keeps for the next call, and an event for each."""
    count = _PIECE // dtype.itemsize
    return [torch.empty(count, dtype=dtype, pin_memory=True) for _ in range(2)], [torch.cuda.Event() for _ in range(2)]


def _pieces(count: int, itemsize: int) -> Iterator[slice]:
    step = _PIECE // itemsize
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
