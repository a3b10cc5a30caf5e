"""What the benchmarks share: a process for each side, and what it took."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def in_own_process(script: str, settings: Mapping[str, object]) -> dict:
    """Run a benchmark's script with options; return what it printed last, which is JSON."""
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    output = subprocess.run([sys.executable, script, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def machine(threads: int) -> str:
    """Return on what, and beside what load, this was measured."""
    import monai
    import torch

    return (
        f"{platform.processor() or platform.machine()}, {threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, MONAI {monai.__version__}, float32"
    )
