"""Weights that lie in their file: mapped when they are read, let go when nobody reads them any more."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

_MAPS = Path("/proc/self/maps")


def let_go(tensors: Iterable[torch.Tensor]) -> int:
    """Give back the memory of tensors that lie in a mapped file; whoever reads them again gets them from there.

    Only for tensors that nobody has changed since the file was mapped. Does nothing for tensors in ordinary memory,
    and on systems other than Linux, which drop such pages by themselves when memory is short.

    :return: the number of bytes.
    """
    if sys.platform != "linux" or not _MAPS.exists():
        return 0
    mappings, advise, freed = _private_files(), ctypes.CDLL(None).madvise, 0
    for tensor in tensors:
        start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > start and any(low <= start and stop <= high for low, high in mappings):
            failed = advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)
            freed += 0 if failed else stop - start
    return freed


def _private_files() -> list[tuple[int, int]]:
    """Return first byte and end of this process's private mappings of files."""
    found = []
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions, _offset, _device, inode, *_path = line.split(maxsplit=5)
        if permissions.endswith("p") and inode != "0":
            low, high = (int(end, 16) for end in span.split("-"))
            found.append((low, high))
    return found
