"""How much memory a piece of work took."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

INTERVAL_S = 0.02


class MemoryWatch:
    """Looks at the resident size of this process again and again; a context manager.

    :ivar start: bytes when it was opened.
    :ivar peak: the largest size seen; pages of mapped files count as long as they are in memory.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.start = self.peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self.peak = max(self.peak, self._process.memory_info().rss)
