"""A client that starts an engine process, gives it something to do, tells about it, and waits to be killed.

orphaned_client.py MODEL held|closed    whether another process holds the pipe to the engine open beyond its death
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

from engine_processes import RawWorker, coarse_phantom  # noqa: E402

from VISTA3DCore.engine.protocol import OpenParams, SegmentParams  # noqa: E402

if __name__ == "__main__":
    model, pipe = sys.argv[1:]
    worker, holder = RawWorker(), None
    worker.greet()
    volume = coarse_phantom((100, 100, 100))
    ref = worker.shared.put(volume.array, volume.affine)
    if pipe == "closed":
        session = worker.ask("open", OpenParams(ref, model)).result.session
        params = SegmentParams(session, ("everything",), streaming=True)
        worker.write(worker.client.request("segment", params)[1])
        worker.read()
    else:
        ends = worker.process.stdin.fileno(), worker.process.stdout.fileno()
        holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=ends).pid
    told = {"engine": worker.process.pid, "holder": holder, "folder": os.fspath(worker.shared.path)}
    print(json.dumps(told), flush=True)
    time.sleep(60)
