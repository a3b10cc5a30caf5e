"""Fixtures of the tests on real MRML nodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# The package slicer takes in every folder of its name on the path, so it would import this one, all tests included.
_path = list(sys.path)
sys.path[:] = [one for one in _path if Path(one or ".").resolve() != Path(__file__).resolve().parents[1]]
import slicer  # noqa: E402

sys.path[:] = _path

from mrml_scene import AFFINES, SHAPE, TRANSFORMS, Application, ball  # noqa: E402


@pytest.fixture
def app() -> Iterator[Application]:
    """Return a fresh scene with the module logics of Slicer, without Qt; it is empty afterwards."""
    application = Application()
    yield application
    application.scene.Clear(True)


@pytest.fixture
def ct(app: Application) -> slicer.vtkMRMLScalarVolumeNode:
    """Return a CT that lies obliquely in the scanner, with anisotropic voxels."""
    return app.add_volume(SHAPE, AFFINES["oblique"])


@pytest.fixture(params=AFFINES)
def any_ct(app: Application, request: pytest.FixtureRequest) -> slicer.vtkMRMLScalarVolumeNode:
    """Return CTs of all orientations: straight, flipped, left-handed, oblique, anisotropic."""
    return app.add_volume(SHAPE, AFFINES[request.param])


@pytest.fixture(params=TRANSFORMS)
def placed(app: Application, request: pytest.FixtureRequest) -> tuple:
    """Return a CT and a segmentation for it, each under the transforms of one of the cases."""
    return TRANSFORMS[request.param](app)


@pytest.fixture
def truth(ct: slicer.vtkMRMLScalarVolumeNode) -> np.ndarray:
    """Return the mask of a ball on the CT's grid, bool [i, j, k]."""
    return ball(ct)
