"""A tiny model and two tiny labelled CTs."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.training.cases import Case

SHAPE = (24, 26, 28)


@pytest.fixture
def tiny_model() -> ModelConfig:
    return ModelConfig(
        name="tiny", width=8, blocks_down=(1, 1, 1), window=(16, 16, 16), spacing=(3.0, 3.0, 3.0), n_classes=133
    )


@pytest.fixture
def labelled_case(tmp_path: Path) -> Case:
    """A bright "liver" (value 5) and a dark "left or right lung" (value 7) in soft tissue, stored left-handed (LPS)."""
    image, label = np.full(SHAPE, 20.0, np.float32), np.zeros(SHAPE, np.uint8)
    label[4:12, 5:15, 6:20], label[14:22, 5:20, 8:24] = 5, 7
    image[label == 5], image[label == 7] = 150.0, -800.0
    image += np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.float32)
    affine = np.diag([-3.0, -3.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "ct.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, affine), tmp_path / "label.nii.gz")
    return Case("tiny", tmp_path / "ct.nii.gz", tmp_path / "label.nii.gz", {5: (1,), 7: (28, 29)}, complete=True)
