"""What the tests of supervoxels share: the light encoder's weights where they can be had, and simple encoders."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from VISTA3DCore.errors import OfflineError
from VISTA3DCore.imaging.phantom import paint_phantom
from VISTA3DCore.imaging.volume import Volume

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))  # local_hub


class Identity:
    """An encoder whose features are the slice itself, 0..1, and its square."""

    name, side, channels, window_hu, device = "identity", 64, 2, (-1000.0, 1000.0), torch.device("cpu")

    def features(self, slices: torch.Tensor) -> torch.Tensor:
        return torch.stack([slices, slices**2], dim=1)


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture(scope="session")
def light_weights() -> Path:
    """Return LiteMedSAM's weight file, or skip where it cannot be fetched."""
    from VISTA3DCore.supervoxels.medsam_lite import fetch_weights

    try:
        return fetch_weights()
    except OfflineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def phantom() -> tuple[Volume, np.ndarray]:
    """Return a coarse phantom and its labels."""
    volume, labels = paint_phantom()
    affine = volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    return Volume(volume.array[::2, ::2, ::2], affine, "phantom"), labels[::2, ::2, ::2]
