"""Apple's GPUs have no float64: nothing of that type may reach the device of any runtime.

Tensors without values stand for the device, so that what lies there can be told from what the host computes.
"""

from __future__ import annotations

import pytest
import torch
from test_click_head import NARROW, TOKENS, network_of, patch_of
from torch.utils._python_dispatch import TorchDispatchMode

from VISTA3DCore.backends.cuda.backend import CudaBackend, Mode
from VISTA3DCore.backends.torch_backend import TorchBackend
from VISTA3DCore.inference.automatic.feature_map import FeaturePass
from VISTA3DCore.inference.windows import PRESETS, WindowLayout
from VISTA3DCore.progress import Progress

THERE = torch.device("meta")
WIDE = (torch.float64, torch.complex64, torch.complex128)


class TypesThere(TorchDispatchMode):
    """Notes the types of all tensors that come to be on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor) and one.device.type == THERE.type:
                self.seen.add(one.dtype)
        return result


@pytest.mark.parametrize("runtime", ["torch", "cuda"])
def test_the_network_and_its_sums_need_no_float64(runtime):
    network = network_of(NARROW)
    if runtime == "torch":
        backend = TorchBackend(network, NARROW).on(THERE)
    else:
        backend = CudaBackend(network, NARROW, THERE, Mode("float32"))
    layout = WindowLayout((40, 33, 50), NARROW.window, PRESETS["bundle"])
    with TypesThere() as noted:
        for block in FeaturePass(backend, torch.zeros(1, 1, *layout.shape), layout).stream(Progress()):
            torch.tensordot(backend.class_matrix([1, 3]), block.features, dims=1)
        features = backend.click_features(patch_of(NARROW))
        for tokens in TOKENS.values():
            backend.click_scores(backend.click_image(features), tokens)

    assert torch.float32 in noted.seen
    assert not noted.seen & set(WIDE)
