"""Measure time and memory, summarize repetitions, and run a script in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was told; on the CPU there is nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass
class Stopwatch:
    """Seconds of a piece of work and of its stages; what a stage calls is counted there, not in the stage itself.

    :param device: is waited for before each reading of the clock.
    :param processor: seconds of the processor, all threads together.
    """

    device: torch.device
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    processor: float = 0.0
    _open: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside for a stage."""
        synchronize(self.device)
        started, processor = time.perf_counter(), time.process_time()
        self._open.append(0.0)
        try:
            yield
        finally:
            synchronize(self.device)
            seconds = time.perf_counter() - started
            self.stages[name] += seconds - self._open.pop()
            if self._open:
                self._open[-1] += seconds
            else:
                self.processor += time.process_time() - processor

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts for a stage."""

        def counted(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return counted


@contextmanager
def counted_methods(watch: Stopwatch, methods: Sequence[tuple[object, str, str]]) -> Iterator[None]:
    """Count (owner, name of a method, stage) while the context is open."""
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in methods]
    for owner, name, stage in methods:
        setattr(owner, name, watch.timed(stage, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, original in reversed(before):
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


def peak_memory() -> int | None:
    """Return the largest resident size of this process so far, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text(encoding="utf-8").split("VmHWM:")[1].split()[0]) * 1024
    try:
        import resource
    except ImportError:
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak(device: torch.device) -> int | None:
    """Return the most memory that torch's allocator held on a CUDA device, in bytes; None on others."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


@dataclass(frozen=True)
class Summary:
    """Repetitions: median, minimum and quartiles in seconds; ``cold`` is the first run of all, before any warm-up."""

    median: float
    minimum: float
    lower_quartile: float
    upper_quartile: float
    repetitions: int
    cold: float | None

    @classmethod
    def of(cls, seconds: Sequence[float], cold: float | None = None) -> Summary:
        """Summarize at least one repetition."""
        lower, median, upper = np.percentile(seconds, (25, 50, 75)).tolist()
        return cls(median, min(seconds), lower, upper, len(seconds), cold)


def in_own_process(script: str, settings: Mapping[str, object]) -> dict:
    """Run a benchmark's script with options; return the last line that it printed, which is JSON."""
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    output = subprocess.run([sys.executable, script, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def machine(threads: int) -> str:
    """Return the hardware, its load and the library versions of a measurement."""
    import monai

    return (
        f"{platform.processor() or platform.machine()}, {threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, MONAI {monai.__version__}, float32"
    )
