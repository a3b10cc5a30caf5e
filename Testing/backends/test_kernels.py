"""Every kernel gives what its twin in plain PyTorch gives: on a CUDA device, or in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from VISTA3DCore.backends.cuda.kernels import operations
from VISTA3DCore.backends.cuda.kernels.choice import Kernels, kernels_for, sound, triton_kernels
from VISTA3DCore.backends.cuda.kernels.operations import GELU, IDENTITY, RELU, Activation, Convolution, Normalisation
from VISTA3DCore.errors import SlowerWarning

# On a CUDA device these are tests of the device, elsewhere of what stands in for it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LEAKY = Activation(slope=0.01)
# Channels that divide into tiles, that do not, and more than one tile of them; voxels likewise.
SHAPES = {"narrow": (1, 8, 5, 6, 7), "released": (2, 48, 3, 5, 4), "deep": (1, 96, 4, 3, 2)}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    """Triton's kernels; without a CUDA device they run in its interpreter, see Testing/conftest.py."""
    pytest.importorskip("triton")
    return triton_kernels()


def image_of(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a channels-last image whose channels have means far from zero."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(shape, generator=generator) + torch.arange(shape[1])[:, None, None, None] / 4
    return image.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last_3d)


def affine(channels: int) -> Normalisation:
    return Normalisation(*(torch.linspace(first, 2, channels, device=DEVICE) for first in (0.5, -1)), 1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("activation", [IDENTITY, RELU, LEAKY, GELU], ids=["none", "relu", "leaky", "gelu"])
def test_normalising_equals_the_twin(kernels, shape, activation):
    expected = operations.normalise(image_of(shape), affine(shape[1]), activation)
    found = kernels.normalise(image_of(shape), affine(shape[1]), activation)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("measured", "after", "overwrite"), product([False, True], repeat=3))
def test_residuals_are_added_where_they_should(kernels, measured, after, overwrite):
    shape, results = SHAPES["released"], []
    for run in (operations, kernels):
        image = image_of(shape)
        moments = run.measure(image, image_of(shape, 1)) if measured else None
        residual = image_of(shape, 2) if after else None
        result = run.normalise(image, Normalisation(), RELU, moments=moments, after=residual, overwrite=overwrite)
        results.append((result, None if overwrite else image))
    torch.testing.assert_close(results[1], results[0], atol=2e-5, rtol=1e-5)
    if measured and not overwrite:
        torch.testing.assert_close(results[1][1], image_of(shape) + image_of(shape, 1))


@pytest.mark.parametrize("normalise", ["twin", "kernel"])
def test_both_are_instance_normalisation(kernels, normalise):
    run = operations.normalise if normalise == "twin" else kernels.normalise
    layer = nn.InstanceNorm3d(48, eps=1e-4, affine=True).to(DEVICE)
    with torch.no_grad():
        layer.weight.copy_(affine(48).weight)
        layer.bias.copy_(affine(48).bias)
        expected = nn.functional.leaky_relu(layer(image_of(SHAPES["released"])), 0.01)
    torch.testing.assert_close(run(image_of(SHAPES["released"]), affine(48), LEAKY), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(kernels, dtype):
    """Statistics and residuals are float32, so the result is the float32 one to the last bit of its type or so."""
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("the interpreter does not compute in bfloat16")
    image, residual = image_of(SHAPES["released"], dtype=dtype), image_of(SHAPES["released"], 1, dtype)
    exact = operations.normalise(image.float(), affine(48), RELU, after=residual.float())
    found = kernels.normalise(image, affine(48), RELU, after=residual)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), exact, atol=1e-5, rtol=2 * torch.finfo(dtype).eps)


def test_parts_of_several_tiles_are_merged(kernels, monkeypatch):
    from VISTA3DCore.backends.cuda.kernels import triton_normalize

    monkeypatch.setattr(triton_normalize, "_MOST_PARTS", 4)  # reached by windows of 128^3 only
    shape = (2, 8, 10, 10, 13)
    expected = operations.normalise(image_of(shape) + image_of(shape, 1), affine(8), RELU)
    image = image_of(shape)
    moments = kernels.measure(image, image_of(shape, 1))
    found = kernels.normalise(image, affine(8), RELU, moments=moments)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_more_parts_than_are_merged_at_once(kernels, monkeypatch):
    from VISTA3DCore.backends.cuda.kernels import triton_normalize

    shape = (2, 8, 10, 10, 13)
    image, expected = image_of(shape), operations.normalise(image_of(shape), affine(8), RELU)
    moments = kernels.measure(image)
    assert moments.means.shape[1] > 8
    monkeypatch.setattr(triton_normalize, "_MOST_PARTS", 4)
    found = kernels.normalise(image, affine(8), RELU, moments=moments)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


# Channels in and out, stride, extents of what comes out: one channel, tiles of several planes, a filled-up tile.
GATHERED = {"first": (1, 48, 1, (4, 8, 8)), "down": (48, 96, 2, (2, 8, 16)), "wide": (96, 96, 1, (3, 8, 16))}


def half_convolution(channels: int, columns: int, stride: int) -> Convolution:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(columns, channels, 3, 3, 3, generator=generator) / (27 * channels) ** 0.5
    return Convolution(weight.to(DEVICE, torch.float16), None, (stride,) * 3, (1, 1, 1))


@pytest.mark.parametrize("add", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("case", GATHERED.values(), ids=GATHERED)
def test_gathered_convolutions_equal_the_twin(kernels, case, add):
    from VISTA3DCore.backends.cuda.kernels import triton_convolve

    (channels, columns, stride, extents), batch = case, 2
    convolution = half_convolution(channels, columns, stride)
    image = image_of((batch, channels, *(side * stride for side in extents)), dtype=torch.float16)
    after = image_of((batch, columns, *extents), 1, torch.float16) if add else None
    assert triton_convolve.suits(image, convolution)
    found, moments = triton_convolve.convolve(image, convolution, after)
    exact = functional.conv3d(image.float(), convolution.weight.float(), None, stride, 1)
    exact = exact + after.float() if add else exact
    torch.testing.assert_close(found.float(), exact, atol=2e-3, rtol=2e-3)
    expected = operations.normalise(found.float(), affine(columns), RELU)
    normalised = kernels.normalise(found, affine(columns), RELU, moments=moments).float()
    torch.testing.assert_close(normalised, expected, atol=2e-3, rtol=2e-3)


def test_convolutions_that_do_not_suit_are_left_to_cudnn(kernels):
    from VISTA3DCore.backends.cuda.kernels import triton_convolve

    image = image_of((1, 48, 4, 8, 8), dtype=torch.float16)
    convolution = half_convolution(48, 48, 1)
    assert triton_convolve.suits(image, convolution)
    assert not triton_convolve.suits(image.contiguous(), convolution)
    assert not triton_convolve.suits(image.float(), convolution)
    assert not triton_convolve.suits(image[:, :, :, :, :7], convolution)
    assert not triton_convolve.suits(image, replace(convolution, output_padding=(0, 0, 0)))
    assert not triton_convolve.suits(image, replace(convolution, padding=(0, 0, 0)))
    assert not triton_convolve.pays(image, convolution)  # too small to be worth it, wherever it is


def test_a_product_with_a_bias_is_the_convolution_it_stands_for():
    image, weight = image_of((2, 8, 3, 4, 5)), torch.linspace(-1, 1, 12 * 8, device=DEVICE).view(12, 8, 1, 1, 1)
    bias = torch.linspace(0, 3, 12, device=DEVICE)
    found = Convolution(weight, bias, (1, 1, 1), (0, 0, 0))(image)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found, functional.conv3d(image.contiguous(), weight, bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", [LEAKY, GELU], ids=["leaky", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_collapsing_to_one_channel_equals_the_twin(kernels, activation, dtype):
    shape = (1, 48, 5, 6, 7)
    weight = torch.randn(1, 48, 3, 3, 3, generator=torch.Generator().manual_seed(3)).to(DEVICE, dtype) / 36
    exact = operations.collapse(image_of(shape, dtype=dtype).float(), weight.float(), affine(48), activation)
    image = image_of(shape, dtype=dtype)
    found = kernels.collapse(image, weight, affine(48), activation, kernels.measure(image))
    assert found.dtype == torch.float32
    tolerance = 2e-5 if dtype == torch.float32 else 5e-3
    torch.testing.assert_close(found, exact, atol=tolerance, rtol=tolerance)


def test_collapsing_what_does_not_suit_goes_to_the_twin(kernels):
    image, weight = image_of(SHAPES["narrow"]).contiguous(), torch.ones(1, 8, 3, 3, 3, device=DEVICE)
    expected = operations.collapse(image.clone(), weight, affine(8), GELU)
    assert torch.equal(kernels.collapse(image.clone(), weight, affine(8), GELU), expected)


def test_rows_are_normalised_as_by_the_twin(kernels):
    rows, more = (torch.randn(131, 48, generator=torch.Generator().manual_seed(seed)).to(DEVICE) for seed in (0, 1))
    norm, added = nn.LayerNorm(48).to(DEVICE), torch.linspace(-3, 3, 48, device=DEVICE)
    with torch.no_grad():
        norm.weight.copy_(affine(48).weight)
        norm.bias.copy_(affine(48).bias)
        expected = operations.normalise_rows(rows, more, added, norm)
        # Any strides: products of matrices come as they come.
        found = kernels.normalise_rows(rows.T.contiguous().T, more, added, norm)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_statistics_survive_a_mean_far_from_zero(kernels):
    image = image_of((1, 8, 9, 9, 9)) * 1e-2 + 100
    exact = operations.normalise(image.double(), Normalisation())
    torch.testing.assert_close(kernels.normalise(image, Normalisation()).double(), exact, atol=2e-3, rtol=1e-3)


def test_the_same_image_always_gives_the_same_bits(kernels):
    first, second = (kernels.normalise(image_of(SHAPES["deep"]), affine(96), RELU) for _ in range(2))
    assert torch.equal(first, second)


def test_an_image_in_another_layout_goes_to_the_twin(kernels):
    image = image_of(SHAPES["narrow"]).contiguous()
    expected = operations.normalise(image, affine(8), RELU)
    assert torch.equal(kernels.normalise(image, affine(8), RELU), expected)


@pytest.mark.parametrize("competing", [0, 1, 40, 43])
@pytest.mark.parametrize(("channels", "voxels"), [(8, 300), (48, 129), (16, 1)])
def test_classifying_equals_the_twin(kernels, competing, channels, voxels):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(voxels, channels, generator=generator).to(DEVICE)
    matrix = torch.randn(43, channels, generator=generator).to(DEVICE)
    values = torch.arange(100, 100 + competing, dtype=torch.int32, device=DEVICE)
    expected_labels, expected_masks = operations.classify(features, matrix, values)
    labels, masks = kernels.classify(features, matrix, values)
    assert (labels == expected_labels).float().mean() > 0.995
    assert masks.shape == (43 - competing, voxels)
    assert (masks == expected_masks).float().mean() >= 0.999 if masks.numel() else True


@pytest.mark.parametrize("classify", ["twin", "kernel"])
def test_of_equal_scores_the_first_wins_and_zero_is_background(kernels, classify):
    run = operations.classify if classify == "twin" else kernels.classify
    matrix = torch.tensor([[1.0, 0], [2, 0], [0, 0], [2, 0], [0, 1], [0, -1]], device=DEVICE).repeat(7, 1)
    features = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [0, 3]], device=DEVICE)
    values = torch.arange(11, 51, dtype=torch.int32, device=DEVICE)
    labels, masks = run(features, matrix, values)
    assert labels.tolist() == [12, 0, 0, 15]
    assert masks.tolist() == [[False, False, False, True], [False] * 4]


def test_sound_kernels_stay_as_they_are(kernels):
    tried = sound(kernels, torch.device(DEVICE))
    assert tried.name == "triton"
    assert not tried.wanting


TWINS = Kernels("torch", "")


def wrong(operation):
    """Return an operation whose results are a little off; labels and masks are others altogether."""

    def run(*arguments, **options):
        found = operation(*arguments, **options)
        if isinstance(found, tuple):
            return found[0] + 1, ~found[1]
        return None if found is None else found + 0.1

    return run


def failing(*_arguments, **_options):
    raise TypeError("out of resource: shared memory\nand more")


@pytest.mark.parametrize("name", ["normalise", "collapse", "normalise_rows", "classify"])
@pytest.mark.parametrize("fault", ["wrong", "failing"])
def test_a_kernel_that_is_wrong_or_fails_is_replaced_by_its_twin_alone(kernels, name, fault):
    bad = wrong(getattr(kernels, name)) if fault == "wrong" else failing
    tried = sound(replace(kernels, **{name: bad}), torch.device(DEVICE))
    assert getattr(tried, name) is getattr(TWINS, name)
    reason = "it does not agree with PyTorch" if fault == "wrong" else "out of resource: shared memory"
    assert f"{name}: {reason}" in tried.wanting
    others = {"normalise", "collapse", "normalise_rows", "classify", "measure"} - {name}
    replaced = {other for other in others if getattr(tried, other) is getattr(TWINS, other)}
    assert replaced <= ({"measure"} if name == "normalise" else set())  # the trial of one needs the other


def test_a_kernel_that_is_missing_cannot_convolve(kernels):
    tried = sound(replace(kernels, fused=failing), torch.device(DEVICE))
    assert tried.fused is None
    assert "fused: out of resource" in tried.wanting


def test_a_kernel_that_fails_later_is_replaced_and_the_user_is_told_once(kernels):
    def some_fail(image, *arguments, **options):
        return failing() if len(image) > 1 else kernels.normalise(image, *arguments, **options)

    tried = sound(replace(kernels, normalise=some_fail), torch.device(DEVICE))
    image, arguments = image_of(SHAPES["released"]), (affine(48), RELU)
    expected = operations.normalise(image, *arguments)
    with pytest.warns(SlowerWarning, match=r"normalise: out of resource.*more slowly\.$") as told:
        found = [tried.normalise(image, *arguments) for _ in range(2)]
    torch.testing.assert_close(found, [expected, expected])
    assert len(told) == 1


def test_memory_that_runs_out_says_nothing_of_a_kernel(kernels):
    def short(*_arguments, **_options):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        sound(replace(kernels, classify=short), torch.device(DEVICE))


def test_without_a_cuda_device_plain_torch_is_used_and_the_reason_is_given():
    kernels = kernels_for(torch.device("cpu"))
    assert kernels.name == "torch"
    assert kernels.reason


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_of_several_generations():
    """For RTX 2080, A100, RTX 3060, RTX 4090, H100, B200 and RTX 5090, 16 bytes read and written at once."""
    pytest.importorskip("triton")
    capabilities = (75, 80, 86, 89, 90, 100, 120)
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    command = [sys.executable, str(Path(__file__).with_name("kernel_compilation.py")), *map(str, capabilities)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    lines = printed.splitlines()
    assert len(lines) == len(capabilities) * (7 * 3 + 2)
    assert all(line.endswith("wide") for line in lines if "_apply" in line or "_part" in line or "_gather" in line)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_triton_is_used_on_a_cuda_device_where_it_is_installed():
    pytest.importorskip("triton")
    kernels = kernels_for(torch.device("cuda"))
    assert kernels.name == "triton", kernels.reason
    assert not kernels.wanting
