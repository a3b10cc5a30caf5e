"""Fixtures of the tests on real MRML nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import slicer
from mrml_scene import AFFINES, SHAPE, TRANSFORMS, Application, ball


@pytest.fixture(autouse=True)
def _closed_applications() -> Iterator[None]:
    """Close the applications of a test, after its other fixtures have ended."""
    yield
    while Application.running:
        Application.running.pop().close()


@pytest.fixture
def app() -> Application:
    """Return a fresh scene with the module logics of Slicer, without Qt; it is empty afterwards."""
    return Application()


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
