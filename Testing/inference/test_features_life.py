"""The features of a run are the most that it holds: they go as soon as the last of them is labelled."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from threshold_backend import LIVER, ThresholdBackend

from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic import feature_map
from VISTA3DCore.inference.automatic.block_sums import BlockSums
from VISTA3DCore.inference.automatic.resample_to_input import NearestRestorer
from VISTA3DCore.inference.segmenter import Segmenter


@pytest.fixture(autouse=True)
def _without_the_garbage_collector() -> Iterator[None]:
    """What goes only with its help stays for minutes in a real process."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("options", [{}, {"on_partial": lambda _part: None}, {"roi": (-60, -60, -60, 60, 60, 60)}])
def test_sums_are_gone_when_the_result_is_made(monkeypatch, options):
    sums, alive = weakref.WeakSet(), []
    for kind in (feature_map.Slab, BlockSums):
        monkeypatch.setattr(kind, "finish" if kind is feature_map.Slab else "close", noting(kind, sums))
    result = NearestRestorer.result

    def looking(self: NearestRestorer, progress: object) -> object:
        if self.map.labels.shape[0] > 20:  # not the coarse look
            alive.append(len(sums))
        return result(self, progress)

    monkeypatch.setattr(NearestRestorer, "result", looking)
    array = np.random.default_rng(0).integers(-900, 900, (64, 48, 80)).astype(np.int16)
    with Segmenter(ThresholdBackend()).open(Volume(array, np.diag([3.0, 3.0, 3.0, 1.0]))) as session:
        found = session.segment([LIVER], streaming=True, **options)

    assert found.labels.any()
    assert set(alive) == {0}


def noting(kind: type, seen: weakref.WeakSet) -> object:
    """Return a method that notes whose it is before it does what it always does."""
    original = getattr(kind, "finish" if kind is feature_map.Slab else "close")

    def method(self: object, *arguments: object) -> object:
        seen.add(self)
        return original(self, *arguments)

    return method
