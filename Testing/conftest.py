"""Fixtures that every suite shares."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Without a GPU, Triton's kernels run in its interpreter; Triton reads this when it is first imported.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# OpenVINO compiles a network for seconds whenever one is loaded; tests of what 'auto' means unset this.
os.environ.setdefault("VISTA3D_RUNTIME", "torch")

# Times of property tests depend on the machine; continuous integration draws the same examples every time.
settings.register_profile("project", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("project")


@pytest.fixture(scope="session")
def ct_data() -> Path:
    """Return the folder of real CTs, or skip: they are not part of the repository."""
    folder = os.environ.get("VISTA3D_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VISTA3D_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with seeded random weights: the real architecture, as narrow and coarse as it gets."""
    import torch

    from VISTA3DCore.models.checkpoints import save_checkpoint
    from VISTA3DCore.network.architecture import build_network
    from VISTA3DCore.network.config import ModelConfig

    config = ModelConfig(
        name="tiny",
        width=8,
        blocks_down=(1, 1, 1),
        window=(32, 32, 32),
        spacing=(12.0, 12.0, 12.0),
        classes=(1, 3, 5, 14, 23),
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(path, config, build_network(config).state_dict())
    return path


@pytest.fixture(scope="session")
def claiming_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny model with claims: it offers the liver and, by painted CTs alone, the right kidney."""
    from VISTA3DCore.models.claims import Claim, Claims, with_claims

    figures = {
        1: Claim(0.912, 24, False),
        3: Claim(0.41, 22, False),
        5: Claim(0.62, 20, True),
        14: Claim(0.3, 20, True),
    }
    path = tmp_path_factory.mktemp("claiming") / "claiming.safetensors"
    shutil.copy(tiny_model, path)
    with_claims(path, Claims(0.5, figures))
    return path
