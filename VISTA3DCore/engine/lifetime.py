"""The engine process lives no longer than its client, and sweeps up after a client that died."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from VISTA3DCore.engine.arrays import ArrayFolder

try:
    import psutil
except ImportError:  # an engine that only manages models runs before anything was installed
    psutil = None

POLL_S = 0.5
# How the names of all clients' shared directories begin (Documentation/protocol.md); nothing else is ever swept.
_PREFIX = "vista3d-"
# How long the parent may take to die after its pipe was closed, until it counts as alive.
_DYING_S = 1.0


class Parent:
    """The process for which this one works.

    :param pid: its number, or None if the client did not say; then (and without psutil) only the end of its pipe shows
        that it is gone.
    """

    def __init__(self, pid: int | None) -> None:
        self._process: psutil.Process | None = None
        self._was_gone = False
        if pid is None or psutil is None:
            return
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._was_gone = True
        except psutil.AccessDenied:
            pass

    @property
    def gone(self) -> bool:
        """Whether it has certainly ended; a number that was given to another process since does not deceive."""
        if self._process is None:
            return self._was_gone
        try:
            # A killed process stays as a zombie until its own parent looks at it.
            return not self._process.is_running() or self._process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False

    def gone_soon(self, patience_s: float = _DYING_S) -> bool:
        """Return whether it ends within some seconds; the pipes of a dying process close before it is gone."""
        deadline = time.monotonic() + patience_s
        while not self.gone:
            if self._process is None or time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def watch(self, on_gone: Callable[[], None]) -> None:
        """Call a function from a thread of its own once it is gone.

        The end of the pipe usually comes first, but not if another process has inherited the pipe's other end.
        """
        if self._process is None and not self._was_gone:
            return
        threading.Thread(target=self._poll, args=(on_gone,), name="parent", daemon=True).start()

    def _poll(self, on_gone: Callable[[], None]) -> None:
        while not self.gone:
            time.sleep(POLL_S)
        on_gone()


def sweep(folder: ArrayFolder) -> None:
    """Remove the shared directory that a dead client left: the arrays in it, then the empty directory.

    Whatever else lies in it stays, and so does a directory that no client of ours made.
    """
    for _ in range(3):  # the inference thread may just be writing another result
        if folder.path.name.startswith(_PREFIX) and folder.path.exists():
            folder.remove()
            time.sleep(0.02)
