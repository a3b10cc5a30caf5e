"""What memory a volume takes beyond its own arrays; measured in processes of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PLANE = 96
SLICES = 160
# Input and model grid are float32, labels on both grids uint16.
KNOWN_BYTES_PER_VOXEL = 4 + 4 + 2 + 2

CHILD = """
import sys
import numpy as np
import torch
from VISTA3DCore import Segmenter, Volume
from VISTA3DCore.network.config import ModelConfig

class Cheap:
    '''Features without a network: the sliding window's own memory is what is measured.'''
    config = ModelConfig(width=64, window=(64, 64, 64), spacing=(1.5, 1.5, 1.5))
    device, runtime, precision = torch.device("cpu"), "none", "float32"
    def automatic_features(self, patch):
        return torch.sin(patch[0] * torch.arange(1, 65)[:, None, None, None])
    def class_matrix(self, indices):
        return torch.ones(len(indices), 64)

def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

shape = (int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[2]))
image = np.random.default_rng(0).integers(-500, 500, shape, dtype=np.int16).astype(np.float32)
before = peak()
with Segmenter(Cheap()).open(Volume(image, np.diag([1.5, 1.5, 1.5, 1.0]))) as session:
    session.segment("everything", streaming=sys.argv[3] == "streaming", restoration=sys.argv[4])
print(peak() - before + image.nbytes)
"""


def memory_beyond_known_arrays(slices: int, life: str, restoration: str = "nearest") -> float:
    """Return MB at the peak, without input, model grid and label maps."""
    command = [sys.executable, "-c", CHILD, str(PLANE), str(slices), life, restoration]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return (int(result.stdout) - KNOWN_BYTES_PER_VOXEL * PLANE * PLANE * slices) / 1e6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
@pytest.mark.parametrize("restoration", ["nearest", "smooth"])
def test_streaming_does_not_grow_with_the_number_of_slices(restoration):
    short = memory_beyond_known_arrays(SLICES, "streaming", restoration)
    long = memory_beyond_known_arrays(3 * SLICES, "streaming", restoration)
    slab = 64 * PLANE * PLANE * 64 * 4 / 1e6
    assert long <= short * 1.05 + 10
    assert short < 3 * slab


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
def test_the_command_takes_memory_for_input_and_result_alone(tmp_path):
    """With all structures that overlap others; the benchmark does this on 183 million voxels."""
    path = Path(__file__).parents[1] / "Benchmark" / "large_volume.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    model, (classes, name) = benchmark._model(tmp_path), benchmark.CASES["everything and overlaps, .seg.nrrd"]
    shapes = ((64, 64, 64), (256, 256, 192))
    small, large = (
        benchmark._peak(benchmark._image(tmp_path, shape), model, classes, tmp_path / name) for shape in shapes
    )
    voxels = np.prod(shapes[1]) - np.prod(shapes[0])
    assert large - small < 5 * voxels + 60e6
    assert large < 5 * voxels + benchmark.PROMISE


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's memory accounting")
def test_retaining_grows_by_the_features_only():
    growth = memory_beyond_known_arrays(2 * SLICES, "retained") - memory_beyond_known_arrays(SLICES, "retained")
    assert growth == pytest.approx(65 * 4 * PLANE * PLANE * SLICES / 1e6, rel=0.1)
