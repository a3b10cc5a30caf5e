"""Image grids as they occur: affines to RAS mm (exact in float32, as NIfTI stores them) and shapes."""

from __future__ import annotations

import numpy as np
from reference_chain import rotation


def affine_of(spacing, directions=None, origin=(-80.0, -60.0, -70.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(np.float64)


GEOMETRIES = {
    "RAS": ((84, 66, 60), affine_of((2.0, 2.0, 2.0))),
    "LPS": ((84, 66, 60), affine_of((2.0, 2.0, 2.0), np.diag([-1.0, -1.0, 1.0]), (80.0, 60.0, -70.0))),
    "oblique": ((80, 64, 56), affine_of((2.1, 2.1, 2.3), rotation((7.0, -12.0, 18.0)))),
    "anisotropic": ((140, 110, 26), affine_of((1.25, 1.25, 5.0))),
    "sagittal": ((60, 84, 66), affine_of((2.0, 2.0, 2.0), np.eye(3)[:, [2, 0, 1]] * [1, -1, 1])),
    "halved": ((128, 100, 100), affine_of((1.25, 1.25, 1.25))),
}
