"""Where the sliding windows lie and how much weight each of their voxels has.

Both equal MONAI's ``sliding_window_inference`` (monai/inferers/utils.py, monai/data/utils.py): instance statistics are
computed per window, so the layout of the windows is part of the model's behaviour.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from VISTA3DCore.errors import InputError

Shape = tuple[int, int, int]

_GAUSSIAN_SIGMA = 0.125  # of the window's side; MONAI's default and the research repository's setting
_SMALLEST_WEIGHT = 1e-3  # MONAI's floor, which keeps far corners of a window from weighing nothing


@dataclass(frozen=True)
class Preset:
    """How windows overlap and blend.

    :param overlap: fraction of a window's side shared with its neighbour.
    :param blending: ``constant`` or ``gaussian``.
    """

    name: str
    overlap: float
    blending: str


# bundle: what the released bundle really runs; its declared overlap 0.3 never reaches the inferer.
# paper: the research repository's configs/infer.yaml.
PRESETS = {
    "bundle": Preset("bundle", 0.25, "constant"),
    "paper": Preset("paper", 0.625, "gaussian"),
}


def find_preset(preset: str | Preset) -> Preset:
    """Return a preset by name.

    :raises InputError: if there is no such preset.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'; use one of: {', '.join(PRESETS)}.")
    return PRESETS[preset]


def axis_starts(size: int, window: int, overlap: float) -> list[int]:
    """Return the windows' first voxels along one axis; the last window ends at the edge.

    :param size: voxels along the axis, at least ``window``.
    """
    stride = max(int(window * (1 - overlap)), 1)
    return [min(start, size - window) for start in range(0, size - window + stride, stride)]


@dataclass(frozen=True)
class WindowLayout:
    """All windows of one volume.

    Volumes smaller than the window are padded on both sides (the odd voxel behind). Window positions are voxel
    indices of the padded volume.

    :param shape: the volume's shape in voxels.
    :param window: sides of the window in voxels.
    :param skipped: windows that hold nothing of interest and do not run, by their first voxels.
    """

    shape: Shape
    window: Shape
    preset: Preset
    skipped: frozenset[Shape] = frozenset()

    @cached_property
    def padded_shape(self) -> Shape:
        return tuple(max(size, side) for size, side in zip(self.shape, self.window, strict=True))

    @cached_property
    def pad_before(self) -> Shape:
        return tuple((whole - size) // 2 for whole, size in zip(self.padded_shape, self.shape, strict=True))

    @cached_property
    def starts(self) -> tuple[list[int], list[int], list[int]]:
        sides = zip(self.padded_shape, self.window, strict=True)
        return tuple(axis_starts(size, side, self.preset.overlap) for size, side in sides)

    @cached_property
    def windows(self) -> list[Shape]:
        """First voxel of every window in MONAI's order (first axis slowest)."""
        return [start for start in itertools.product(*self.starts) if start not in self.skipped]

    @cached_property
    def slab_axis(self) -> int:
        """The axis along which a slab of one window's thickness holds the fewest voxels."""
        windows_long = [size / side for size, side in zip(self.padded_shape, self.window, strict=True)]
        return max(range(3), key=lambda axis: (windows_long[axis], axis))

    @cached_property
    def layers(self) -> list[list[Shape]]:
        """The windows grouped by their start along the slab axis, in ascending order."""
        axis = self.slab_axis
        return [[window for window in self.windows if window[axis] == start] for start in self.starts[axis]]

    @cached_property
    def boundaries(self) -> list[int]:
        """Planes along the slab axis: after layer i, the planes before boundaries[i + 1] are final."""
        return [*self.starts[self.slab_axis], self.padded_shape[self.slab_axis]]

    def box_of(self, start: Shape) -> tuple[slice, slice, slice]:
        """Return the voxels of the volume, padding left out, that a window covers."""
        sides = zip(start, self.window, self.pad_before, self.shape, strict=True)
        return tuple(
            slice(max(first - before, 0), min(first - before + side, size)) for first, side, before, size in sides
        )

    def pad(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image [1, 1, x, y, z] padded to at least one window by repeating its border.

        Replication is what the released bundle does since 0.5.7.
        """
        amounts = []
        for axis in (2, 1, 0):
            before = self.pad_before[axis]
            amounts += [before, self.padded_shape[axis] - self.shape[axis] - before]
        return functional.pad(image, amounts, mode="replicate") if any(amounts) else image

    def weights(self, device: torch.device | str = "cpu") -> torch.Tensor | None:
        """Return a window's blending weights [w, w, w] (float32), or None where all are one."""
        return gaussian_weights(self.window, device) if self.preset.blending == "gaussian" else None


def gaussian_weights(window: Shape, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return gaussian blending weights [w, w, w], as MONAI's ``compute_importance_map`` computes them in float32."""
    weights = torch.ones(())
    for side in window:
        offsets = torch.arange(-(side - 1) / 2.0, (side - 1) / 2.0 + 1, dtype=torch.float32, device=device)
        curve = torch.exp(offsets**2 / (-2 * (_GAUSSIAN_SIGMA * side) ** 2))
        weights = weights.to(device).unsqueeze(-1) * curve
    return weights.clamp_(min=max(weights.min().item(), _SMALLEST_WEIGHT))


def crop_window(volume: torch.Tensor, start: Shape, window: Shape) -> torch.Tensor:
    """Return a view of the last three axes of a tensor from ``start``, ``window`` voxels long."""
    for axis in range(3):
        volume = volume.narrow(volume.ndim - 3 + axis, start[axis], window[axis])
    return volume
