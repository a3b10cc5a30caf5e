"""Preprocessing against the bundle's MONAI transforms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from geometries import GEOMETRIES
from monai.transforms import CropForeground, ScaleIntensityRangePercentiles
from reference_chain import ct_phantom, preprocessing, save_nifti
from reference_pipeline import SMALL

from VISTA3DCore.errors import Cancelled
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.device_preprocessing import preprocess_there
from VISTA3DCore.inference.preprocessing import foreground_box, preprocess
from VISTA3DCore.progress import Progress

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = replace(SMALL, spacing=(2.5, 2.5, 2.5))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_the_model_grid_equals_the_bundles(tmp_path, name):
    shape, affine = GEOMETRIES[name]
    path = save_nifti(tmp_path / "ct.nii.gz", ct_phantom(shape, affine), affine)
    expected = preprocessing(CONFIG)({"image": str(path)})["image"]
    grid = preprocess(Volume.read(path), CONFIG)
    assert grid.image.shape == tuple(expected.shape[1:])
    np.testing.assert_allclose(grid.affine, expected.affine.numpy(), atol=1e-4)
    np.testing.assert_allclose(grid.image, expected[0].numpy(), rtol=0, atol=2e-6)


def test_the_crop_equals_monais():
    image = np.full((40, 50, 60), -100.0, dtype=np.float32)
    image[12:20, 3:30, 30:33] = 1
    start, stop = CropForeground(margin=10, allow_smaller=True).compute_bounding_box(image[None])
    assert foreground_box(image) == tuple(slice(*edge) for edge in zip(start, stop, strict=True))


def test_without_foreground_nothing_is_cropped():
    assert foreground_box(np.full((4, 5, 6), -1000.0)) == (slice(0, 4), slice(0, 5), slice(0, 6))


def test_percentiles_scale_as_monai_does():
    shape, affine = (40, 40, 30), np.diag([2.5, 2.5, 2.5, 1.0])
    image = ct_phantom(shape, affine)
    config = replace(CONFIG, intensity_percentiles=(1, 99))
    grid = preprocess(Volume(image, affine), config)
    box = foreground_box(image)
    expected = ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True)(image[box][None])
    np.testing.assert_allclose(grid.image, expected[0], atol=1e-5)


def test_the_input_is_left_as_it_was():
    """At the model's spacing already, nothing is resampled, and the scaled image must still be another array."""
    image = ct_phantom((40, 40, 30), np.diag([2.5, 2.5, 2.5, 1.0]))
    before = image.copy()
    preprocess(Volume(image, np.diag([2.5, 2.5, 2.5, 1.0])), CONFIG)
    np.testing.assert_array_equal(image, before)


def test_it_can_be_cancelled():
    progress = Progress(lambda _: progress.cancel())
    with pytest.raises(Cancelled):
        preprocess(Volume(ct_phantom((30, 30, 30), np.eye(4)), np.eye(4)), CONFIG, progress)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(("dtype", "order"), [(np.int16, "F"), (np.float32, "C"), (np.uint16, "C")])
def test_where_the_device_does_it_the_grid_is_the_same(name, dtype, order):
    """As far as it separates; a processor stands in for the device."""
    shape, affine = GEOMETRIES[name]
    lowest = 0 if dtype == np.uint16 else -1024
    image = np.array(ct_phantom(shape, affine).clip(lowest), dtype=dtype, order=order)
    image.setflags(write=False)
    volume, config = Volume(image, affine), replace(SMALL, spacing=(4.0, 4.0, 3.0))
    grid, expected = preprocess_there(volume, config, DEVICE), preprocess(volume, config)
    assert grid is not None or name == "oblique"
    if grid is not None:
        assert grid.image.flags.c_contiguous
        np.testing.assert_array_equal(grid.affine, expected.affine)
        np.testing.assert_allclose(grid.image, expected.image, rtol=0, atol=0 if DEVICE.type == "cpu" else 1e-6)


@pytest.mark.parametrize("order", ["F", "C"])
def test_planes_that_come_in_parts_give_the_same(monkeypatch, order):
    from VISTA3DCore.inference import device_preprocessing

    shape, affine = GEOMETRIES["RAS"]
    volume = Volume(np.array(ct_phantom(shape, affine), dtype=np.int16, order=order), affine)
    config = replace(SMALL, spacing=(4.0, 4.0, 3.0))
    whole = preprocess_there(volume, config, DEVICE)
    monkeypatch.setattr(device_preprocessing, "_PART_BYTES", 12 * 5 * shape[0] * shape[1])
    np.testing.assert_array_equal(preprocess_there(volume, config, DEVICE).image, whole.image)


def test_what_the_device_leaves_to_the_host():
    shape, affine = GEOMETRIES["RAS"]
    volume = Volume(ct_phantom(shape, affine), affine)
    assert preprocess_there(volume, replace(CONFIG, spacing=(2.0, 2.0, 2.0)), DEVICE) is None
    assert preprocess_there(volume, replace(CONFIG, intensity_percentiles=(1, 99)), DEVICE) is None
