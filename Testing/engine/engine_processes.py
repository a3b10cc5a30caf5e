"""Real engine processes that a test drives byte by byte, and what to look at from outside."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from manual_client import ManualClient

from VISTA3DCore.engine.arrays import SharedDirectory
from VISTA3DCore.engine.client import Failure, Response, initialize_params
from VISTA3DCore.engine.environment import worker_command
from VISTA3DCore.engine.protocol import Params
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume

PATIENCE_S = 60.0


def coarse_phantom(shape: tuple[int, int, int]) -> Volume:
    """Return a phantom with the tiny model's spacing, 12 mm."""
    volume, _ = paint_phantom(shape)
    affine = np.diag([12.0, 12.0, 12.0, 1.0])
    return Volume(volume.array.astype(np.int16), affine, "phantom")


def centre_of(volume: Volume) -> tuple[float, float, float]:
    """Return the middle of a volume in RAS mm."""
    middle = [(size - 1) / 2 for size in volume.shape]
    return tuple((volume.affine[:3, :3] @ middle + volume.affine[:3, 3]).tolist())


class RawWorker:
    """An engine process whose bytes a test writes and reads itself."""

    def __init__(self, command: list[str] | None = None) -> None:
        self.shared = SharedDirectory()
        self.client = ManualClient()
        self.process = subprocess.Popen(
            command or worker_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def write(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self) -> bytes:
        """Wait for some bytes."""
        received = os.read(self.process.stdout.fileno(), 1 << 16)
        assert received, "the engine process has ended"
        return received

    def rest(self) -> bytes:
        """Close the input and return everything that is still said."""
        return self.process.communicate(timeout=PATIENCE_S)[0]

    def ask(self, method: str, params: Params | None = None) -> Response | Failure:
        """Send a request and wait for its answer."""
        identity, data = self.client.request(method, params)
        self.write(data)
        while True:
            for event in self.client.receive(self.read()):
                if isinstance(event, (Response, Failure)) and event.id == identity:
                    return event

    def greet(self) -> Response | Failure:
        return self.ask("initialize", initialize_params(self.shared.path, "test"))

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.shared.close()


def wait_until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for something; return how long it took, or fail."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - started


def is_alive(pid: int) -> bool:
    """Whether a process runs; zombies do not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def arrays_of(folder: Path) -> list[str]:
    """Return the names of the files in a shared directory."""
    return sorted(path.name for path in folder.iterdir())
