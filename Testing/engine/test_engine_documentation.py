"""Documentation/protocol.md describes what the code does: every method, field and error; its examples are valid."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from manual_client import ManualClient

from VISTA3DCore.engine import errors as engine_errors
from VISTA3DCore.engine.framing import FrameReader, encode
from VISTA3DCore.engine.protocol import (
    METHODS,
    NOTIFICATIONS,
    PROTOCOL_VERSION,
    ArrayRef,
    Notification,
    Request,
    error_from,
    exception_from,
    read_message,
)
from VISTA3DCore.errors import VistaError

PAGE = (Path(__file__).resolve().parents[2] / "Documentation" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = [
    json.loads(line) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def section(title: str) -> str:
    return re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, re.DOTALL | re.MULTILINE)[1]


@pytest.mark.parametrize("method", METHODS)
def test_every_field_of_every_method_is_described(method):
    text = section(method)
    types = [kind for kind in METHODS[method] if kind is not None]

    for name in {one.name for kind in types for one in fields(kind)}:
        assert re.search(rf"[`\"]{name}[`\"]", text), name


def test_every_notification_and_error_is_described():
    for method, params in NOTIFICATIONS.items():
        (row,) = re.findall(rf"^\| `{re.escape(method)}` .*$", section("Notifications"), re.MULTILINE)
        assert all(f"`{one.name}`" in row for one in fields(params))
    rows = re.findall(r"^\| (-\d+) \| `([a-z-]+)` \|", section("Errors"), re.MULTILINE)
    assert {word: int(number) for number, word in rows} == {
        kind.code: kind.number
        for kind in VistaError.by_code.values()
        if kind.__module__ in (VistaError.__module__, engine_errors.__name__)
    }
    assert f"Protocol version: **{PROTOCOL_VERSION}**" in PAGE


def test_the_example_of_a_frame_is_one():
    text = re.search(r"```\n(Content-Length.*?)```", PAGE, re.DOTALL)[1]
    data = text.replace("\n", "").replace("\\r", "\r").replace("\\n", "\n").encode()

    assert FrameReader().feed(data) == [{"jsonrpc": "2.0", "id": 7, "method": "status", "params": {}}]


def test_the_example_of_an_array_is_one():
    text = re.search(r"^\{\"file\".*$", PAGE, re.MULTILINE)[0]

    assert ArrayRef.from_json(json.loads(text)).dtype == "int16"


def test_the_conversation_is_one():
    client, asked = ManualClient(), {}
    for message in EXAMPLES[1:]:
        read = read_message(message)
        if isinstance(read, Request):
            asked[read.id] = read.method
            identity, _ = client.request(read.method, read.parsed())
            assert identity == read.id
        elif isinstance(read, Notification):
            NOTIFICATIONS[read.method].from_json(read.params)
        else:
            (event,) = client.receive(encode(message))
            assert event.id == read.id
            error = getattr(event, "error", None)
            assert error is None or error_from(error) == read.error
    assert set(asked.values()) <= set(METHODS)
    assert not client.has_pending


def test_the_example_of_an_error_is_one():
    error = EXAMPLES[0]["error"]

    assert error_from(exception_from(error)) == error
