"""Processor time of everything around the network, on a synthetic CT, with a network that takes no time.

    python Testing/Benchmark/around_network.py --size 512 512 300

Processor time is used because it says the same on a busy machine. Labels are cubes of noise: harder to compress, to
restore and to measure than anatomy.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from VISTA3DCore import Segmenter, Volume
from VISTA3DCore.cli.preview import preview_encoder
from VISTA3DCore.evaluation.statistics import measure
from VISTA3DCore.imaging.output import write_files
from VISTA3DCore.imaging.writers import encode_nifti
from VISTA3DCore.network.config import ModelConfig

SPACING = (0.78, 0.78, 1.0)


class InstantBackend:
    """The same features for every window, cubes of eight voxels, with random class vectors."""

    config = ModelConfig()
    device = torch.device("cpu")
    runtime, precision = "torch", "float32"

    @cached_property
    def _features(self) -> torch.Tensor:
        coarse = torch.randn((48, 16, 16, 16), generator=torch.Generator().manual_seed(0))
        return coarse.repeat_interleave(8, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)

    def automatic_features(self, _patch: torch.Tensor) -> torch.Tensor:
        return self._features

    def class_matrix(self, indices: list[int]) -> torch.Tensor:
        return torch.randn((len(indices), 48), generator=torch.Generator().manual_seed(1))


def synthetic_ct(shape: tuple[int, int, int]) -> np.ndarray:
    """Return an elliptical body with noise in air, int16 HU."""
    x, y = (np.linspace(-1, 1, size) for size in shape[:2])
    body = (x[:, None] / 0.8) ** 2 + (y / 0.6) ** 2 < 1
    noise = np.random.default_rng(0).integers(-30, 30, (*shape[:2], 8), dtype=np.int16)
    image = np.empty(shape, dtype=np.int16, order="F")
    for k in range(shape[2]):
        image[:, :, k] = np.where(body, 40, -1000) + np.roll(noise[:, :, k % 8], k, axis=0)
    return image


def timed(step: str, action: Callable[[], object]) -> object:
    started = time.process_time()
    result = action()
    print(f"| {step} | {time.process_time() - started:.2f} s |", flush=True)
    return result


def run(shape: tuple[int, int, int], folder: Path) -> None:
    with (folder / "ct.nii.gz").open("wb") as file:
        encode_nifti(file, synthetic_ct(shape), np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0]), compressed=True)
    segmenter = Segmenter(InstantBackend())
    segmenter.backend.automatic_features(torch.empty(0))
    print(f"| {' x '.join(map(str, shape))}, processor time | |\n|---|---|")
    volume = timed("read .nii.gz", lambda: Volume.read(folder / "ct.nii.gz"))
    session = timed("preprocess", lambda: segmenter.open(volume))
    found = timed("sums, labels, restoration", lambda: session.segment("everything", streaming=True))
    timed("statistics", lambda: measure(volume, found))
    timed("write .seg.nrrd", lambda: found.write(folder / "a.seg.nrrd"))
    timed("write .nii.gz", lambda: found.write(folder / "a.nii.gz"))
    timed("preview", lambda: write_files({folder / "a.png": preview_encoder(volume, found)}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=3, type=int, default=(512, 512, 300))
    with tempfile.TemporaryDirectory() as temporary:
        run(tuple(parser.parse_args().size), Path(temporary))
