"""Compressed streams: what went in comes out, whoever reads them."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from VISTA3DCore.imaging.formats import compression
from VISTA3DCore.imaging.formats.compression import gzipped, zlibbed

LARGE = np.repeat(np.random.default_rng(0).integers(0, 9, 120_000, dtype=np.uint8), 29).tobytes()


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=2000), max_size=12))
def test_any_data_comes_back(pieces):
    assert gzip.decompress(b"".join(gzipped(pieces))) == b"".join(pieces)
    assert zlib.decompress(b"".join(zlibbed(pieces))) == b"".join(pieces)


@pytest.mark.parametrize("threads", [1, 3])
def test_large_data_comes_back_as_one_member_whatever_the_threads(monkeypatch, threads):
    monkeypatch.setattr(compression, "available_threads", lambda: threads)
    pieces = [LARGE[start : start + 300_000] for start in range(0, len(LARGE), 300_000)]
    data = b"".join(gzipped(pieces))
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)

    assert reader.decompress(data) == LARGE
    assert reader.eof
    assert reader.unused_data == b""
    assert data == b"".join(gzipped([LARGE[:1_200_000], LARGE[1_200_000:2_400_000], LARGE[2_400_000:]]))


def test_files_are_about_as_small_as_before():
    assert len(b"".join(gzipped([LARGE]))) < 1.1 * len(gzip.compress(LARGE, 4))


def test_reading_stops_when_nobody_takes_the_data():
    taken = []

    def pieces():
        for number in range(1000):
            taken.append(number)
            yield LARGE[:1_100_000]

    stream = gzipped(pieces())
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(taken) < 100
