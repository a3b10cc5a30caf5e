"""The engine process with the runtime that it chooses by itself, beside PyTorch in this process."""

from __future__ import annotations

import os

import numpy as np
import pytest
from engine_processes import centre_of, coarse_phantom

from VISTA3DCore.engine.blocking_client import BlockingClient
from VISTA3DCore.engine.transports import ChildProcess
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.inference.segmenter import Segmenter

pytestmark = pytest.mark.slow

STRUCTURES = [1, 3, 5, 14, 23]


def test_on_a_processor_openvino_answers_as_pytorch_does(tiny_model):
    pytest.importorskip("openvino")
    volume = coarse_phantom((60, 50, 40))
    clicks = [Click(centre_of(volume))]
    environment = {name: value for name, value in os.environ.items() if name != "VISTA3D_RUNTIME"}
    with BlockingClient(ChildProcess(None, environment)) as engine:
        loaded = engine.load(str(tiny_model), "cpu")
        with engine.open(volume, str(tiny_model), "cpu") as session:
            found, clicked = session.segment(STRUCTURES), session.click("lung tumor", clicks)

    assert (loaded.runtime, loaded.precision) == ("openvino", "float32")
    with Segmenter.from_pretrained(tiny_model, "cpu", runtime="torch").open(volume) as session:
        expected, clicked_there = session.segment(STRUCTURES), session.click("lung tumor", clicks)
    assert expected.labels.any()
    assert np.mean(found.labels == expected.labels) >= 0.999
    assert np.mean(found["lung tumor"] == expected["lung tumor"]) >= 0.999
    assert np.mean(clicked.mask == clicked_there.mask) >= 0.999
