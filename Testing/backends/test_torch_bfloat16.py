"""PyTorch in bfloat16 on a processor: close to float32, in the same interface; float32 where the processor lacks it."""

from __future__ import annotations

import pytest
import torch
from runtime_cases import SMALL, distance, network_of, patch_of

from VISTA3DCore.backends import processor
from VISTA3DCore.backends.selection import choose_backend
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.backends.torch_bfloat16 import BFloat16Backend
from VISTA3DCore.errors import SlowerWarning
from VISTA3DCore.network.click_head import ClickTokens

NETWORK, PATCH = network_of(), patch_of()
TORCH = TorchBackend(NETWORK, SMALL)


@pytest.fixture(scope="module")
def backend() -> BFloat16Backend:
    return BFloat16Backend(NETWORK, SMALL)


def test_features_are_those_of_float32_roughly_and_come_in_float32(backend):
    found, expected = backend.automatic_features(PATCH), TORCH.automatic_features(PATCH)

    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert 0 < distance(found, expected) < 0.05


def test_clicks_are_answered_as_in_float32_roughly(backend):
    tokens = ClickTokens(((16.0, 16.0, 16.0),), (True,))
    found, expected = backend.click_features(PATCH), TORCH.click_features(PATCH)

    assert distance(found, expected) < 0.05
    assert distance(backend.click_scores(found, tokens), TORCH.click_scores(expected, tokens)) < 0.1


def test_the_given_network_stays_in_float32(backend):
    assert {tensor.dtype for tensor in NETWORK.parameters()} == {torch.float32}
    assert torch.equal(backend.class_matrix([1, 2]), TORCH.class_matrix([1, 2]))


def test_large_offsets_do_not_spoil_the_statistics(backend):
    """Sums over a window in bfloat16 would be off by whole units; the features of a shifted image barely change."""
    shifted = PATCH + 4.0

    assert distance(backend.automatic_features(shifted), TORCH.automatic_features(shifted)) < 0.1


@pytest.mark.parametrize(
    ("precision", "has_it", "expected"),
    [
        ("bfloat16", True, "bfloat16"),
        ("bfloat16", False, "float32"),
        ("float16", True, "float32"),
    ],
)
def test_what_the_processor_lacks_is_float32_with_a_sentence(monkeypatch, precision, has_it, expected):
    monkeypatch.setattr(processor, "has_bfloat16", lambda: has_it)
    if expected == precision:
        chosen, _ = choose_backend(NETWORK, SMALL, "cpu", "torch", precision)
    else:
        with pytest.warns(SlowerWarning, match="float32 is used instead"):
            chosen, _ = choose_backend(NETWORK, SMALL, "cpu", "torch", precision)

    assert (chosen.runtime, chosen.precision) == ("torch", expected)
