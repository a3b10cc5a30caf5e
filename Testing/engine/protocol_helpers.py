"""A stand-in for the engine process: speaks the protocol with the standard library alone and misbehaves on request."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from manual_client import ManualClient

from VISTA3DCore.engine import protocol
from VISTA3DCore.engine.framing import MESSAGE_LIMIT, encode
from VISTA3DCore.engine.transports import ChildProcess

AFFINE = np.diag([-1.5, -1.5, 2.0, 1.0])
MEMORY = protocol.Memory(2**34, 2**33)
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no permission bits and no links without privileges")

# The child's orders come as the model's name (load, open) or as the structure's (segment, click):
# crash, mute (never answers), exit, garbage, noise (prints to its log), slow (until it is cancelled), forget.
CHILD = r"""
import json, os, struct, sys, threading, time

PLAN = sys.argv[1] if len(sys.argv) > 1 else ""     # what to do instead of the handshake
ONCE = sys.argv[2] if len(sys.argv) > 2 else ""     # a file that is made by the first process that follows the plan
out, lock, cancelled, state = os.fdopen(os.dup(1), "wb"), threading.Lock(), set(), {"sessions": {}, "results": 0}


def send(**message):
    body = json.dumps({"jsonrpc": "2.0", **message}).encode()
    with lock:
        out.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        out.flush()


def frames():
    stream = sys.stdin.buffer
    while True:
        length = None
        while (line := stream.readline()).strip():
            length = int(line.split(b":")[1])
        if length is None:
            return
        yield json.loads(stream.read(length))


def array(shape, descr, data):
    state["results"] += 1
    name = f"result-{os.getpid()}-{state['results']}.npy"
    header = str({"descr": descr, "fortran_order": False, "shape": tuple(shape)}).encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    path = os.path.join(state["folder"], name)
    with open(path + ".part", "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    os.replace(path + ".part", path)
    return {"file": name, "shape": list(shape), "dtype": {"<u2": "uint16", "|b1": "bool"}[descr], "affine": None}


def misbehave(order):
    if order == "crash":
        os.kill(os.getpid(), 9) if os.name == "posix" else os._exit(9)
    if order == "exit":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
    if order == "garbage":
        with lock:
            out.write(b"Segmentation fault (core dumped)\r\n")
            out.flush()
    if order in ("garbage", "mute"):
        time.sleep(3600)


def initialize(params):
    state["folder"] = params["shared_directory"]
    if PLAN and not (ONCE and os.path.exists(ONCE)):
        ONCE and open(ONCE, "w").close()
        if PLAN == "refuse":
            raise ValueError(-32010, "unsupported-version", "This engine speaks protocol version 2; update the client.")
        misbehave(PLAN)
    memory = {"total": 2, "available": 1, "device_total": None, "device_available": None}
    return {"protocol_version": 1, "engine_version": "0", "pid": os.getpid(), "device": "cpu", "device_reason": "",
            "memory": memory, "models": []}


def load(params):
    misbehave(params["model"])
    state["model"] = params["model"]
    return {"model": params["model"], "device": "cpu", "device_reason": "", "available": [1, 3], "click_branch": True,
            "label_set": "vista3d-ct", "provenance": {}}


def open_(params):
    path = os.path.join(state["folder"], params["volume"]["file"])
    if not os.path.exists(path):
        raise ValueError(-32001, "input", "The volume's file is gone.")
    if params["model"] == "crash-again":
        seen = os.path.join(os.path.dirname(sys.argv[0]), "seen")
        if os.path.exists(seen):
            misbehave("crash")
        open(seen, "w").close()
    session = f"s{len(state['sessions']) + 1}-{os.getpid()}"
    state["sessions"][session] = params["volume"]["shape"]
    notify("$/notice", message="A notice.")
    return {"session": session, "model_shape": [4, 4, 4], "notes": ["A note."]}


def shape_of(params):
    if params["session"] not in state["sessions"]:
        raise ValueError(-32012, "unknown-session", "The volume is not open in the engine; open it again.")
    return state["sessions"][params["session"]]


def segment(params):
    shape, order = shape_of(params), params["structures"][0]
    misbehave(order)
    if order == "forget":
        state["sessions"].clear()
    if order == "unknown":
        raise ValueError(-32002, "unknown-structure", "There is no structure 'unknown'.")
    step = 0
    while order == "slow":
        step += 1
        notify("$/progress", id=params["id"], fraction=0.5, stage="Working", message=f"window {step}", remaining_s=None)
        time.sleep(0.01)
        if params["id"] in cancelled:
            raise ValueError(-32008, "cancelled", "Canceled; nothing was changed.")
    count = shape[0] * shape[1] * shape[2]
    return {"labels": array(shape, "<u2", b"\1\0" * count), "masks": {"3": array(shape, "|b1", b"\1" * count)},
            "structures": [1, 3], "provenance": {"model": state["model"]}, "notes": []}


def click(params):
    shape_of(params)
    misbehave(params["structure"])
    base = params["base"] and params["base"]["file"]
    patch = array([1, 2, 1], "|b1", b"\1\0") if params["structure"] != "nothing" else None
    return {"box": [[0, 1], [1, 3], [2, 3]] if patch else [[0, 0]] * 3, "patch": patch,
            "touched": [True] * len(params["clicks"]), "encoded": len(base or ""), "structure": 1}


def status(params):
    memory = {"total": 2, "available": 1, "device_total": None, "device_available": None}
    return {"sessions": list(state["sessions"]), "memory": memory, "queue": 0, "busy": None}


def close(params):
    shape_of(params)
    del state["sessions"][params["session"]]


METHODS = {"initialize": initialize, "load": load, "open": open_, "segment": segment, "click": click,
           "status": status, "close": close, "shutdown": lambda params: None}


def notify(method, **params):
    send(method=method, params=params)


def answer(message):
    try:
        result = METHODS[message["method"]](dict(message["params"], **({"id": message["id"]})))
        send(id=message["id"], result=result)
    except ValueError as error:
        number, word, sentence = error.args
        send(id=message["id"], error={"code": number, "message": sentence, "data": {"code": word, "exit_code": 3}})
    if message["method"] == "shutdown":
        os._exit(0)


for message in frames():
    if message["method"] == "$/cancelRequest":
        cancelled.add(message["params"]["id"])
    elif message["method"] != "exit":
        threading.Thread(target=answer, args=(message,), daemon=True).start()
os._exit(0)
"""


# Streams that end a connection, in the middle of what is right.
VIOLATIONS = [
    b"Traceback (most recent call last):",
    b"Content-Length: %d\r\n\r\n" % (MESSAGE_LIMIT + 1),
    encode({}),
    encode({"jsonrpc": "2.0", "id": 1}),
    encode({"jsonrpc": "2.0", "id": 1, "method": "status"}),
    encode({"jsonrpc": "2.0", "method": "$/progress", "params": {"id": 1}}),
    encode({"jsonrpc": "2.0", "method": "$/notice", "params": {"message": 1}}),
    encode(protocol.error_message(None, protocol.ProtocolError("It is no frame."))),
]


def with_three() -> ManualClient:
    """Return a client with the open requests 1, 2 and 3; only the first one's result is not null."""
    client = ManualClient()
    for method in ("status", "close", "shutdown"):
        client.request(method)
    return client


def child(folder: Path, *arguments: str, **options: object) -> ChildProcess:
    """Return the stand-in as a transport that is not started; see CHILD for the arguments."""
    script = folder / "child.py"
    if not script.exists():
        script.write_text(CHILD, encoding="utf-8")
    return ChildProcess([sys.executable, "-S", str(script), *map(str, arguments)], **options)


def wait_until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for something, or fail."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@contextmanager
def nothing_left(base: Path) -> Iterator[None]:
    """Check that no process, thread, descriptor, or file in ``base`` stays behind."""
    me = psutil.Process()
    before = {one.pid for one in me.children(recursive=True)}
    yield
    wait_until(lambda: {one.pid for one in me.children(recursive=True)} <= before)
    wait_until(lambda: not list(base.glob("vista3d-arrays-*")))
