"""Messages to bytes and back, framed as the Language Server Protocol frames them.

A frame is ``Content-Length: N``, CR LF, an optional ``Content-Type`` line, an empty line, and N bytes of JSON in UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from VISTA3DCore.engine.errors import FramingError

HEADER_LIMIT = 4 * 1024
MESSAGE_LIMIT = 16 * 1024 * 1024

_END = b"\r\n\r\n"
_FIELD_START = b"content-"
_LENGTH = re.compile(rb"content-length: *([0-9]{1,12}) *", re.IGNORECASE)
_TYPE = re.compile(rb"content-type: *[ -~]* *", re.IGNORECASE)
_CHARSET = re.compile(rb"charset *= *\"?([^\";]*)", re.IGNORECASE)


def encode(message: dict[str, Any]) -> bytes:
    """Return the frame of a message.

    :raises FramingError: if it is too long or holds something that JSON cannot (NaN, infinity, an array).
    """
    try:
        # Plain ASCII, so that even a lone surrogate in a file's name travels.
        body = json.dumps(message, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise FramingError(f"The message cannot be written as JSON ({error}).") from error
    if len(body) > MESSAGE_LIMIT:
        raise FramingError(f"The message has {len(body)} bytes; at most {MESSAGE_LIMIT} are allowed.")
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class FrameReader:
    """Cuts a stream of bytes into messages, however the bytes are split."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body: int | None = None
        self._error: FramingError | None = None

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two frames."""
        return not self._buffer and self._body is None

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take bytes and return the messages that they complete.

        :raises FramingError: at the first byte that cannot belong to a frame, and at every later call. Messages that
            were complete before it are in the error's ``messages``.
        """
        if self._error is not None:
            raise FramingError(str(self._error))
        self._buffer += data
        messages: list[dict[str, Any]] = []
        try:
            while (message := self._next()) is not None:
                messages.append(message)
        except FramingError as error:
            self._error, self._buffer = error, bytearray()
            error.messages = messages
            raise
        return messages

    def _next(self) -> dict[str, Any] | None:
        if self._body is None:
            self._body = self._take_header()
        if self._body is None or len(self._buffer) < self._body:
            return None
        body = bytes(self._buffer[: self._body])
        del self._buffer[: self._body]
        self._body = None
        return _parse(body)

    def _take_header(self) -> int | None:
        """Return the length of the body once the header is complete."""
        end = self._buffer.find(_END, 0, HEADER_LIMIT)
        if end < 0:
            _check_beginning(self._buffer)
            return None
        header = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END)]
        return _body_length(header)


def _check_beginning(buffer: bytearray) -> None:
    """Refuse garbage at once instead of waiting for the end of a header that never comes."""
    if len(buffer) >= HEADER_LIMIT:
        raise FramingError(f"The header of a frame is longer than {HEADER_LIMIT} bytes.")
    # The end of the header may have begun to arrive.
    for line in bytes(buffer).removesuffix(b"\r").split(b"\r\n"):
        start = line[: len(_FIELD_START)].lower()
        if start != _FIELD_START[: len(start)] or b"\n" in line:
            _refuse(line)


def _body_length(header: bytes) -> int:
    length = None
    for line in header.split(b"\r\n"):
        if (found := _LENGTH.fullmatch(line)) and length is None:
            length = int(found[1])
        elif not _TYPE.fullmatch(line) or not _is_utf8(line):
            _refuse(line)
    if length is None:
        raise FramingError("The header of a frame has no Content-Length.")
    if length > MESSAGE_LIMIT:
        raise FramingError(f"A message of {length} bytes was announced; at most {MESSAGE_LIMIT} are allowed.")
    return length


def _is_utf8(content_type: bytes) -> bool:
    charset = _CHARSET.search(content_type)
    return charset is None or charset[1].strip().lower() in (b"utf-8", b"utf8")


def _refuse(line: bytes) -> NoReturn:
    raise FramingError(f"{line[:40]!r} is no header of a frame.")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FramingError(f"A message is not valid JSON in UTF-8 ({str(error)[:100]}).") from error
    if not isinstance(message, dict):
        raise FramingError("A message is not a JSON object; batches are not supported.")
    return message


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
