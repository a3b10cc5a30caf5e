"""Several windows at once, cut out of the image on the device, in the runtime's own precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_pipeline import TINY, random_image, seeded_network

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.backends.cuda.backend import CudaBackend, Mode
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.inference.automatic.device_memory import device_bytes
from VISTA3DCore.inference.automatic.feature_map import FeaturePass, slab_bytes
from VISTA3DCore.inference.automatic.patches import PatchSource
from VISTA3DCore.inference.segmenter import Segmenter
from VISTA3DCore.inference.windows import PRESETS, WindowLayout, crop_window
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

SHAPE = (40, 40, 56)
GIB = 1 << 30


class Batching(CudaBackend):
    """Runs on the CPU, counts what it is asked for, and may run out of memory."""

    fails_at: tuple[int, ...] = ()

    def __init__(self, batch: int, precision: str = "float32") -> None:
        super().__init__(seeded_network(TINY), TINY, "cpu", Mode(precision), batch=batch)
        self.sizes: list[int] = []

    def automatic_features_batch(self, patches):
        self.sizes.append(len(patches))
        if len(self.sizes) in self.fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().automatic_features_batch(patches)


def features(backend, preset: str = "bundle", retained: bool = False) -> np.ndarray:
    layout = WindowLayout(SHAPE, TINY.window, PRESETS[preset])
    run = FeaturePass(backend, torch.from_numpy(random_image(SHAPE))[None, None], layout)
    blocks = run.retain(Progress()).blocks() if retained else run.stream(Progress())
    return np.concatenate([block.features.numpy().copy() for block in blocks], axis=1 + layout.slab_axis)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    backend = TorchBackend(seeded_network(TINY), TINY)
    return {preset: features(backend, preset) for preset in PRESETS}


@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_of_windows_at_once_changes_nothing(batch, expected):
    backend = Batching(batch)
    found = features(backend)
    assert set(backend.sizes) == {1, batch}
    np.testing.assert_allclose(found, expected["bundle"], rtol=0, atol=2e-5 * np.abs(found).max())
    np.testing.assert_array_equal(features(Batching(batch), retained=True), found)


def test_half_precision_features_are_weighted_and_summed_in_float32(expected):
    found = features(Batching(2, "bfloat16"), "paper")
    assert found.dtype == np.float32
    assert 0 < np.linalg.norm(found - expected["paper"]) < 0.1 * np.linalg.norm(found)


def test_without_memory_the_batch_shrinks_before_anything_moves(expected):
    backend = Batching(4)
    backend.fails_at = (2, 3)
    found = features(backend)
    np.testing.assert_allclose(found, expected["bundle"], rtol=0, atol=2e-5 * np.abs(found).max())
    assert backend.sizes == [4, 4, 2, 1, 1, 1, 1]
    assert backend.batch == 1


def test_windows_cut_from_a_slab_are_the_windows_of_the_image():
    layout = WindowLayout((40, 33, 70), (32, 32, 32), PRESETS["bundle"])
    image = torch.rand(1, 1, 40, 33, 70)
    for share in (1.0, 0.0):
        source = PatchSource(image, layout, torch.device("cpu"), share)
        for layer in layout.layers:
            for start, patch in zip(layer, source.batch(layer), strict=True):
                assert torch.equal(patch, crop_window(image[0], start, layout.window))


def test_a_session_on_this_runtime_gives_the_labels_of_pytorch():
    volume = Volume(random_image((40, 36, 32)) * 1500 - 400, np.diag([1.5, 1.5, 1.5, 1.0]))
    results = []
    for backend in (TorchBackend(seeded_network(TINY), TINY), Batching(2)):
        with Segmenter(backend).open(volume) as session:
            results.append(session.segment("everything").labels)
    assert len(np.unique(results[0])) > 1
    assert (results[0] == results[1]).mean() > 0.9999


def layout_of(slices: int, side: int = 267) -> WindowLayout:
    return WindowLayout((side, side, slices), (128, 128, 128), PRESETS["bundle"])


def test_a_run_takes_the_same_memory_however_long_the_volume_and_fits_a_small_card():
    config = ModelConfig()
    short, long = (device_bytes(layout_of(slices), config) for slices in (400, 4000))
    slab = device_bytes(layout_of(4000), config, sums=slab_bytes(layout_of(4000), 48))
    assert short <= long <= slab < 3.5 * GIB
    assert slab == device_bytes(layout_of(400), config, sums=slab_bytes(layout_of(400), 48))
    assert device_bytes(layout_of(400), config, batch=2) - short == 5 * 2 * 48 * 128**3
    assert device_bytes(layout_of(400), config, sums=0) < 1.75 * GIB
    assert device_bytes(layout_of(400), config, "float32", sums=0) > 1.5 * device_bytes(layout_of(400), config, sums=0)


def test_all_structures_of_the_catalogue_find_room_in_the_labels():
    assert max(one.index for one in catalogue()) < 1 << 15


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("gigabytes", [2.2, 4.0])
def test_a_long_volume_under_a_memory_cap(gigabytes):
    """At 4 GB everything stays on the device; at 2.2 GB the sums move to the host."""
    config = ModelConfig()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(gigabytes * 1e9 / total)
    try:
        backend = CudaBackend(seeded_network(config), config, "cuda", batch=1)
        image = torch.from_numpy(random_image((128, 200, 320)))[None, None]
        layout = WindowLayout(tuple(image.shape[2:]), config.window, PRESETS["bundle"])
        planes = 0
        for block in FeaturePass(backend, image, layout).stream(Progress()):
            assert torch.isfinite(block.features).all()
            planes += block.stop - block.start
        assert planes == layout.shape[layout.slab_axis]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
