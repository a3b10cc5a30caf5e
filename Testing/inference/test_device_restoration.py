"""Restoration where the labels lie gives what restoration on the host gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from geometries import GEOMETRIES
from test_restoration import CHANNELS, STRUCTURES, MatrixBackend, case

from VISTA3DCore.backends.cuda.kernels.choice import kernels_for
from VISTA3DCore.errors import Cancelled
from VISTA3DCore.imaging.resampling import nearest_lines
from VISTA3DCore.inference.automatic import resample_on_device
from VISTA3DCore.inference.automatic.feature_map import Block
from VISTA3DCore.inference.automatic.labels import ClassScores
from VISTA3DCore.inference.automatic.resample_on_device import DeviceRestorer
from VISTA3DCore.inference.automatic.resample_to_input import Grids, NearestRestorer, nearest_restorer
from VISTA3DCore.progress import Progress

# On a CUDA device these are tests of the device, elsewhere of what stands in for it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="module")
def scores() -> ClassScores:
    matrix = np.random.default_rng(0).standard_normal((len(STRUCTURES), CHANNELS)).astype(np.float32)
    return ClassScores(MatrixBackend(torch.from_numpy(matrix).to(DEVICE)), STRUCTURES)


def on_device(scores: ClassScores, grids: Grids) -> DeviceRestorer | None:
    place = grids.model_shape, grids.target_affine, grids.target_shape
    lines = nearest_lines(grids.model_affine, *place)
    return None if lines is None else DeviceRestorer(scores, *place, lines, DEVICE)


def blocks_of(grids: Grids, device: torch.device, channels_last: bool):
    features = np.random.default_rng(1).standard_normal((CHANNELS, *grids.model_shape)).astype(np.float32)
    tensor = torch.from_numpy(features).to(device)
    if channels_last:
        tensor = tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    middle = grids.model_shape[1] // 2
    for start, stop in ((0, middle), (middle, grids.model_shape[1])):
        yield Block(1, start, stop, tensor[:, :, start:stop])


def restored(restorer, grids: Grids, device: torch.device, channels_last: bool = False):
    for block in blocks_of(grids, device, channels_last):
        restorer.take(block)
    return restorer.result(Progress())


def failing_once(function):
    """Return a function that runs out of memory the first time, and then does what it does."""
    failures = [torch.OutOfMemoryError("CUDA out of memory.")]

    def run(*arguments, **options):
        if failures:
            raise failures.pop()
        return function(*arguments, **options)

    return run


@pytest.mark.parametrize("name", ["torch.zeros", "download", "kernels_for"])
def test_what_the_device_has_no_memory_for_is_done_on_the_host(monkeypatch, scores, name):
    grids = case("LPS")
    labels, masks = restored(on_device(scores, grids), grids, DEVICE)
    if name == "kernels_for":
        kernels = replace(kernels_for(DEVICE), classify=failing_once(kernels_for(DEVICE).classify))
        monkeypatch.setattr("VISTA3DCore.inference.automatic.labels.kernels_for", lambda _device: kernels)
    else:
        original = torch.zeros if name == "torch.zeros" else resample_on_device.download
        monkeypatch.setattr(f"{resample_on_device.__name__}.{name}", failing_once(original))
    found, inside = restored(on_device(scores, grids), grids, DEVICE)
    np.testing.assert_array_equal(found, labels)
    for index, mask in masks.items():
        np.testing.assert_array_equal(inside[index], mask)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_both_give_the_same_labels_and_masks(scores, name):
    grids = case(name)
    restorer = on_device(scores, grids)
    if restorer is None:  # half voxels whose rounding depends on all three axes
        assert name == "oblique"
        return
    labels, masks = restored(restorer, grids, DEVICE, channels_last=True)
    expected_labels, expected_masks = restored(NearestRestorer(scores, grids), grids, torch.device("cpu"))
    assert labels.dtype == np.uint16
    assert labels.flags.f_contiguous
    assert len(np.unique(labels)) > 3
    assert (labels == expected_labels).mean() > (0.9999 if DEVICE.type == "cuda" else 0.999999)
    assert list(masks) == list(expected_masks)
    for index, mask in masks.items():
        assert mask.dtype == bool
        assert (mask == expected_masks[index]).mean() > 0.9999


def test_cancelling_works_between_chunks(scores):
    grids, progress = case("RAS"), Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        on_device(scores, grids).take(next(blocks_of(grids, DEVICE, False)), progress)


def test_on_a_processor_the_host_does_it(scores):
    kind = nearest_restorer(scores, case("RAS"))
    assert isinstance(kind, NearestRestorer if DEVICE.type == "cpu" else DeviceRestorer)
