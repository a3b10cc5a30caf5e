"""Forms of the interactive head's convolutions on this processor, side by side.

For the released network (48 channels, windows of 128^3, so 64^3 tokens): the transposed convolution that doubles the
resolution, and what follows it up to the scores (instance normalisation, GELU, folded convolution 48 -> 1). Each form
must first agree with torch's plain one; then times are taken in turns. Prints a Markdown table of process time, in
which other programs on the same processor do not show.

    python Testing/Benchmark/click_pieces.py [--side 64] [--channels 48] [--repeats 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import conv3d, gelu, instance_norm

from VISTA3DCore.backends.processor import has_bfloat16
from VISTA3DCore.network.folding import folded_convolution, folded_tail

Form = Callable[[torch.Tensor], torch.Tensor]
EPSILON = 1e-5
# Of the largest value: what the forms may differ by from torch's plain one.
TOLERANCE, TOLERANCE_BFLOAT16 = 1e-5, 2e-2
_LAST = torch.channels_last_3d
# An output voxel 2m of a stride of 2 sees tap 1 of voxel m; 2m + 1 sees tap 2 of voxel m and tap 0 of voxel m + 1.
_TAPS = {0: ((1, 0),), 1: ((2, 0), (0, 1))}


def transposed_by_products(low: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return a transposed convolution (kernel 3, stride 2, padding 1, output padding 1) as 27 matrix products.

    The image lies with one voxel of zeros behind each axis, so that a neighbour is a constant number of rows away and
    every product reads consecutive memory.

    :param low: [1, C, x, y, z] in channels-last memory; :param weight: [C, K, 3, 3, 3]; :param bias: [K].
    :return: [1, K, 2x, 2y, 2z] in channels-last memory.
    """
    x, y, z = low.shape[2:]
    strides = ((y + 1) * (z + 1), z + 1, 1)
    count = (x + 1) * strides[0]
    rows = low.new_zeros(count + sum(strides), low.shape[1])
    rows[:count].view(x + 1, y + 1, z + 1, -1)[:x, :y, :z] = low[0].permute(1, 2, 3, 0)
    result = low.new_empty(2 * x, 2 * y, 2 * z, weight.shape[1])
    for parity in itertools.product((0, 1), repeat=3):
        part = bias.expand(count, -1).clone()
        for taps in itertools.product(*(_TAPS[odd] for odd in parity)):
            first = sum(step * stride for (_, step), stride in zip(taps, strides, strict=True))
            part.addmm_(rows[first : first + count], weight[(slice(None), slice(None), *(tap for tap, _ in taps))])
        place = tuple(slice(odd, None, 2) for odd in parity)
        result[place] = part.view(x + 1, y + 1, z + 1, -1)[:x, :y, :z]
    return result.permute(3, 0, 1, 2)[None]


def transposed_forms(channels: int) -> tuple[dict[str, Form], float]:
    """Return forms of the transposed convolution, the plain one first, and its GFLOP for one voxel of input."""
    layer = nn.ConvTranspose3d(channels, channels, kernel_size=3, stride=2, padding=1, output_padding=1).eval()
    forms: dict[str, Form] = {
        "torch, channels first": lambda low: layer(low.contiguous()),
        "torch, channels last": layer,
        "matrix products": lambda low: transposed_by_products(low, layer.weight, layer.bias),
    }
    if has_bfloat16():
        half = nn.ConvTranspose3d(channels, channels, kernel_size=3, stride=2, padding=1, output_padding=1).eval()
        half.load_state_dict(layer.state_dict())
        half.to(dtype=torch.bfloat16, memory_format=_LAST)
        forms["torch, channels last, bfloat16"] = lambda low: half(low.bfloat16()).float()
    return forms, 2 * 27 * channels**2 / 1e9


def tail_forms(channels: int) -> tuple[dict[str, Form], float]:
    """Return forms of everything behind the transposed convolution, and their GFLOP for one voxel."""
    kernel, bias = torch.randn(1, channels, 3, 3, 3) / channels, torch.zeros(1)

    def active(upscaled: torch.Tensor) -> torch.Tensor:
        return gelu(instance_norm(upscaled, eps=EPSILON))

    forms: dict[str, Form] = {
        "torch": lambda upscaled: conv3d(active(upscaled), kernel, bias, padding=1)[0],
        "matrix product and 27 shifted sums": lambda upscaled: folded_convolution(active(upscaled), kernel, bias),
        "the same in slabs, normalisation included": lambda upscaled: folded_tail(upscaled, kernel, bias, EPSILON),
    }
    return forms, 2 * 27 * channels / 1e9


def measured(forms: dict[str, Form], image: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Return seconds of process time of each form, taken in turns, after checking that it agrees with the first.

    :raises SystemExit: if a form does not agree.
    """
    expected = next(iter(forms.values()))(image)
    for name, form in forms.items():
        difference = float((form(image) - expected).abs().max() / expected.abs().max())
        if difference > (TOLERANCE_BFLOAT16 if "bfloat16" in name else TOLERANCE):
            raise SystemExit(f"'{name}' differs by {difference:.1g} of the largest value.")
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _, (name, form) in itertools.product(range(repeats), forms.items()):
        started = time.process_time()
        form(image)
        seconds[name].append(time.process_time() - started)
    return seconds


def report(title: str, seconds: dict[str, list[float]], gflop: float) -> None:
    """Print a table: median and least seconds, and what that is in GFLOP/s."""
    print(f"\n| {title} | median, s | least, s | GFLOP/s | |\n|---|---|---|---|---|")
    plain = statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        median = statistics.median(times)
        speed = f"{gflop / median:.0f} | {plain / median:.2f}x"
        print(f"| {name} | {median:.3f} | {min(times):.3f} | {speed} |")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("--side", 64), ("--channels", 48), ("--repeats", 5), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    for title, (forms, gflop), side in (
        ("transposed convolution", transposed_forms(options.channels), options.side),
        ("from there to the scores", tail_forms(options.channels), 2 * options.side),
    ):
        image = torch.randn(1, options.channels, side, side, side).to(memory_format=_LAST)
        report(title, measured(forms, image, options.repeats), gflop * side**3)


if __name__ == "__main__":
    main()
