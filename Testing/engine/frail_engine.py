"""Starts the engine process with misfortunes.

frail_engine.py memory 2,3,9    memory runs out in the network's second, third and ninth pass
frail_engine.py disk 100000     no file can grow beyond so many bytes
frail_engine.py print TEXT      libraries print to standard output, as C and as Python
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from VISTA3DCore.engine.__main__ import main


def break_memory(passes: str) -> None:
    """Let the network's passes of these numbers fail, on whatever device."""
    import torch

    from VISTA3DCore.backends.openvino.backend import OpenVinoBackend
    from VISTA3DCore.backends.torch_backend import TorchBackend

    failing, numbers = set(map(int, passes.split(","))), itertools.count(1)

    def frail(runtime: type, method: str) -> None:
        whole = getattr(runtime, method)

        def run(self: Any, patch: torch.Tensor) -> torch.Tensor:
            if next(numbers) in failing:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return whole(self, patch)

        setattr(runtime, method, run)

    for runtime in (TorchBackend, OpenVinoBackend):
        frail(runtime, "automatic_features")
        frail(runtime, "click_features")


def break_disk(size: str) -> None:
    """Let files grow no further; POSIX only."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))


def print_much(text: str) -> None:
    """Print beside the frames with every request."""
    from VISTA3DCore.engine.handlers import Handlers

    whole = Handlers.call

    def call(self: Any, *arguments: Any) -> Any:
        print(text, "in Python", flush=True)
        os.write(1, f"{text} in C\n".encode())
        return whole(self, *arguments)

    Handlers.call = call


if __name__ == "__main__":
    for kind, value in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        {"memory": break_memory, "disk": break_disk, "print": print_much}[kind](value)
    main()
