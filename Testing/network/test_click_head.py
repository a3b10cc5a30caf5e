"""The interactive head in three steps gives what MONAI's network gives in one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.network.architecture import build_network
from VISTA3DCore.network.click_head import ClickHead, ClickTokens
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.network.folding import folded_convolution, folded_tail

NARROW = ModelConfig(width=16, blocks_down=(1, 1, 1), window=(32, 32, 32))
CONFIGS = {
    "narrow": NARROW,
    "narrower": replace(NARROW, width=8),
    "wider clicks": replace(NARROW, width=8, click_width=24),
    "not a cube": replace(NARROW, window=(32, 24, 40)),
}
INSIDE, CORNER, FAR_CORNER, OFF_CENTRE = (12.0, 20.0, 9.0), (0.0, 0.0, 0.0), (31.0, 23.0, 31.0), (3.4, 17.75, 22.1)
TOKENS = {
    "one click": ClickTokens((INSIDE,), (True,)),
    "several": ClickTokens((INSIDE, OFF_CENTRE, CORNER), (True, False, True)),
    "special": ClickTokens((INSIDE, OFF_CENTRE), (True, False), special=True),
    "zero-shot": ClickTokens((OFF_CENTRE, FAR_CORNER), (True, False), zero_shot=True),
    "negative alone": ClickTokens((OFF_CENTRE,), (False,)),
    "between voxels and before the first": ClickTokens(((-0.5, 10.5, 31.49),), (True,)),
    "ten": ClickTokens(tuple((3.0 * n, 2.0 * n, 31.0 - 3 * n) for n in range(10)), (True, False) * 5),
}
# Any index above 132 is an unknown object to the network, any other one a known structure.
KNOWN, UNKNOWN = 1, 200


def network_of(config: ModelConfig, seed: int = 0) -> torch.nn.Module:
    """Return a network with random weights, embeddings included, that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(config)


def patch_of(config: ModelConfig, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 1, *config.window, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def reference_scores(network: torch.nn.Module, patch: torch.Tensor, tokens: ClickTokens) -> torch.Tensor:
    """Return what MONAI's forward pass answers to clicks alone, [w, w, w]."""
    coordinates, labels, zero_shot = tokens.tensors()
    prompt_class = torch.tensor([[UNKNOWN if zero_shot else KNOWN]])
    return network(patch, point_coords=coordinates, point_labels=labels, prompt_class=prompt_class)[0, 0]


def compare(config: ModelConfig, tokens: ClickTokens, seed: int = 0) -> None:
    network, patch = network_of(config, seed), patch_of(config, seed)
    backend = TorchBackend(network, config)
    expected = reference_scores(network, patch, tokens)
    found = backend.click_scores(backend.click_features(patch), tokens)
    assert found.shape == config.window
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("tokens", TOKENS.values(), ids=TOKENS)
def test_scores_equal_the_networks_own_forward_pass(tokens):
    compare(CONFIGS["narrower"], tokens)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_other_widths_and_windows(config):
    compare(config, TOKENS["several"], seed=1)


def test_what_the_image_knows_can_be_prepared_once_for_many_answers():
    backend, patch = TorchBackend(network_of(NARROW), NARROW), patch_of(NARROW)
    features = backend.click_features(patch)
    assert features.shape == (16, 16, 16, 16)
    assert features.dtype == torch.float32
    side = backend.click_image(features)
    for tokens in TOKENS.values():
        torch.testing.assert_close(
            backend.click_scores(side, tokens), backend.click_scores(features, tokens), atol=0, rtol=0
        )


def test_kept_half_precision_features_answer_nearly_the_same():
    backend, patch = TorchBackend(network_of(NARROW), NARROW), patch_of(NARROW)
    features = backend.click_features(patch)
    exact = backend.click_scores(features, TOKENS["several"])
    halved = backend.click_scores(features.half(), TOKENS["several"])
    assert halved.dtype == torch.float32
    assert 0 < (halved - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("other", ["special", "zero-shot"])
def test_what_kind_of_object_is_meant_changes_the_answer(other):
    backend, patch = TorchBackend(network_of(NARROW), NARROW), patch_of(NARROW)
    features, tokens = backend.click_features(patch), TOKENS["several"]
    kinds = {"special": replace(tokens, special=True), "zero-shot": replace(tokens, zero_shot=True)}
    difference = backend.click_scores(features, kinds[other]) - backend.click_scores(features, tokens)
    assert difference.abs().max() > 1e-3


@pytest.fixture(scope="module")
def prompts() -> dict[str, torch.Tensor]:
    """Five objects with ordinary, special, padded and unknown prompts, as training has them."""
    coordinates = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(3)) * 16 - 0.5
    labels = torch.tensor([[1, 0, -1, -1], [3, 2, 2, 3], [1, -1, -1, -1], [-1, -1, -1, -1], [0, 0, 1, 1]])
    return {"coordinates": coordinates, "labels": labels, "classes": torch.tensor([1, 26, 200, 3, 513])}


def decoded_of(width: int = 16, side: int = 16) -> torch.Tensor:
    return torch.randn(1, width, side, side, side, generator=torch.Generator().manual_seed(4))


def unfolded(network: torch.nn.Module, decoded: torch.Tensor, prompts: dict, rows: slice) -> torch.Tensor:
    coordinates, labels, classes = (prompts[name][rows] for name in ("coordinates", "labels", "classes"))
    return network.point_head(decoded, coordinates, labels, class_vector=classes)[:, 0]


def folded(network: torch.nn.Module, decoded: torch.Tensor, prompts: dict, rows: slice) -> torch.Tensor:
    head = ClickHead(network.point_head)
    side = head.image_side(head.features(decoded))
    return head.scores(side, prompts["coordinates"][rows], prompts["labels"][rows], prompts["classes"][rows] > 132)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 4), slice(0, 5)], ids=["one", "padding", "several"])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_folded_and_unfolded_heads_agree(prompts, rows, training):
    network = network_of(NARROW).train(training)
    with torch.set_grad_enabled(training):
        expected = unfolded(network, decoded_of(), prompts, rows)
        found = folded(network, decoded_of(), prompts, rows)
    assert found.requires_grad == training
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


class WrittenOut(torch.nn.Module):
    """Instance normalisation in elementary steps, whose gradient torch computes rightly in any memory layout."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.mean((2, 3, 4), keepdim=True)
        variance = image.var((2, 3, 4), keepdim=True, unbiased=False)
        return (image - mean) * torch.rsqrt(variance + 1e-5)


def written_out(network: torch.nn.Module) -> torch.nn.Module:
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.InstanceNorm3d):
                setattr(module, name, WrittenOut())
    return network


def gradients_of(network: torch.nn.Module, answer, prompts: dict, rows: slice) -> dict[str, torch.Tensor]:
    decoded = network.train().image_encoder(patch_of(NARROW), with_point=True, with_label=False)[0]
    scores = answer(network, decoded, prompts, rows)
    (scores - torch.linspace(-1, 1, scores.numel()).view_as(scores)).square().mean().backward()
    return {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 5)], ids=["one", "several"])
def test_the_folded_head_and_what_lies_before_it_learn_what_they_should(prompts, rows):
    """Torch's own gradient through the unfolded head is wrong on CPUs, see ``ClickHead.features``."""
    expected = gradients_of(written_out(network_of(NARROW)), unfolded, prompts, rows)
    found = gradients_of(network_of(NARROW), folded, prompts, rows)
    assert sum(name.startswith("image_encoder.") for name in expected) > 10
    # A bias before a normalisation has no effect: its gradient is rounding.
    scales = {name: gradient.abs().max().item() for name, gradient in expected.items() if gradient.abs().max() > 1e-6}
    assert len(scales) > 0.8 * len(expected)
    for name, scale in scales.items():
        gradient = expected[name]
        torch.testing.assert_close(found[name] / scale, gradient / scale, atol=1e-3, rtol=0, msg=name)


def test_more_objects_than_the_reference_takes_at_once():
    network, many = network_of(NARROW), 33
    prompts = {
        "coordinates": torch.rand(many, 1, 3, generator=torch.Generator().manual_seed(5)) * 15,
        "labels": torch.ones(many, 1, dtype=torch.long),
        "classes": torch.ones(many, dtype=torch.long),
    }
    with torch.inference_mode():
        expected, found = (answer(network, decoded_of(), prompts, slice(None)) for answer in (unfolded, folded))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(7, 5, 6), (4, 1, 3), (1, 1, 1), (9, 12, 2)])
def test_the_quick_convolutions_are_convolutions(shape):
    generator = torch.Generator().manual_seed(6)
    upscaled = torch.randn(2, 8, *shape, generator=generator)
    kernel, bias = torch.randn(2, 8, 3, 3, 3, generator=generator), torch.randn(2, generator=generator)
    expected = torch.stack(
        [torch.conv3d(upscaled[n], kernel[n : n + 1], bias[n : n + 1], padding=1)[0] for n in (0, 1)]
    )
    torch.testing.assert_close(folded_convolution(upscaled, kernel, bias), expected, atol=2e-5, rtol=1e-5)
    whole = torch.nn.Sequential(torch.nn.InstanceNorm3d(8), torch.nn.GELU())
    last = upscaled[:1].to(memory_format=torch.channels_last_3d) * 3 + 5
    if last[0, 0].numel() > 1:  # a single voxel has no variance
        expected = folded_convolution(whole(last), kernel[:1], bias[:1])
        torch.testing.assert_close(folded_tail(last, kernel[:1], bias[:1], 1e-5), expected, atol=5e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_released_architecture_at_full_size():
    config = ModelConfig()
    network, patch = network_of(config), patch_of(config)
    backend = TorchBackend(network, config)
    tokens = ClickTokens(((64.0, 64.0, 64.0), (30.5, 90.0, 127.0)), (True, False), special=True)
    found = backend.click_scores(backend.click_features(patch), tokens)
    torch.testing.assert_close(found, reference_scores(network, patch, tokens), atol=1e-4, rtol=0)
