"""The counted work of the network is that of the released model, by hand and from its paper's code."""

from __future__ import annotations

import pytest
from beside_reference.effort import effort_of
from beside_reference.work import network_work

from VISTA3DCore.network.config import ModelConfig


@pytest.fixture(scope="module")
def work():
    return network_work(ModelConfig())


def test_the_parts_of_a_released_window_in_gflop(work):
    gflop = {name: part.flops / 1e9 for name, part in vars(work).items()}

    # 4 convolutions 48 -> 48 and their two blocks at 128^3 make 1,043.7 of the automatic branch's 2,154.1.
    assert gflop["encoder"] == pytest.approx(1823.7, rel=1e-3)
    assert gflop["automatic"] == pytest.approx(1110.4 + 1043.7, rel=1e-3)
    assert gflop["one_class"] == pytest.approx(2 * 48 * 128**3 / 1e9)
    assert gflop["click_encoding"] == pytest.approx(1110.4 + 65.2, rel=1e-3)
    assert gflop["click_cached"] == pytest.approx(44.5, rel=0.05)


def test_whole_windows_in_tflop(work):
    assert work.reference_window(117).flops / 1e12 == pytest.approx(4.001, rel=1e-3)
    assert work.features.flops / 1e12 == pytest.approx(3.978, rel=1e-3)
    assert work.first_click.flops / 1e12 == pytest.approx(3.04, rel=5e-3)
    assert work.reference_click.flops / 1e12 == pytest.approx(3.30, rel=5e-3)


def test_everything_needs_every_window_and_a_cached_click_only_the_head(work):
    config = ModelConfig()
    facts = {"model_shape": [267, 267, 400]}

    assert effort_of("ours", "everything", facts, config, work, 117).flops == 36 * work.features.flops
    assert effort_of("reference", "everything", facts, config, work, 117).flops == 36 * work.reference_window(117).flops
    assert effort_of("ours", "click 5", {"windows_encoded": 0}, config, work, 117) == work.click_cached
    assert effort_of("reference", "click 5", {"windows_encoded": 5}, config, work, 117) == work.reference_click * 5
    assert effort_of("ours", "second class", {}, config, work, 117) is None


def test_the_least_traffic_of_a_released_window_in_half_precision(work):
    # Convolutions alone, each reading its input and weights and writing its output once.
    assert work.features.values * 2 / 1e9 == pytest.approx(5.7, rel=0.01)
