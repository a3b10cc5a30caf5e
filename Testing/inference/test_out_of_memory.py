"""When memory runs out, the work goes on one step down from where it stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference_pipeline import TINY, CountingBackend, random_image, seeded_network

from VISTA3DCore.backends.memory import is_out_of_memory
from VISTA3DCore.errors import DeviceError
from VISTA3DCore.inference.automatic.feature_map import FeaturePass
from VISTA3DCore.inference.windows import PRESETS, WindowLayout
from VISTA3DCore.progress import Progress

SHAPE = (40, 33, 70)


class FailingBackend(CountingBackend):
    """Runs out of memory at some of its passes; ``on`` remembers where the work went."""

    fails_at: tuple[int, ...] = ()
    moved_to: str = ""
    successor: CountingBackend | None = None

    def automatic_features(self, patch):
        features = super().automatic_features(patch)
        if self.passes in self.fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return features

    def on(self, device):
        self.moved_to = str(device)
        self.successor = CountingBackend(seeded_network(TINY), TINY, device)
        return self.successor


@pytest.fixture
def failing() -> FailingBackend:
    return FailingBackend(seeded_network(TINY), TINY)


def features(backend, retained: bool) -> np.ndarray:
    image = random_image(SHAPE)
    layout = WindowLayout(SHAPE, TINY.window, PRESETS["bundle"])
    run = FeaturePass(backend, torch.from_numpy(image)[None, None], layout)
    blocks = run.retain(Progress()).blocks() if retained else run.stream(Progress())
    return np.concatenate([block.features.numpy().copy() for block in blocks], axis=1 + layout.slab_axis)


@pytest.mark.parametrize("retained", [True, False], ids=["retained", "streaming"])
def test_one_failure_moves_the_sums_to_the_host_and_repeats_one_window(failing, tiny_backend, retained):
    failing.fails_at = (4,)
    np.testing.assert_array_equal(features(failing, retained), features(tiny_backend, retained))
    assert failing.passes == tiny_backend.passes + 1
    assert not failing.moved_to


@pytest.mark.parametrize("retained", [True, False], ids=["retained", "streaming"])
def test_a_second_failure_moves_the_network_to_the_cpu(failing, tiny_backend, retained):
    failing.fails_at = (5, 6)
    np.testing.assert_array_equal(features(failing, retained), features(tiny_backend, retained))
    assert failing.moved_to == "cpu"
    assert failing.passes == 6
    assert failing.successor.passes == tiny_backend.passes - 4


def test_when_nothing_is_left_the_reason_is_one_sentence(failing):
    failing.fails_at = tuple(range(1, 100))
    failing.on = lambda _: failing
    with pytest.raises(DeviceError, match=r"not enough memory.*smaller model\."):
        features(failing, retained=False)


def test_other_errors_are_not_swallowed(failing):
    failing.automatic_features = lambda _: torch.zeros(2) + torch.zeros(3)
    with pytest.raises(RuntimeError, match="size of tensor"):
        features(failing, retained=False)


def test_every_devices_way_of_saying_it_is_understood():
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"))
    assert is_out_of_memory(RuntimeError("GET was unable to find an engine to execute this computation"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))
