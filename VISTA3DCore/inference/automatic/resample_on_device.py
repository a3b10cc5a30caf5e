"""Labels on the model grid and their way back by nearest neighbour, on the device: only the result leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from VISTA3DCore.backends.memory import with_room
from VISTA3DCore.backends.transfers import download
from VISTA3DCore.imaging.geometry import ras_orientation
from VISTA3DCore.imaging.masks import BitMasks
from VISTA3DCore.inference.automatic.feature_map import Block
from VISTA3DCore.inference.automatic.labels import ClassScores, row_chunks
from VISTA3DCore.progress import Progress

# Voxels of the input grid that are on the device at once.
_VOXELS = 1 << 24


class DeviceRestorer:
    """As ``NearestRestorer``, but labels stay on a device until they lie on the input grid.

    :param model_shape: of the model grid; :param target_affine: of the input grid; :param target_shape: its shape.
    :param lines: what :func:`VISTA3DCore.imaging.resampling.nearest_lines` returns.
    """

    def __init__(
        self,
        scores: ClassScores,
        model_shape: tuple[int, int, int],
        target_affine: np.ndarray,
        target_shape: tuple[int, int, int],
        lines: tuple[np.ndarray, np.ndarray, np.ndarray],
        device: torch.device,
    ) -> None:
        self._scores, self._shape = scores, target_shape
        narrow = max(scores.exclusive, default=0) < 256

        def empty(place: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
            # A bit for each mask: an eighth of what bool tensors take.
            bits = torch.zeros((-(-len(scores.overlapping) // 8), *model_shape), dtype=torch.uint8, device=place)
            return torch.zeros(model_shape, dtype=torch.uint8 if narrow else torch.int16, device=place), bits

        self._labels, self._bits = with_room(lambda: empty(device), lambda: empty("cpu"))
        # The input grid's axes, the slowest of a Fortran array first.
        self._order = np.argsort(ras_orientation(target_affine)[0])[::-1].tolist()
        self._lines = lines[::-1]

    @torch.inference_mode()
    def take(self, block: Block, progress: Progress | None = None) -> None:
        """Label the voxels of one block of features, wherever they lie; each voxel comes once.

        :raises Cancelled: if ``progress`` was cancelled.
        """
        labels, bits = self._labels[block.box], self._bits[(slice(None), *block.box)]
        for rows in row_chunks(block.features):
            Progress.of(progress).check()
            chunk = block.features[:, rows]
            found, inside = self._scores.classify_there(chunk.movedim(0, -1))
            labels[rows].copy_(found)
            for number, voxels in enumerate(inside):
                bits[number // 8, rows] |= voxels.to(bits.device, torch.uint8) << number % 8

    def result(self, progress: Progress) -> tuple[np.ndarray, BitMasks]:
        """Return labels (uint16) and masks on the input grid."""
        masks = BitMasks(self._scores.overlapping, self._shape)
        share = 1.0 / (1 + len(masks.bytes))
        labels = self._restored(lambda: self._labels, np.uint16, progress.part(0.0, share))
        for number in range(len(masks.bytes)):
            part = progress.part(share * (number + 1), share * (number + 2))
            masks.bytes[number] = self._restored(partial(self._bits_of, number), np.uint8, part)
        return labels, masks

    def _restored(self, labels: Callable[[], torch.Tensor], dtype: type, progress: Progress) -> np.ndarray:
        """Return labels on the input grid; what the device has no memory for is done on the host."""

        def on_host() -> np.ndarray:
            self._labels, self._bits = self._labels.cpu(), self._bits.cpu()
            return self._placed(labels(), dtype, progress)

        return with_room(lambda: self._placed(labels(), dtype, progress), on_host)

    def _bits_of(self, number: int) -> torch.Tensor:
        return self._bits[number]

    @torch.inference_mode()
    def _placed(self, labels: torch.Tensor, dtype: type, progress: Progress) -> np.ndarray:
        # Zeros cost nothing before somebody looks at them, so only the box that holds something is written.
        result = np.zeros(self._shape, dtype=dtype, order="F")
        source = labels.permute(self._order)
        places = [_seen(line, *span) for line, span in zip(self._lines, _spans(source), strict=True)]
        if not all(len(place) for place in places):
            return result
        target = result.T[tuple(slice(place[0], place[-1] + 1) for place in places)]
        planes, rows, columns = (
            torch.from_numpy(line[place]).to(labels.device) for line, place in zip(self._lines, places, strict=True)
        )
        for part in _parts(target.shape):
            download(source[planes[part, None, None], rows[:, None], columns], target[part])
            progress.update(part.stop / len(target), "Restoring")
        return result


def _spans(labels: torch.Tensor) -> list[tuple[int, int]]:
    """Return the first index along each axis where there is something, and the last; (0, -1) where there is nothing."""
    found = labels != 0
    profiles = [found.any(2).any(1), found.any(2).any(0), found.any(1).any(0)]
    places = [np.flatnonzero(profile.cpu().numpy()) for profile in profiles]
    return [(int(place[0]), int(place[-1])) if len(place) else (0, -1) for place in places]


def _seen(line: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the input voxels along an axis, one after the other, that show model voxels first to last."""
    return np.flatnonzero((line >= first) & (line <= last))


def _parts(shape: tuple[int, ...]) -> Iterator[slice]:
    """Cut planes into parts of bounded size."""
    step = max(1, _VOXELS // (shape[1] * shape[2]))
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
