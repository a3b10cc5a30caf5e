"""Where in the model grid the network works: everything, or a box of it, or only the windows that matter."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from VISTA3DCore.imaging.components import bounding_box
from VISTA3DCore.imaging.geometry import Region
from VISTA3DCore.inference.automatic.body import find_body
from VISTA3DCore.inference.preprocessing import Box, ModelGrid
from VISTA3DCore.inference.region import context_box, grown
from VISTA3DCore.inference.windows import Preset, Shape, WindowLayout
from VISTA3DCore.network.config import ModelConfig


@dataclass(frozen=True, eq=False)
class Scope:
    """Voxels of the model grid to compute.

    :param box: at least one window long on each axis where the grid is.
    :param needed: bool [i, j, k] of the whole model grid; windows without any such voxel are skipped. None: none is.
    """

    box: Box
    needed: np.ndarray | None = None

    def layout(self, window: Shape, preset: Preset) -> WindowLayout:
        """Return the windows of the box."""
        layout = WindowLayout(tuple(axis.stop - axis.start for axis in self.box), window, preset)
        if self.needed is None:
            return layout
        needed = self.needed[self.box]
        skipped = frozenset(start for start in layout.windows if not needed[layout.box_of(start)].any())
        return replace(layout, skipped=skipped)

    def narrowed(self, needed: np.ndarray, window: Shape) -> Scope | None:
        """Return the part of the scope around some voxels, or None where none of them lies in it.

        :param needed: bool of the whole model grid.
        """
        found = bounding_box(needed[self.box])
        if found is None:
            return None
        tight = [
            slice(axis.start + part.start, axis.start + part.stop) for axis, part in zip(self.box, found, strict=True)
        ]
        sides = zip(tight, needed.shape, window, strict=True)
        box = tuple(grown(part, size, side, margin=0) for part, size, side in sides)
        return Scope(box, needed if self.needed is None else needed & self.needed)


def whole(shape: tuple[int, int, int]) -> Box:
    """Return the box of everything."""
    return tuple(slice(0, size) for size in shape)


def scope_of(
    region: Region | None,
    body_crop: bool,
    grid: ModelGrid,
    target_affine: np.ndarray,
    target_shape: tuple[int, int, int],
    config: ModelConfig,
) -> Scope | None:
    """Return what a run has to compute.

    :return: None where there is air only.
    :raises InputError: if the region lies outside the volume, or the body cannot be told from air.
    """
    box = context_box(region, grid, target_affine, target_shape, config.window)
    scope = None if box is None else Scope(box)
    if scope is not None and body_crop:
        scope = scope.narrowed(find_body(grid, config), config.window)
    return scope
