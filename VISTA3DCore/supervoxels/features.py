"""A volume of features from an encoder of slices: F = F_A + F_C + F_S, streamed, in a file mapped into memory.

As in VISTA3D's paper (Algorithm 2) every voxel gets the sum of the features that the three slices through it give it.
Slices need not be adjacent: between two of them features are interpolated linearly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from VISTA3DCore.errors import OutputError
from VISTA3DCore.imaging.averaging import coarse_edges
from VISTA3DCore.progress import Progress
from VISTA3DCore.supervoxels.encoders import SliceEncoder
from VISTA3DCore.supervoxels.grid import WorkingGrid

GPU_BATCH = 8


@dataclass(frozen=True)
class Slicing:
    """How slices are taken.

    :param distance_mm: between the slices of one axis at most; the working grid's spacing where that is larger.
    :param physical_aspect: True: slices have their true proportions. False: voxels are squares, as in the reference,
        which distorts sagittal and coronal slices of anisotropic volumes.
    """

    distance_mm: float = 6.0
    physical_aspect: bool = True


@contextmanager
def feature_file(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield zeros of float16 in a private temporary file that nobody else sees and that vanishes at the end.

    :raises OutputError: if the temporary folder's disk is too full.
    """
    with tempfile.TemporaryFile(prefix="vista3d-") as file:
        _reserve(file, int(np.prod(shape)) * 2)
        yield np.memmap(file, np.float16, "r+", shape=shape)


def _reserve(file: IO[bytes], size: int) -> None:
    """Write zeros: a mapped file that the disk has no room for ends the process."""
    block = bytes(1 << 22)
    try:
        for start in range(0, size, len(block)):
            file.write(block[: size - start])
        file.flush()
    except OSError as error:
        raise OutputError(
            f"The temporary folder '{tempfile.gettempdir()}' has no room for {size / 1e6:.0f} MB of features "
            f"({error.strerror}); free some space or set TMPDIR to another folder."
        ) from error


def accumulate(
    result: np.ndarray,
    array: np.ndarray,
    grid: WorkingGrid,
    encoder: SliceEncoder,
    slicing: Slicing,
    progress: Progress | None = None,
) -> int:
    """Add the features of the slices along all three axes.

    :param result: zeros [a, b, c, channels] on the working grid, changed in place.
    :param array: the volume's HU [i, j, k]; slices are cut from it at its own resolution.
    :return: how many slices were encoded.
    :raises Cancelled: if ``progress`` was cancelled; between slices.
    """
    progress = Progress.of(progress)
    views = [_View(array[grid.box], grid, encoder, slicing, axis) for axis in range(3)]
    total, done = sum(len(view.planes) for view in views), 0
    for view in views:
        previous: tuple[int, np.ndarray] | None = None
        for plane, features in view.encoded():
            _add_between(np.moveaxis(result, view.axis, 0), previous, (plane, features))
            previous, done = (plane, features), done + 1
            progress.update(done / total, "Encoding slices", f"{done} of {total}")
    return total


def _add_between(result: np.ndarray, before: tuple[int, np.ndarray] | None, here: tuple[int, np.ndarray]) -> None:
    """Add features to the planes after the one before, up to this one."""
    plane, features = here
    start = plane if before is None else before[0] + 1
    for between in range(start, plane + 1):
        weight = 1.0 if before is None else (between - before[0]) / (plane - before[0])
        value = features if before is None or between == plane else weight * features + (1.0 - weight) * before[1]
        result[between] += value


class _View:
    """The slices along one axis."""

    def __init__(
        self, array: np.ndarray, grid: WorkingGrid, encoder: SliceEncoder, slicing: Slicing, axis: int
    ) -> None:
        self.axis, self._encoder = axis, encoder
        self._array = np.moveaxis(array, axis, 0)
        shape = [grid.image.shape[axis], *(size for n, size in enumerate(grid.image.shape) if n != axis)]
        self._edges = coarse_edges(self._array.shape[0], shape[0])
        self._plane_shape = tuple(shape[1:])
        self.planes = _chosen(shape[0], max(int(slicing.distance_mm / grid.spacing[axis] + 1e-3), 1))
        lengths = np.array([size for n, size in enumerate(grid.image.shape) if n != axis], float)
        if slicing.physical_aspect:
            lengths *= [mm for n, mm in enumerate(grid.spacing) if n != axis]
        else:
            lengths = np.array(self._array.shape[1:], float)
        self._drawn = tuple(int(n) for n in np.maximum(np.rint(lengths * (encoder.side / lengths.max())), 1))

    def encoded(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield plane after plane with its features on the working grid: float32 [rows, columns, channels]."""
        size = GPU_BATCH if self._encoder.device.type == "cuda" else 1
        for start in range(0, len(self.planes), size):
            planes = self.planes[start : start + size]
            found = self._encoder.features(torch.stack([self._drawing(plane) for plane in planes]))
            yield from zip(planes, self._on_grid(found), strict=True)

    def _drawing(self, plane: int) -> torch.Tensor:
        """Return a slice (the mean over the working grid's voxel) as a square, 0..1, zeros below and on the right."""
        hu = self._array[self._edges[plane] : self._edges[plane + 1]].mean(axis=0, dtype=np.float32)
        low, high = self._encoder.window_hu
        image = ((torch.from_numpy(hu).to(self._encoder.device) - low) / (high - low)).clamp_(0.0, 1.0)
        image = interpolate(image[None, None], self._drawn, mode="bilinear", antialias=True)[0, 0]
        rows, columns = self._drawn
        return pad(image, (0, self._encoder.side - columns, 0, self._encoder.side - rows))

    def _on_grid(self, features: torch.Tensor) -> np.ndarray:
        scale = features.shape[-1] / self._encoder.side
        rows, columns = (max(round(size * scale), 1) for size in self._drawn)
        features = features[..., :rows, :columns]
        features = interpolate(features, self._plane_shape, mode="bilinear", antialias=True)
        return features.permute(0, 2, 3, 1).cpu().numpy()


def _chosen(count: int, stride: int) -> list[int]:
    """Return every ``stride``-th plane and the last one."""
    return sorted({*range(0, count, stride), count - 1})
