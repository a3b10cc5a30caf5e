"""The kernel in CUDA C++ convolves as PyTorch does: on a CUDA device, and its program text on a processor."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from VISTA3DCore.backends.cuda.kernels import cuda_convolve, nvrtc
from VISTA3DCore.backends.cuda.kernels.operations import Activation, Convolution, Entry, Moments, Normalisation

LEAKY = Activation(slope=0.01)
CHANNELS, PLANES, Y, Z, STEPS = 48, 4, 16, 32, 2
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def numbers(*shape: int, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=generator).to(device, dtype)
    return tensor.contiguous(memory_format=torch.channels_last_3d) if len(shape) == 5 else tensor


def expected_of(image, weight, factors=None, after=None) -> torch.Tensor:
    """Return activation(image * scale + shift), rounded as the kernel does, convolved in float32."""
    active = image.float()
    if factors is not None:
        scale, shift = (one[:, :, None, None, None] for one in factors)
        active = functional.leaky_relu(active * scale + shift, LEAKY.slope).to(image.dtype).float()
    result = functional.conv3d(active, weight.float(), padding=1)
    return result if after is None else result + after.float()


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return ((found.float() - expected).norm() / expected.norm()).item() < torch.finfo(found.dtype).eps


def assert_moments(moments: Moments, image: torch.Tensor) -> None:
    voxels = moments.voxels * moments.means.shape[1]
    assert voxels == image[0, 0].numel()
    mean = moments.means.mean(1)
    variance = (moments.squares + moments.voxels * (moments.means - mean[:, None]) ** 2).sum(1) / voxels
    torch.testing.assert_close(mean, image.float().mean((2, 3, 4)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(variance, image.float().var((2, 3, 4), unbiased=False), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def on_processor(tmp_path_factory) -> ctypes.CDLL:
    """Compile the program text with what stands in for the device's instructions."""
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("kernel")
    text = cuda_convolve.source().replace("extern __shared__ uint4 memory[];", "")
    launcher = """
static void (*body)();
static void fibre() { body(); finished[threadIdx.x] = true; swapcontext(&fibres[threadIdx.x], &scheduler); }
struct Arguments { void *pointers[8]; int numbers[4]; float slope; };
static Arguments given;
static void call() {
    void **p = given.pointers; int *n = given.numbers;
    convolve((uint4 *)p[0], (uint4 *)p[1], (float *)p[2], (float *)p[3], (uint2 *)p[4], (uint2 *)p[5], (float *)p[6],
             (float *)p[7], n[0], n[1], n[2], n[3], given.slope);
}
extern "C" void launch(int x, int y, int z, void **pointers, int *numbers, float slope) {
    std::copy(pointers, pointers + 8, given.pointers); std::copy(numbers, numbers + 4, given.numbers);
    given.slope = slope; gridDim = {x, y, z}; body = call;
    std::vector<char> stacks((size_t)ALL_THREADS * FIBRE_BYTES);
    for (int k = 0; k < z; k++) for (int j = 0; j < y; j++) for (int i = 0; i < x; i++) {
        blockIdx = {i, j, k};
        std::memset(memory, 0x7f, sizeof memory);  // what nobody wrote is no number
        for (int t = 0; t < ALL_THREADS; t++) {
            finished[t] = false; getcontext(&fibres[t]);
            fibres[t].uc_stack.ss_sp = stacks.data() + (size_t)t * FIBRE_BYTES;
            fibres[t].uc_stack.ss_size = FIBRE_BYTES; fibres[t].uc_link = &scheduler;
            makecontext(&fibres[t], fibre, 0);
        }
        for (bool alive = true; alive;) {
            alive = false;
            for (int t = 0; t < ALL_THREADS; t++) if (!finished[t]) {
                alive = true; threadIdx.x = t; swapcontext(&scheduler, &fibres[t]);
            }
        }
    }
}
"""
    program = folder / "kernel.cpp"
    header = Path(__file__).with_name("cuda_on_cpu.hpp")
    program.write_text(f'#define INSTRUCTIONS\n#include "{header}"\n{text}\n{launcher}', encoding="utf-8")
    library = folder / "kernel.so"
    defines = [f"-DC={CHANNELS}", f"-DY={Y}", f"-DZ={Z}"]
    command = [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", *defines, str(program), "-o", str(library)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if "_Float16" in compiled.stderr or "ucontext.h" in compiled.stderr:
        pytest.skip("the C++ compiler has no half precision or no fibres")
    assert compiled.returncode == 0, compiled.stderr
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize(("normalise", "add"), [(False, False), (True, True)])
def test_the_program_text_convolves_as_pytorch(on_processor, normalise, add):
    batch = 2
    image, after = (numbers(batch, CHANNELS, PLANES, Y, Z, seed=seed) for seed in (0, 1))
    weight = numbers(CHANNELS, CHANNELS, 3, 3, 3, seed=2) / 36
    scale, shift = numbers(2, batch, CHANNELS, seed=3, dtype=torch.float32).abs().add(0.5).unbind()
    result = torch.full_like(image, torch.nan)
    grid = Y * Z // cuda_convolve.THREADS, PLANES // STEPS, batch
    means, squares = torch.full((2, batch, grid[0] * grid[1] * 8, CHANNELS), torch.nan).unbind()
    tensors = (image, cuda_convolve.arranged(weight), scale, -shift, after, result, means, squares)
    pointers = (ctypes.c_void_p * 8)(*(one.data_ptr() for one in tensors))
    values = (ctypes.c_int * 4)(PLANES, STEPS, normalise, add)
    negative = (-shift).contiguous()
    pointers[3] = negative.data_ptr()
    on_processor.launch(*grid, pointers, values, ctypes.c_float(LEAKY.slope))
    expected = expected_of(image, weight, (scale, negative) if normalise else None, after if add else None)
    assert close(result, expected)
    assert_moments(Moments(means, squares, 32 * STEPS), result)


def test_its_shared_memory_has_room_on_an_h100_for_the_released_network():
    assert cuda_convolve.shared_bytes(48, 128) <= 227 << 10
    assert cuda_convolve.shared_bytes(64, 128) > 227 << 10


def test_all_blocks_march_as_far():
    for planes, patches, processors in ((128, 64, 132), (96, 36, 132), (32, 4, 82), (7, 1, 10)):
        steps = cuda_convolve._steps(planes, patches, processors)
        assert planes % steps == 0
    assert cuda_convolve._steps(128, 64, 132) == 64  # 128 blocks for 132 processors


def test_images_that_do_not_suit_are_told():
    convolution = Convolution(numbers(48, 48, 3, 3, 3), None, (1, 1, 1), (1, 1, 1))
    assert not cuda_convolve.suits(numbers(1, 48, 4, 16, 32), convolution)  # on the CPU


def test_without_cuda_the_compiler_is_not_found():
    if torch.version.cuda is not None:
        pytest.skip("this torch brings the compiler")
    with pytest.raises(nvrtc.CompilerError, match="not found"):
        nvrtc.compiled("", [])


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batch", "side"), [(1, 128), (2, 64), (1, 32)])
@pytest.mark.parametrize(("normalise", "add"), product([False, True], repeat=2))
def test_on_a_real_device(dtype, batch, side, normalise, add):
    torch.backends.cudnn.allow_tf32 = False
    image, after = (numbers(batch, 48, side, side, side, seed=seed, device="cuda", dtype=dtype) for seed in (0, 1))
    convolution = Convolution(numbers(48, 48, 3, 3, 3, device="cuda", dtype=dtype) / 36, None, (1, 1, 1), (1, 1, 1))
    if not cuda_convolve.suits(image, convolution):
        pytest.skip("this device has too little shared memory")
    weight, bias = (numbers(48, seed=seed, device="cuda", dtype=torch.float32) for seed in (2, 3))
    entry = Entry(Normalisation(weight, bias), LEAKY) if normalise else None
    found, moments = cuda_convolve.convolve(image, convolution, entry, after if add else None)
    mean, variance = image.float().mean((2, 3, 4)), image.float().var((2, 3, 4), unbiased=False)
    scale = weight / (variance + 1e-5).sqrt()
    factors = (scale, bias - mean * scale) if normalise else None
    expected = expected_of(image, convolution.weight, factors, after if add else None)
    assert close(found, expected)
    assert_moments(moments, found)


@pytest.mark.gpu
@needs_cuda
def test_a_program_that_is_none_is_refused_with_the_compilers_words():
    with pytest.raises(nvrtc.CompilerError, match="error"):
        nvrtc.Kernel("this is no program", "none", [], 32, 0)
