"""A cheaper step computes the same."""

from __future__ import annotations

import copy

import pytest
import torch

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.acceleration import accelerate

TINY = ModelConfig(name="tiny", width=8, blocks_down=(1, 1, 2), window=(16, 16, 16), n_classes=133)


def features_and_gradients(network, image):
    _, features = network.image_encoder(image, with_point=False, with_label=True)
    features = network.class_head.image_post_mapping(features)
    (features * torch.linspace(-1, 1, features.numel()).reshape(features.shape)).mean().backward()
    return features, {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("samples", [1, 2])
def test_features_and_gradients_are_those_of_the_plain_network(samples):
    torch.manual_seed(0)
    plain = build_network(TINY).train()
    fast = accelerate(copy.deepcopy(plain), torch.device("cpu"))
    image = torch.rand(samples, 1, 16, 16, 16)

    expected, gradients = features_and_gradients(plain, image)
    found, others = features_and_gradients(fast, image.contiguous(memory_format=torch.channels_last_3d))

    assert torch.allclose(found, expected, atol=1e-5)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max()) + 1e-8
        assert float((others[name] - gradient).abs().max()) / scale < 2e-3, name


def test_the_weights_keep_their_names_and_values():
    plain = build_network(TINY)
    fast = accelerate(copy.deepcopy(plain), torch.device("cpu"))
    state, others = plain.state_dict(), fast.state_dict()
    assert list(state) == list(others)
    assert all(torch.equal(state[name], others[name]) for name in state)
