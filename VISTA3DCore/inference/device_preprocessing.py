"""Preprocessing on a GPU: the same steps with the same roundings as on the host, on an image that is uploaded once."""

from __future__ import annotations

import math
import warnings
from functools import cached_property

import numpy as np
import torch

from VISTA3DCore.backends.devices import free_memory
from VISTA3DCore.backends.memory import with_room
from VISTA3DCore.backends.transfers import to_host, upload
from VISTA3DCore.imaging.geometry import ras_orientation, to_ras
from VISTA3DCore.imaging.resampling import SeparablePlan
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic.patches import IMAGE_SHARE
from VISTA3DCore.inference.preprocessing import Box, ModelGrid, model_spacing, span
from VISTA3DCore.network.config import ModelConfig

# Bytes that may exist at once for a part of the planes: in float32, and the two neighbours of a resampled axis.
_PART_BYTES = 256 << 20
_BYTES_PER_VOXEL = 12
# The same for each voxel of the result: resampled, scaled, and reoriented.
_BYTES_PER_RESULT = 12
_TYPES = ("u1", "i1", "i2", "i4", "f4", "f8")


def preprocess_there(volume: Volume, config: ModelConfig, device: torch.device) -> ModelGrid | None:
    """As :func:`VISTA3DCore.inference.preprocessing.preprocess`, or None where it is better done on the host.

    That is where nothing is to be resampled, where axes do not separate, where intensities are scaled by percentiles,
    and where memory is short.
    """
    plan = SeparablePlan.of(volume.shape, volume.affine, model_spacing(volume.affine, config))
    if plan is None or config.intensity_percentiles is not None:
        return None
    if _PART_BYTES + _BYTES_PER_RESULT * math.prod(plan.shape) > free_memory(device):
        return None
    grid = with_room(lambda: _grid(_resampled(volume.array, plan, device), plan.affine, config), lambda: None)
    if grid is None:
        return None
    # What that took is too fragmented for the sums to come, and other programs may want it.
    torch.cuda.empty_cache()
    return grid if grid.tensor.nbytes <= IMAGE_SHARE * free_memory(device) else ModelGrid(grid.image, grid.affine)


class DeviceGrid(ModelGrid):
    """A grid whose image lies on a device; the host gets a copy when it asks for one.

    :param tensor: the image, [i, j, k].
    """

    def __init__(self, tensor: torch.Tensor, affine: np.ndarray) -> None:
        object.__setattr__(self, "_tensor", tensor)
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self._tensor.shape)

    @property
    def tensor(self) -> torch.Tensor:
        return self._tensor

    @cached_property
    def image(self) -> np.ndarray:
        return to_host(self._tensor)

    def crop(self, box: Box) -> DeviceGrid:
        return DeviceGrid(self._tensor[box], self.affine_of(box))


@torch.inference_mode()
def _resampled(array: np.ndarray, plan: SeparablePlan, device: torch.device) -> torch.Tensor:
    """Resample some planes after the other, along the axis that is the slowest in memory."""
    result = torch.empty(plan.shape, device=device)
    along = 2 if array.flags.f_contiguous else 0
    steps = {axis: (low, high, weight) for axis, low, high, weight in plan.steps}
    planes = max(1, _PART_BYTES // (_BYTES_PER_VOXEL * (array.size // array.shape[along])))
    count = max(1, planes * plan.shape[along] // array.shape[along])
    for start in range(0, plan.shape[along], count):
        stop = min(start + count, plan.shape[along])
        first, last, lines = start, stop - 1, dict(steps)
        if along in steps:
            low, high, weight = (line[start:stop] for line in steps[along])
            first, last = int(low.min()), int(high.max())
            lines[along] = low - first, high - first, weight
        part = array[first : last + 1] if along == 0 else array[:, :, first : last + 1]
        result.narrow(along, start, stop - start).copy_(_part(_uploaded(part, device).float(), lines))
    return result


def _part(image: torch.Tensor, lines: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> torch.Tensor:
    """Resample a part of the image along each axis that has lines, in their order."""
    for axis, (low, high, weight) in lines.items():
        below, above = (image.index_select(axis, torch.from_numpy(index).to(image.device)) for index in (low, high))
        shape = [-1 if number == axis else 1 for number in range(3)]
        # Three steps, not lerp: each rounds, as on the host.
        image = above.sub_(below).mul_(torch.from_numpy(weight).to(image.device).view(shape)).add_(below)
    return image


def _uploaded(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return an array on the device in its own type where torch knows it; the memory's order stays."""
    if array.dtype.str[1:] not in _TYPES or not array.dtype.isnative:
        array = array.astype(np.float32)
    backwards = array.flags.f_contiguous and not array.flags.c_contiguous
    source = np.ascontiguousarray(array.T if backwards else array)
    with warnings.catch_warnings():
        # Arrays of another process are read-only, and nothing is written here.
        warnings.filterwarnings("ignore", message=".*not writable")
        tensor = upload(torch.from_numpy(source), device)
    return tensor.permute(2, 1, 0) if backwards else tensor


@torch.inference_mode()
def _grid(image: torch.Tensor, affine: np.ndarray, config: ModelConfig) -> ModelGrid:
    box = _foreground_box(image)
    affine = ModelGrid(np.empty(0), affine).affine_of(box)
    low, high = config.intensity_range
    image = image[box] - np.float32(low).item()
    image = image.div_(image.new_tensor(high - low)).clamp_(0.0, 1.0)
    permutation, flips = ras_orientation(affine)
    reoriented = image.flip([axis for axis, flip in enumerate(flips) if flip]).permute(permutation)
    # The affine of the array that is flipped and permuted likewise; only the shape of the array counts.
    _, affine = to_ras(np.broadcast_to(np.float32(0), tuple(image.shape)), affine)
    return DeviceGrid(reoriented.contiguous(), affine)


def _foreground_box(image: torch.Tensor) -> Box:
    """As :func:`VISTA3DCore.inference.preprocessing.foreground_box`."""
    inside = image > 0
    profiles = [inside.any(2).any(1), inside.any(2).any(0), inside.any(1).any(0)]
    profiles = [profile.cpu().numpy() for profile in profiles]
    if not profiles[0].any():
        return tuple(slice(0, size) for size in image.shape)
    return tuple(span(profile) for profile in profiles)
