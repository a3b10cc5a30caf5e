"""The whole chain, file to label map on the input grid, against the bundle's own chain of MONAI transforms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from geometries import GEOMETRIES
from reference_chain import ct_phantom, save_nifti, segment_by_monai
from reference_pipeline import SMALL, Reference, seeded_network

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.segmenter import Segmenter

CONFIG = replace(SMALL, spacing=(2.5, 2.5, 2.5))
INDICES = [structure.index for structure in catalogue().everything]


@pytest.fixture(scope="module")
def network():
    return seeded_network(CONFIG)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_labels_on_the_input_grid_equal_the_bundles(tmp_path, network, name):
    shape, affine = GEOMETRIES[name]
    path = save_nifti(tmp_path / "ct.nii.gz", ct_phantom(shape, affine), affine)
    expected = segment_by_monai(path, Reference(network, CONFIG), INDICES)
    with Segmenter.from_network(network, CONFIG).open(Volume.read(path)) as session:
        found = session.segment("everything").labels
    assert found.shape == shape
    assert np.mean(found == expected) >= 0.999
    assert np.mean(found[expected > 0] == expected[expected > 0]) >= 0.999
    assert len(np.unique(expected)) > 20


def test_the_paper_preset_equals_gaussian_blending(tmp_path, network):
    shape, affine = GEOMETRIES["RAS"]
    path = save_nifti(tmp_path / "ct.nii.gz", ct_phantom(shape, affine), affine)
    expected = segment_by_monai(path, Reference(network, CONFIG), INDICES, preset="paper")
    found = Segmenter.from_network(network, CONFIG).open(Volume.read(path)).segment("everything", preset="paper")
    assert np.mean(found.labels == expected) >= 0.999
