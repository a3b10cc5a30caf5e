"""From features to labels: scores per class, an exclusive label map, and masks for overlapping structures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.backends.cuda.kernels.choice import kernels_for
from VISTA3DCore.backends.memory import with_room
from VISTA3DCore.backends.transfers import to_host
from VISTA3DCore.inference.automatic.feature_map import AutomaticBackend, Block
from VISTA3DCore.progress import Progress

# Voxels scored at once: on the CPU scores of 117 classes then stay in the cache; on a GPU launches must be worth it.
_CHUNK = {"cpu": 1 << 14}
_CHUNK_ON_GPU = 1 << 22


class ClassScores:
    """The requested classes of one model, ready to score features.

    Exclusive classes compete by argmax. Overlapping ones (tumours, hepatic vessels, airway) lie within other
    structures and would vanish under them, or they would cut holes into them: each is a mask of its own.

    :param structures: in the order asked for, which decides ties.
    """

    def __init__(self, backend: AutomaticBackend, structures: tuple[Structure, ...]) -> None:
        self.exclusive = tuple(structure.index for structure in structures if not structure.overlapping)
        self.overlapping = tuple(structure.index for structure in structures if structure.overlapping)
        self._matrix = backend.class_matrix([*self.exclusive, *self.overlapping]).T.contiguous()
        self._values = torch.tensor(self.exclusive, dtype=torch.int32, device=self._matrix.device)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._matrix.device

    def classify(self, features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Return labels [n] (uint16) and masks [m, n] (bool) of voxels with features [C, n] (float32).

        Labels are catalogue indices, 0 where no exclusive score is positive; masks are where a score is. The first of
        equal scores wins, as in ``VistaPostTransformd`` of monai/apps/vista3d/transforms.py.
        """
        labels, masks = self.classify_there(features.T)
        return to_host(labels).astype(np.uint16), to_host(masks)

    @torch.inference_mode()
    def classify_there(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`classify` for features [..., C], with tensors [...]; labels are int16.

        They are on the features' device, or on the host where that has no memory left.
        """
        return with_room(lambda: self._classify(features), lambda: self._classify(features.cpu()))

    def _classify(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        device = features.device
        return kernels_for(device).classify(features, self._matrix.to(device).T, self._values.to(device))


class LabelMap:
    """Labels and masks on the model grid, filled block by block.

    :param shape: the model grid's shape.
    """

    def __init__(self, scores: ClassScores, shape: tuple[int, int, int]) -> None:
        self._scores = scores
        self.labels = np.zeros(shape, dtype=np.uint16)
        # A bit for each mask: an eighth of what bool arrays take.
        self.bits = np.zeros((-(-len(scores.overlapping) // 8), *shape), dtype=np.uint8)

    @property
    def masks(self) -> dict[int, np.ndarray]:
        """The masks by index, copies."""
        return dict(self.each_mask())

    def each_mask(self) -> Iterator[tuple[int, np.ndarray]]:
        """Hand out one mask after the other, with its index."""
        return ((index, _bit(self.bits, number)) for number, index in enumerate(self._scores.overlapping))

    def plane(self, axis: int, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the labels and the masks of one plane."""
        bits = np.take(self.bits, number, axis=1 + axis)
        masks = [_bit(bits, mask) for mask in range(len(self._scores.overlapping))]
        return np.take(self.labels, number, axis=axis), masks

    def take(self, block: Block, progress: Progress | None = None) -> None:
        """Label the voxels of one block of features, which come once.

        :raises Cancelled: if ``progress`` was cancelled.
        """
        labels, bits = self.labels[block.box], self.bits[(slice(None), *block.box)]
        for rows in row_chunks(block.features):
            Progress.of(progress).check()
            chunk = block.features[:, rows]
            found, inside = classify_voxels(self._scores, chunk.flatten(1))
            labels[rows] = found.reshape(chunk.shape[1:])
            for number, voxels in enumerate(inside):
                bits[number // 8, rows] |= voxels.reshape(chunk.shape[1:]).view(np.uint8) << number % 8


def _bit(bits: np.ndarray, number: int) -> np.ndarray:
    """Return one of the masks that lie in bits [n, ...]."""
    return (bits[number // 8] & (1 << number % 8)) != 0


def classify_voxels(scores: ClassScores, features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """As :meth:`ClassScores.classify`, for any number of voxels [C, n] in bounded memory."""
    parts = [scores.classify(part) for part in features.split(_chunk_size(features.device), dim=1)]
    labels, masks = zip(*parts, strict=True)
    return np.concatenate(labels), np.concatenate(masks, axis=1)


def score_block(block: Block, class_vector: torch.Tensor) -> np.ndarray:
    """Return one class's scores (logits) on the voxels of a block, float32 [x, y, z].

    :param class_vector: [C].
    """
    vector = class_vector.to(block.features.device)
    rows = [torch.tensordot(vector, block.features[:, rows], dims=1) for rows in row_chunks(block.features)]
    return torch.cat(rows).cpu().numpy()


def _chunk_size(device: torch.device) -> int:
    return _CHUNK.get(device.type, _CHUNK_ON_GPU)


def row_chunks(features: torch.Tensor) -> Iterator[slice]:
    """Cut the first spatial axis of features [C, x, y, z] so that a chunk has about the right number of voxels."""
    _, rows, columns, depth = features.shape
    step = max(1, _chunk_size(features.device) // (columns * depth))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
