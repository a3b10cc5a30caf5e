"""Coarse to fine: a cheap look at the whole volume tells where a few structures are."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from VISTA3DCore.anatomy.structure import Structure
from VISTA3DCore.errors import ModelError, SlowerWarning
from VISTA3DCore.imaging.components import bounding_box, large_pieces
from VISTA3DCore.imaging.geometry import spacing_of
from VISTA3DCore.imaging.resampling import resample_to_spacing
from VISTA3DCore.inference.automatic.feature_map import AutomaticBackend, FeaturePass
from VISTA3DCore.inference.automatic.labels import ClassScores, LabelMap
from VISTA3DCore.inference.automatic.resample_to_input import Grids, NearestRestorer
from VISTA3DCore.inference.preprocessing import Box, ModelGrid
from VISTA3DCore.inference.windows import PRESETS, WindowLayout
from VISTA3DCore.progress import Progress

# How much coarser a model looks with its own weights: less than a third of the windows, and what it was trained for
# still looks alike.
_COARSER = 1.5
# The small model looks for one whose voxels are at least this much finer than its own: it is weaker than a model that
# looks for itself, and pays where that would take many times as long.
_WORTH_IT = 2.0
_SMALL_MODEL = "mini"
# What a coarse result may miss of a structure on each side.
_MARGIN_MM = 20.0
# Pieces below this share of a structure's largest one do not count: coarse results have specks elsewhere.
_SMALL_SHARE = 0.2
# A structure with fewer coarse voxels than this counts as not found.
_FEWEST_VOXELS = 8


@dataclass(frozen=True, eq=False)
class Locator:
    """What looks for structures.

    :param backend: its network.
    :param spacing: of the grid on which it looks, in mm.
    """

    backend: AutomaticBackend
    spacing: tuple[float, float, float]

    def labels(
        self, structures: tuple[Structure, ...], grid: ModelGrid, progress: Progress
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return coarse labels (uint16) and masks (bool, by index), brought to the model grid by nearest neighbour.

        :raises Cancelled: if ``progress`` was cancelled.
        """
        image, affine = resample_to_spacing(grid.image, grid.affine, self.spacing)
        image = np.ascontiguousarray(image)
        layout = WindowLayout(image.shape, self.backend.config.window, PRESETS["bundle"])
        grids = Grids(affine, image.shape, grid.affine, grid.shape)
        restorer = NearestRestorer(ClassScores(self.backend, structures), grids)
        for block in FeaturePass(self.backend, torch.from_numpy(image)[None, None], layout).stream(progress):
            restorer.take(block, progress)
            del block  # or the last one keeps all features in memory
        return restorer.result(Progress())

    def find(self, structures: tuple[Structure, ...], grid: ModelGrid, progress: Progress) -> np.ndarray | None:
        """Return the boxes of some structures with 20 mm around them, bool on the model grid.

        :return: None if any of them was not found, so that the whole volume has to be looked at.
        :raises Cancelled: if ``progress`` was cancelled.
        """
        labels, masks = self.labels(structures, grid, progress)
        spacing = spacing_of(grid.affine)
        fewest = _FEWEST_VOXELS * float(np.prod(np.array(self.spacing) / spacing))
        needed = np.zeros(grid.shape, dtype=bool)
        for structure in structures:
            mask = large_pieces(_mask_of(structure.index, labels, masks), _SMALL_SHARE)
            if np.count_nonzero(mask) < fewest:
                return None
            margins = np.ceil(_MARGIN_MM / spacing).astype(int)
            needed[tuple(_wider(part, margin) for part, margin in zip(bounding_box(mask), margins, strict=True))] = True
        return needed


def _wider(part: slice, margin: int) -> slice:
    return slice(max(part.start - int(margin), 0), part.stop + int(margin))


def reaches_cut(structures: tuple[Structure, ...], label_map: LabelMap, box: Box, whole: Box) -> bool:
    """Return whether a structure was found at a side of a box that is not a side of the whole: it may go on there.

    Small pieces do not count, as in the coarse look.
    """
    sides = [
        (axis, side)
        for axis, (inner, outer) in enumerate(zip(box, whole, strict=True))
        for side in [0] * (inner.start > outer.start) + [-1] * (inner.stop < outer.stop)
    ]
    masks = label_map.masks
    for structure in structures:
        mask = _mask_of(structure.index, label_map.labels, masks)
        if any(mask.take(side, axis=axis).any() for axis, side in sides):
            large = large_pieces(mask, _SMALL_SHARE)
            if any(large.take(side, axis=axis).any() for axis, side in sides):
                return True
    return False


def _mask_of(index: int, labels: np.ndarray, masks: dict[int, np.ndarray]) -> np.ndarray:
    mask = masks.get(index)
    return labels == index if mask is None else mask


def warn_of_unsure(reason: str) -> None:
    """Tell the user why the whole volume is worked on after all."""
    warnings.warn(f"{reason}; the whole volume is segmented instead.", SlowerWarning, stacklevel=2)


def locator_for(backend: AutomaticBackend, structures: tuple[Structure, ...]) -> Locator:
    """Return what looks for some structures: the bundled small model, or else the model itself on a coarser grid.

    The small model needs a thousandth of the time, but has to know all of them, and must be the coarser one.
    """
    return _small_locator(backend, structures) or Locator(
        backend, tuple(_COARSER * length for length in backend.config.spacing)
    )


def painter_for(backend: AutomaticBackend, structures: tuple[Structure, ...]) -> tuple[Locator, tuple[Structure, ...]]:
    """Return what paints a first picture in mid-run, and of which structures.

    If the small model knows most of them, those suffice: the others come with the windows, and the model's own look at
    everything would cost a third of the run.
    """
    small = _small_backend(str(backend.device))
    known = () if small is None else tuple(one for one in structures if one.index in small.config.classes)
    locator = _small_locator(backend, known) if 2 * len(known) > len(structures) else None
    return (locator_for(backend, structures), structures) if locator is None else (locator, known)


def _small_locator(backend: AutomaticBackend, structures: tuple[Structure, ...]) -> Locator | None:
    small = _small_backend(str(backend.device))
    if small is None or small.config.label_set != backend.config.label_set:
        return None
    coarse = min(small.config.spacing) >= _WORTH_IT * max(backend.config.spacing)
    known = {structure.index for structure in structures} <= set(small.config.classes)
    return Locator(small, small.config.spacing) if coarse and known else None


@lru_cache(maxsize=1)
def _small_backend(device: str) -> AutomaticBackend | None:
    """Return the bundled model on a device; None where the installation lacks it."""
    from VISTA3DCore.backends.torch_backend import TorchBackend
    from VISTA3DCore.models.checkpoints import load_checkpoint
    from VISTA3DCore.models.store import ModelStore
    from VISTA3DCore.network.architecture import build_network

    try:
        config, state = load_checkpoint(ModelStore().resolve(_SMALL_MODEL))
    except ModelError:
        return None
    network = build_network(config)
    network.load_state_dict(state)
    return TorchBackend(network, config, device)
