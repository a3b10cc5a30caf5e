"""What the processor offers: how many threads may run, what limits them, and whether it multiplies bfloat16 itself."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

_CGROUP, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_THREADS_BELOW_MEMORY = {"AVX2": 8, "AVX512": 4}
"""So many threads multiply at most 20 times for each byte that the memory of an ordinary computer moves meanwhile."""


def thread_count(cgroup: Path = _CGROUP, own: Path = _OWN_GROUP) -> int:
    """Return how many threads should compute: torch's number, within what the system lets this process use.

    torch minds the processors that the process is bound to (``taskset``), but not a container's share of time: there,
    too many threads wait for each other.

    :param cgroup: where Linux describes the limits of a container, or of a service within groups of others.
    :param own: the file in which Linux says to which group this process belongs.
    """
    limits = [torch.get_num_threads(), os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    return max(1, min([*limits, *_shares(cgroup, own)]))


def limit_threads() -> None:
    """Lower torch's number of threads, in all of this process, to :func:`thread_count`."""
    count = thread_count()
    if count < torch.get_num_threads():
        torch.set_num_threads(count)


def has_bfloat16() -> bool:
    """Whether the processor itself multiplies bfloat16 (AVX512-BF16 or AMX); if not, it is slower than float32.

    Versions of torch that cannot tell (before ``torch.cpu.get_capabilities``) count as no.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def is_bound_by_products() -> bool:
    """Whether it pays to move more data for fewer products, as far as can be told from threads and instructions.

    More threads multiply faster, but have the same memory. A rule and not a measurement, so that results are the same
    to the last bit whatever else a computer does. Processors of other kinds count as no: nothing was measured there.
    """
    return thread_count() <= _THREADS_BELOW_MEMORY.get(torch.backends.cpu.get_cpu_capability(), 0)


def _shares(cgroup: Path, own: Path) -> list[int]:
    """Return the limits in processors of a container, of this process's group, and of all groups around it.

    As version 2 or 1 of cgroups writes them (of version 1, the container's alone).
    """
    first = [*_numbers(cgroup / "cpu" / "cpu.cfs_quota_us"), *_numbers(cgroup / "cpu" / "cpu.cfs_period_us")]
    limits = [first, *(_numbers(folder / "cpu.max") for folder in _groups(cgroup, own))]
    return [math.ceil(limit[0] / limit[1]) for limit in limits if len(limit) == 2 and min(limit) > 0]


def _groups(cgroup: Path, own: Path) -> list[Path]:
    """Return the folders of version 2 that describe this process's group and those around it."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    parts = next((line.removeprefix("0::/").split("/") for line in lines if line.startswith("0::/")), [])
    return [cgroup.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _numbers(path: Path) -> list[int]:
    """Return the numbers in a file; none if it cannot be read or holds a word (``max`` means no limit)."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []
