"""A cheaper step computes the same, and decoders can begin as others."""

from __future__ import annotations

import copy

import pytest
import torch

from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.acceleration import accelerate
from VISTA3DCore.training.initialisation import copy_class_decoder, expect_background

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


def test_the_click_decoder_begins_as_the_class_decoder():
    network = build_network(ModelConfig(name="t", width=8, click_width=16, blocks_down=(1, 1, 2), window=(16,) * 3))
    head = network.image_encoder.up_layers[-1]["head"].weight.clone()
    copy_class_decoder(network)
    learned = network.image_encoder.up_layers_auto.state_dict()
    for name, value in network.image_encoder.up_layers.state_dict().items():
        assert "head" in name or torch.equal(value, learned[name])
    assert torch.equal(network.image_encoder.up_layers[-1]["head"].weight, head)


def test_every_class_begins_as_denied():
    torch.manual_seed(0)
    network = build_network(TINY)
    image = torch.rand(1, 1, 16, 16, 16)
    expect_background(network, image, -5.0)
    _, features = network.image_encoder(image, with_point=False, with_label=True)
    features = network.class_head.image_post_mapping(features)
    vectors = network.class_head.mlp(network.class_head.class_embeddings(torch.arange(1, 40)[:, None]))[:, 0]
    scores = torch.einsum("kc,cxyz->kxyz", vectors, features[0])
    assert -7 < scores.mean() < -3
