"""The network rebuilt of fused steps is the network."""

from __future__ import annotations

import pytest
import torch
from test_click_head import CONFIGS, NARROW, network_of, patch_of

from VISTA3DCore.backends.cuda.fused_network import Rebuilder, UnknownLayerError
from VISTA3DCore.backends.cuda.kernels.choice import kernels_for
from VISTA3DCore.network.config import ModelConfig

CPU = torch.device("cpu")
DEEP = ModelConfig(width=8, blocks_down=(1, 2, 1, 2, 1), window=(32, 32, 48))


def rebuilder(dtype: torch.dtype = torch.float32, memory_format: torch.memory_format = torch.channels_last_3d):
    return Rebuilder(kernels_for(CPU), CPU, dtype, memory_format)


@torch.inference_mode()
def rebuilt(network, patch: torch.Tensor, branch: str, **options) -> torch.Tensor:
    build, encoder = rebuilder(**options), network.image_encoder
    layers = encoder.up_layers_auto if branch == "automatic" else encoder.up_layers
    tail = network.class_head.image_post_mapping if branch == "automatic" else network.point_head.feat_downsample
    return build.decoder(layers, tail)(build.encoder(encoder.encoder)(patch))


@torch.inference_mode()
def original(network, patch: torch.Tensor, branch: str) -> torch.Tensor:
    clicks = branch == "clicks"
    decoded = network.image_encoder(patch, with_point=clicks, with_label=not clicks)[0 if clicks else 1]
    return network.point_head.feat_downsample(decoded) if clicks else network.class_head.image_post_mapping(decoded)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("config", [*CONFIGS.values(), DEEP], ids=[*CONFIGS, "deep"])
@pytest.mark.parametrize("branch", ["automatic", "clicks"])
def test_it_gives_what_the_network_gives(config, branch):
    network, patch = network_of(config), patch_of(config)
    assert relative_difference(rebuilt(network, patch, branch), original(network, patch, branch)) < 1e-5


@pytest.mark.parametrize("memory_format", [torch.channels_last_3d, torch.contiguous_format], ids=["last", "first"])
def test_windows_in_a_batch_do_not_see_each_other(memory_format):
    network, windows = network_of(NARROW), torch.cat([patch_of(NARROW, seed) for seed in range(3)])
    together = rebuilt(network, windows, "automatic", memory_format=memory_format)
    for number in range(3):
        alone = rebuilt(network, windows[number : number + 1], "automatic", memory_format=memory_format)
        assert relative_difference(together[number : number + 1], alone) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_half_precision_stays_close(dtype, tolerance):
    network, patch = network_of(NARROW), patch_of(NARROW)
    found = rebuilt(network, patch.to(dtype), "automatic", dtype=dtype)
    expected = original(network, patch, "automatic")
    assert found.dtype == dtype
    assert (found.float() - expected).norm() < tolerance * expected.norm()


def test_the_networks_own_weights_are_not_touched():
    network = network_of(NARROW)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rebuilt(network, patch_of(NARROW).half(), "automatic", dtype=torch.float16)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_unknown_layer_is_refused():
    network = network_of(NARROW)
    network.image_encoder.encoder.layers[0]["blocks"][0].norm1 = torch.nn.BatchNorm3d(16)
    with pytest.raises(UnknownLayerError, match="BatchNorm3d"):
        rebuilder().encoder(network.image_encoder.encoder)
