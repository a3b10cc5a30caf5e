"""gzip and zlib streams, compressed piece by piece in several threads.

Pieces of a megabyte are deflated independently of each other and joined by sync flushes into one ordinary stream, as
pigz does it, so every reader of gzip reads it. The bytes do not depend on the number of threads.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

# For label maps level 3 takes half the time of level 4 and gives smaller files (zlib changes its method between them);
# higher levels take longer still.
_LEVEL = 3
_PIECE_BYTES = 1 << 20
_MOST_THREADS = 8
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # deflate, no name, no time, unknown system
_ZLIB_HEADER = b"\x78\x5e"  # deflate, 32 kB window, fast
_LAST_BLOCK = b"\x03\0"  # empty, marked as the last one


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress data that comes in pieces to one gzip member, in bounded memory."""
    check = _Check(zlib.crc32, 0)
    yield _GZIP_HEADER
    yield from _deflated(check.watch(pieces))
    yield struct.pack("<2I", check.value, check.length & 0xFFFFFFFF)


def zlibbed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress data that comes in pieces to one zlib stream, in bounded memory."""
    check = _Check(zlib.adler32, 1)
    yield _ZLIB_HEADER
    yield from _deflated(check.watch(pieces))
    yield struct.pack(">I", check.value)


class _Check:
    """The checksum and the length of what passes by."""

    def __init__(self, function: Callable[[bytes, int], int], start: int) -> None:
        self._function, self.value, self.length = function, start, 0

    def watch(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.value = self._function(piece, self.value)
            self.length += len(piece)
            yield piece


def _deflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Deflate pieces in order; at most two for each thread are in memory."""
    threads = available_threads()
    with ThreadPoolExecutor(threads, "compression") as pool:
        waiting: deque[Future[bytes]] = deque()
        for piece in _joined(pieces):
            waiting.append(pool.submit(_deflate, piece))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
    yield _LAST_BLOCK


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces to ones of about a megabyte."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _deflate(piece: bytes) -> bytes:
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    return compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)


def available_threads() -> int:
    """Return how many threads are worth starting: the processors that this process may use, at most eight."""
    may_use = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(may_use, _MOST_THREADS)
