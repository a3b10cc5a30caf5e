"""Results in mid-run through the engine process: what is known so far arrives, and no file stays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from engine_processes import arrays_of, centre_of, coarse_phantom

from VISTA3DCore.engine import partial_results
from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.partial_results import Growing
from VISTA3DCore.engine.protocol import OpenParams, PartialInfo, SegmentParams
from VISTA3DCore.errors import Cancelled, InputError
from VISTA3DCore.imaging.segmentation import Partial
from VISTA3DCore.progress import Progress

STRUCTURES = ["liver", "spleen", "lung tumor"]
SHAPE = (80, 70, 60)


@pytest.mark.slow
class TestThroughTheEngineProcess:
    def test_coarse_labels_come_first_and_the_result_is_the_ordinary_one(self, engine: BlockingClient, tiny_model):
        volume, parts = coarse_phantom(SHAPE), []
        with engine.open(volume, str(tiny_model), "cpu") as session:
            found = session.segment(STRUCTURES, on_partial=parts.append, order_from=centre_of(volume), streaming=True)
            expected = session.segment(STRUCTURES, streaming=True)
            assert arrays_of(engine.shared.path) == []

        assert parts[0].fraction == 0.0
        assert [one.fraction for one in parts] == sorted(one.fraction for one in parts)
        shown = parts[0].segmentation()
        assert shown.labels.shape == volume.shape
        assert shown.structures == expected.structures
        np.testing.assert_allclose(shown.affine, volume.affine)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found["lung tumor"], expected["lung tumor"])

    def test_who_does_not_ask_gets_none_who_does_not_listen_leaves_no_file(self, engine: BlockingClient, tiny_model):
        volume = coarse_phantom(SHAPE)
        ref = engine.shared.put(volume.array, volume.affine)
        opened = engine.call("open", OpenParams(ref, str(tiny_model), device="cpu"))
        engine.shared.delete(ref.file)
        heard: list = []
        silent = SegmentParams(opened.session, ("liver",), streaming=True)

        engine.shared.delete(engine.call("segment", silent, on_partial=heard.append).labels.file)
        asking = SegmentParams(opened.session, ("liver",), streaming=True, partial=True)
        engine.shared.delete(engine.call("segment", asking).labels.file)

        assert heard == []
        assert arrays_of(engine.shared.path) == []

    def test_cancelled_in_mid_run(self, engine: BlockingClient, tiny_model):
        progress, parts = Progress(), []

        def stop(part: Partial) -> None:
            parts.append(part)
            progress.cancel()

        with engine.open(coarse_phantom(SHAPE), str(tiny_model), "cpu") as session:
            with pytest.raises(Cancelled):
                session.segment("liver", on_partial=stop, progress=progress, streaming=True)
            assert arrays_of(engine.shared.path) == []
            assert session.segment("liver").labels.any()
        assert len(parts) == 1

    def test_a_place_that_is_none_is_refused(self, engine: BlockingClient, tiny_model):
        with (
            engine.open(coarse_phantom((30, 30, 30)), str(tiny_model), "cpu") as session,
            pytest.raises(InputError, match="three finite numbers"),
        ):
            session.segment("liver", on_partial=print, order_from=(0.0, float("nan"), 0.0))


def test_results_in_mid_run_are_sent_at_once_and_then_seldom(monkeypatch):
    now, sent = [100.0], []
    monkeypatch.setattr(partial_results.time, "monotonic", lambda: now[0])

    def send(part: Partial) -> None:
        sent.append((now[0], part.fraction))
        now[0] += 0.5  # what making and writing takes

    tell = Growing(send)
    for second in range(100, 140):
        now[0] = max(now[0], float(second))
        tell(Partial((second - 100) / 40, lambda: None))

    times = [when for when, _ in sent]
    assert times[0] == 100.0
    assert all(later - earlier >= 20 * 0.5 for earlier, later in pairwise(times))
    assert len(times) >= 3


def test_a_quick_result_waits_two_seconds_all_the_same(monkeypatch):
    now, sent = [0.0], []
    monkeypatch.setattr(partial_results.time, "monotonic", lambda: now[0])
    tell = Growing(lambda _part: sent.append(now[0]))

    for step in range(1, 50):
        now[0] = step / 10
        tell(Partial(0.5, lambda: None))

    assert sent == pytest.approx([0.1, 2.1, 4.1])


def test_what_is_known_of_a_result_travels_with_the_progress():
    message = {"labels": {"file": "result-1.npy", "shape": [1, 1, 1], "dtype": "uint16"}, "masks": {}}
    info = PartialInfo.from_json({**message, "structures": [1], "fraction": 0.25})

    assert (info.labels.file, info.structures, info.fraction) == ("result-1.npy", (1,), 0.25)
