"""A network works in one process: its threads do not survive a fork, and a call would wait for them forever."""

from __future__ import annotations

import os

from VISTA3DCore.errors import DeviceError

_process: int | None = None


def check_process() -> None:
    """Remember the first process that uses a network, and refuse others that were forked from it.

    :raises DeviceError: in a process that was forked after its parent had used a network.
    """
    global _process  # noqa: PLW0603 - it is the process's own state
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise DeviceError(
            "This process was forked from one that had used a network, and would hang. Start processes by 'spawn', "
            "e.g. with multiprocessing.get_context('spawn'), or load no model before the fork."
        )
