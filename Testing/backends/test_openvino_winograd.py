"""Convolutions in OpenVINO with half as many products: the same result, and only where it is worth it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from runtime_cases import SMALL, distance, network_of, patch_of
from torch import nn

pytest.importorskip("openvino")

from VISTA3DCore.backends.openvino import backend as openvino_backend
from VISTA3DCore.backends.openvino import winograd
from VISTA3DCore.backends.openvino.backend import AutomaticBranch, Compiler, OpenVinoBackend
from VISTA3DCore.backends.openvino.winograd import with_fewer_products
from VISTA3DCore.backends.torch_backend import TorchBackend

WINDOW = (16, 16, 16)


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch):
    monkeypatch.setattr(openvino_backend, "is_bound_by_products", lambda: True)


class Convolution(nn.Module):
    """An image in many channels, convolved, channels last.

    The first layer has kernels of one voxel, so that all that there is to see is the second one's.
    """

    def __init__(self, inner: int = 48, outer: int = 64, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.channels = nn.Conv3d(1, inner, 1)
            self.convolution = nn.Conv3d(inner, outer, kernel, stride, kernel // 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(self.channels(image)).movedim(1, -1)


def noise(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))


def converted(module: nn.Module, shape: tuple[int, ...]):
    model = Compiler("float32").converted(module, WINDOW)
    model.reshape([1, 1, *shape])
    return model


def products(model) -> int:
    """Return the multiplications of a model's convolutions."""
    count = 0
    for node in model.get_ops():
        if node.get_type_name() == "Convolution":
            weight, voxels = node.input_value(1).get_shape(), node.output(0).get_shape()[2:]
            count += torch.Size(weight).numel() * torch.Size(voxels).numel()
    return count


def difference(module: nn.Module, image: torch.Tensor) -> float:
    """Return how far OpenVINO is from PyTorch in float64, as a share of the largest value."""
    compiler = Compiler("float32")
    found = compiler.compiled(compiler.converted(module, WINDOW), image.shape[2:], fewer_products=True)(image)
    with torch.inference_mode():
        expected = module.double()(image.double())[0].movedim(-1, 0)
    return float((found - expected).abs().max() / expected.abs().max())


# The shortest that there is; one that leaves a rest; a window's sides that differ.
@pytest.mark.parametrize("shape", [(8, 16, 16), (20, 8, 24), (48, 32, 16)])
@pytest.mark.parametrize("megabytes", [0, 1, 256])
def test_the_result_is_the_same_in_however_many_parts(shape, megabytes, monkeypatch):
    monkeypatch.setattr(winograd, "_BYTES", megabytes << 20)

    assert difference(Convolution(), noise(shape)) < 1e-5


def test_half_of_the_products_are_enough():
    model = converted(Convolution(), WINDOW)
    before, channels = products(model), 48 * 16**3

    after = products(with_fewer_products(model))

    assert after - channels == (before - channels) / 2


def test_the_edges_see_zeros_and_nothing_else():
    """A constant image: each result counts the neighbours inside."""
    module = Convolution(48, 48)
    with torch.no_grad():
        for layer in (module.channels, module.convolution):
            layer.weight.fill_(1 / 48)
            layer.bias.zero_()

    compiler = Compiler("float32")
    found = compiler.compiled(compiler.converted(module, WINDOW), WINDOW, fewer_products=True)(
        48 * torch.ones(1, 1, *WINDOW)
    )

    inside = torch.full((16,), 3.0)
    inside[[0, -1]] = 2.0
    torch.testing.assert_close(found[0], inside[:, None, None] * inside[:, None] * inside, atol=1e-4, rtol=0)


def test_a_whole_network_answers_as_torch_does():
    config = replace(SMALL, width=48)
    network, patch = network_of(config), patch_of(config)
    model = Compiler("float32").converted(AutomaticBranch(network), config.window)
    model.reshape(list(patch.shape))
    before = products(model)

    assert products(with_fewer_products(model)) < 0.8 * before
    backend = OpenVinoBackend(network, config, "float32")
    expected = TorchBackend(network, config).automatic_features(patch)
    assert distance(backend.automatic_features(patch), expected) < 1e-4


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(Convolution(inner=32), WINDOW, id="few channels"),
        pytest.param(Convolution(outer=384), WINDOW, id="many channels"),
        pytest.param(Convolution(kernel=1), WINDOW, id="one voxel"),
        pytest.param(Convolution(stride=2), WINDOW, id="every second voxel"),
        pytest.param(Convolution(), (18, 16, 16), id="planes not by four"),
        pytest.param(Convolution(), (4, 16, 16), id="four planes"),
    ],
)
def test_others_stay_as_they_are(module, shape):
    model = converted(module, shape)
    before = [node.get_friendly_name() for node in model.get_ordered_ops()]

    assert [node.get_friendly_name() for node in with_fewer_products(model).get_ordered_ops()] == before


def test_one_converted_model_is_compiled_for_windows_of_any_size():
    module, compiler = Convolution(), Compiler("float32")
    model = compiler.converted(module, WINDOW)

    for shape in [(16, 16, 16), (18, 20, 8), (24, 8, 8)]:
        image = noise(shape)
        found = compiler.compiled(model, shape, fewer_products=True)(image)
        with torch.inference_mode():
            torch.testing.assert_close(found, module(image)[0].movedim(-1, 0), atol=1e-4, rtol=1e-4)
