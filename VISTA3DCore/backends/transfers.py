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
    """Return a tensor of the host on a device; where it is there already, and on the CPU, the tensor itself."""
    if device.type != "cuda" or array.device.type == "cuda":
        return array.to(device)
    array = array.contiguous()
    result = torch.empty(array.shape, dtype=array.dtype, device=device)
    source, target = array.view(-1), result.view(-1)
    buffers, events = _buffers(array.dtype)
    for number, part in enumerate(_pieces(source.numel(), array.element_size())):
        buffer, event = buffers[number % 2][: part.stop - part.start], events[number % 2]
        event.synchronize()
        target[part].copy_(buffer.copy_(source[part]), non_blocking=True)
        event.record(torch.cuda.current_stream(device))
    return result


def download(tensor: torch.Tensor, out: np.ndarray) -> None:
    """Copy a contiguous tensor into an array of its shape, of any strides; the array may be of a wider type."""
    # As signed numbers, torch knows all types; several processors then put the pieces in place.
    target = torch.from_numpy(out.view(np.int16) if out.dtype == np.uint16 else out)
    if tensor.device.type != "cuda":
        target.copy_(tensor)
        return
    row = max(1, tensor[:1].numel())
    buffers, events = _buffers(tensor.dtype, row)
    waiting: tuple[slice, int] | None = None

    def put(part: slice, turn: int) -> None:
        events[turn].synchronize()
        target[part].copy_(buffers[turn][: (part.stop - part.start) * row].view(target[part].shape))

    for number, part in enumerate(_pieces(len(tensor), row * tensor.element_size())):
        values = tensor[part].reshape(-1)
        buffers[number % 2][: len(values)].copy_(values, non_blocking=True)
        events[number % 2].record(torch.cuda.current_stream(tensor.device))
        if waiting is not None:
            put(*waiting)
        waiting = part, number % 2
    if waiting is not None:
        put(*waiting)


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; on the CPU it is the tensor's own memory."""
    if tensor.device.type != "cuda":
        return tensor.cpu().numpy()
    result = torch.empty(tensor.shape, dtype=tensor.dtype).numpy()
    download(tensor.contiguous().view(-1), result.reshape(-1))
    return result


def _buffers(dtype: torch.dtype, row: int = 1) -> tuple[list[torch.Tensor], list[torch.cuda.Event]]:
    """Return two page-locked buffers, which torch keeps for the next call, and an event for each.

    :param row: they hold at least so many values.
    """
    count = max(_PIECE // dtype.itemsize, row)
    return [torch.empty(count, dtype=dtype, pin_memory=True) for _ in range(2)], [torch.cuda.Event() for _ in range(2)]


def _pieces(count: int, itemsize: int) -> Iterator[slice]:
    step = max(1, _PIECE // itemsize)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
