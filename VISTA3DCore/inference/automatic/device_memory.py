"""What an automatic run takes on a GPU, and what there is."""

from __future__ import annotations

from VISTA3DCore.backends.devices import free_memory
from VISTA3DCore.backends.memory import WORKSPACE, activation_bytes, device_budget, weight_bytes
from VISTA3DCore.inference.automatic.feature_map import AutomaticBackend
from VISTA3DCore.inference.automatic.row_sums import streaming_bytes
from VISTA3DCore.inference.windows import WindowLayout
from VISTA3DCore.network.config import ModelConfig

# Of a device of which no more is known than how much is free: sums may take this share, the network needs the rest.
_SHARE = 0.5
_ITEMSIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


def device_bytes(
    layout: WindowLayout, config: ModelConfig, precision: str = "float16", batch: int = 1, sums: int | None = None
) -> int:
    """Return the bytes that an automatic run takes on the device: weights, images inside the network, sums, workspace.

    It does not depend on the volume's length along the slab axis; nor does the image, of which a slab at a time is
    there where it is large.

    :param precision: of the network; sums are float32.
    :param batch: windows computed at once.
    :param sums: bytes of the sums; by default those of a streaming run, 0 where they lie on the host.
    """
    itemsize = _ITEMSIZES[precision]
    network = weight_bytes(config, itemsize) + activation_bytes(config, itemsize, batch) + WORKSPACE
    return network + (streaming_bytes(layout, config.width) if sums is None else sums)


def sums_fit(backend: AutomaticBackend, layout: WindowLayout, sums: int) -> bool:
    """Return whether sums of some bytes find room on the backend's device beside the network."""
    if backend.device.type != "cuda":
        return sums <= _SHARE * free_memory(backend.device)
    precision, batch = getattr(backend, "precision", "float32"), getattr(backend, "batch", 1)
    weights = weight_bytes(backend.config, _ITEMSIZES[precision], clicks=True)
    return device_bytes(layout, backend.config, precision, batch, sums) <= device_budget(backend.device, weights)
