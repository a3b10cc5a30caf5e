"""Instance normalisation in OpenVINO: as exact on a whole window as PyTorch's, whatever the window's size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("openvino")

from VISTA3DCore.backends.openvino.backend import Compiler

CHANNELS = 4


class Normalisation(nn.Module):
    """A channel-wise scaled copy of the image, normalised, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(1, CHANNELS, 1)
        self.norm = nn.InstanceNorm3d(CHANNELS)
        with torch.no_grad():
            self.convolution.weight[:, 0, 0, 0, 0] = torch.tensor([1.0, -2.0, 0.5, 0.0])
            self.convolution.bias[:] = torch.tensor([0.0, 3.0, -1.0, 0.7])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.norm(self.convolution(image)).movedim(1, -1)


def normalised(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what OpenVINO in float32 and PyTorch in float64 make of an image, [C, x, y, z]."""
    module, compiler = Normalisation().eval(), Compiler("float32")
    found = compiler.compiled(compiler.converted(module, (16, 16, 16)), image.shape[2:])(image)
    with torch.inference_mode():
        expected = module.double()(image.double())[0].movedim(-1, 0)
    return found, expected


@pytest.mark.parametrize("shape", [(16, 16, 16), (24, 40, 56), (128, 128, 128)])
def test_it_is_exact_for_windows_of_all_sizes(shape):
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))

    found, expected = normalised(image)

    torch.testing.assert_close(found[:3].double(), expected[:3], atol=5e-5, rtol=0)


def test_a_constant_channel_becomes_zero():
    found, _ = normalised(torch.full((1, 1, 32, 32, 32), 0.3))

    assert found.abs().max() < 1e-2


def test_a_small_deviation_beside_a_large_mean_keeps_three_digits():
    image = 1.0 + 0.01 * torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))

    found, expected = normalised(image)

    torch.testing.assert_close(found[:3].double(), expected[:3], atol=2e-2, rtol=0)
