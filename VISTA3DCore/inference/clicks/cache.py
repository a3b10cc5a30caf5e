"""Click features of the windows that were encoded, kept within a byte budget."""

from __future__ import annotations

from collections import OrderedDict

import torch

from VISTA3DCore.inference.windows import Shape


class ClickCache:
    """Least recently used windows move from the device to the host's memory, and from there they are dropped.

    :param device: where the network runs.
    :param device_bytes: budget on the device; on the CPU only the host's budget counts.
    :param host_bytes: budget in the host's memory.
    """

    def __init__(self, device: torch.device, device_bytes: int, host_bytes: int) -> None:
        self._device = device
        self._budgets = {"device": device_bytes if device.type != "cpu" else 0, "host": host_bytes}
        self._stores: dict[str, OrderedDict[Shape, torch.Tensor]] = {"device": OrderedDict(), "host": OrderedDict()}

    def __len__(self) -> int:
        return sum(len(store) for store in self._stores.values())

    def __contains__(self, window: Shape) -> bool:
        return any(window in store for store in self._stores.values())

    @property
    def nbytes(self) -> int:
        """Bytes held, on the device and on the host."""
        return sum(self._bytes(name) for name in self._stores)

    def get(self, window: Shape) -> torch.Tensor | None:
        """Return a window's features, wherever they lie, or None; the window becomes the most recently used."""
        for store in self._stores.values():
            if window in store:
                features = store.pop(window)
                self.put(window, features)
                return features
        return None

    def put(self, window: Shape, features: torch.Tensor) -> None:
        """Keep a window's features. What exceeds a budget moves on, the least recently used first."""
        for store in self._stores.values():
            store.pop(window, None)
        if features.nbytes <= self._budgets["device"]:
            self._stores["device"][window] = features.to(self._device)
        else:
            self._stores["host"][window] = features.to("cpu")
        self._keep_budgets()

    def leave_device(self) -> None:
        """Free the device's memory; from now on, only the host's is used."""
        self._budgets["device"] = 0
        self._keep_budgets()

    def clear(self) -> None:
        """Drop everything."""
        for store in self._stores.values():
            store.clear()

    def _keep_budgets(self) -> None:
        while self._bytes("device") > self._budgets["device"]:
            oldest, features = self._stores["device"].popitem(last=False)
            self._stores["host"][oldest] = features.to("cpu")
        while self._bytes("host") > self._budgets["host"]:
            self._stores["host"].popitem(last=False)

    def _bytes(self, name: str) -> int:
        return sum(features.nbytes for features in self._stores[name].values())
