"""Labels on the model grid and their way back by nearest neighbour, on the device: only the result leaves it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from VISTA3DCore.imaging.geometry import ras_orientation
from VISTA3DCore.inference.automatic import ClassScores, row_chunks
from VISTA3DCore.inference.feature_map import Block
from VISTA3DCore.inference.transfers import download
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
        self._labels = torch.zeros(model_shape, dtype=torch.uint8 if narrow else torch.int16, device=device)
        self._masks = torch.zeros((len(scores.overlapping), *model_shape), dtype=torch.bool, device=device)
        # The input grid's axes, the slowest of a Fortran array first.
        self._order = np.argsort(ras_orientation(target_affine)[0])[::-1].tolist()
        self._inside = [np.flatnonzero(line >= 0) for line in lines[::-1]]
        found = zip(lines[::-1], self._inside, strict=True)
        self._lines = [torch.from_numpy(line[inside]).to(device) for line, inside in found]

    @torch.inference_mode()
    def take(self, block: Block, progress: Progress | None = None) -> None:
        """Label the voxels of one block of features, wherever they lie.

        :raises Cancelled: if ``progress`` was cancelled.
        """
        length = block.stop - block.start
        labels = self._labels.narrow(block.axis, block.start, length)
        masks = self._masks.narrow(1 + block.axis, block.start, length)
        for rows in row_chunks(block.features):
            Progress.of(progress).check()
            chunk = block.features[:, rows]
            found, inside = self._scores.classify_there(chunk.movedim(0, -1).flatten(0, 2).T)
            labels[rows].copy_(found.view(chunk.shape[1:]))
            masks[:, rows].copy_(inside.view(-1, *chunk.shape[1:]))

    def result(self, progress: Progress) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return labels (uint16) and masks (bool) on the input grid."""
        share = 1.0 / (1 + len(self._masks))
        labels = self._restored(self._labels, np.uint16, progress.part(0.0, share))
        masks = {
            index: self._restored(mask, bool, progress.part(share * number, share * (number + 1)))
            for number, (index, mask) in enumerate(zip(self._scores.overlapping, self._masks, strict=True), start=1)
        }
        return labels, masks

    @torch.inference_mode()
    def _restored(self, labels: torch.Tensor, dtype: type, progress: Progress) -> np.ndarray:
        result = np.zeros(self._shape, dtype=dtype, order="F")
        if not all(len(line) for line in self._lines):
            return result
        source, target = labels.permute(self._order), result.T
        for planes in self._parts():
            place = self._inside[0][planes]
            found = labels.new_zeros((len(place), *target.shape[1:]))
            low = [int(inside[0]) for inside in self._inside[1:]]
            rows, columns = (slice(first, first + len(line)) for first, line in zip(low, self._lines[1:], strict=True))
            along = self._lines[0][planes][:, None, None], self._lines[1][:, None], self._lines[2]
            found[:, rows, columns] = source[along]
            download(found, target[place[0] : place[-1] + 1])
            progress.update((place[-1] + 1) / len(target), "Restoring")
        return result

    def _parts(self) -> Iterator[slice]:
        """Cut the planes of the input grid that hold something into parts of bounded size."""
        count = len(self._lines[0])
        step = max(1, _VOXELS // (self._shape[0] * self._shape[1]))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))
