"""``python -m VISTA3DCore.engine``: the engine process; clients speak with it over its standard streams."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from VISTA3DCore.child_processes import leave_working_folder

_CHUNK = 1 << 16


def main() -> None:
    """Serve the client at standard input and output until it is done; the log goes to standard error."""
    if sys.stdin is not None and sys.stdin.isatty():
        sys.exit("This is the engine process of VISTA3D; programs start it. For people there is the command: vista3d")
    # Ctrl+C in a terminal reaches every process there; what it means is the client's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    read, write = take_streams()
    from VISTA3DCore.engine.server import Server

    end(Server(read, write, end).serve())


def take_streams() -> tuple[Callable[[], bytes], Callable[[bytes], None]]:
    """Keep standard input and output for frames alone, and return how to read and write them.

    From here on whatever libraries print goes to the log, and what they start cannot read the client's frames. On
    Windows Python has opened both streams in binary mode, and their copies stay so.
    """
    sys.stdout.flush()
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(outgoing, view) :]

    def read() -> bytes:
        try:
            return os.read(incoming, _CHUNK)
        except OSError:  # Windows reports a client that died this way
            return b""

    return read, write


def end(code: int) -> None:
    """End this process now, whatever its other threads are doing: a window of the network may take seconds."""
    logging.shutdown()
    leave_working_folder()
    os._exit(code)


if __name__ == "__main__":
    main()
