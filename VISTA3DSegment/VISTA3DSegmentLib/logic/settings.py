# SPDX-License-Identifier: Apache-2.0
"""What the user has chosen and what was learned on this computer, kept from one start of Slicer to the next."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from .signals import Signal

DEVICES = ("auto", "cuda", "mps", "cpu")
#: How the segmentation is made: name of the option -> (preset, restoration) of the engine.
QUALITIES = {"standard": ("bundle", "nearest"), "smooth": ("bundle", "smooth"), "best": ("paper", "smooth")}
_RECENT = 12


class Store(Protocol):
    """Keeps values that JSON can express under a name."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""


@dataclass(frozen=True)
class Rate:
    """How fast a model runs on a device.

    :param ms: milliseconds per window.
    :param window: sides of a window in voxels.
    :param spacing: of the voxels, in mm.
    """

    ms: float
    window: tuple[int, int, int]
    spacing: tuple[float, float, float]


class Settings:
    """Typed access to a store; values that make no sense (edited by hand, of a later version) count as not set.

    Signal: ``changed(name)``.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.changed = Signal()

    @property
    def model(self) -> str:
        """Name of the model, or the path of a weights file; empty: not chosen yet."""
        return self._text("model")

    @model.setter
    def model(self, value: str) -> None:
        self._set("model", value)

    @property
    def device(self) -> str:
        """Where to compute: ``auto`` or another one of :data:`DEVICES`, or one with a number, e.g. ``cuda:1``."""
        value = self._text("device")
        return value if value.partition(":")[0] in DEVICES else "auto"

    @device.setter
    def device(self, value: str) -> None:
        self._set("device", value)

    @property
    def quality(self) -> str:
        """A key of :data:`QUALITIES`."""
        value = self._text("quality")
        return value if value in QUALITIES else "standard"

    @quality.setter
    def quality(self, value: str) -> None:
        self._set("quality", value)

    def cleanup(self, model: str, default: bool) -> bool:
        """Return whether specks are removed from the results of a model; the default where the user chose nothing."""
        value = self._store.get(f"cleanup/{model}")
        return value if isinstance(value, bool) else default

    def set_cleanup(self, model: str, value: bool) -> None:
        """Keep the user's choice for a model."""
        self._set(f"cleanup/{model}", bool(value))

    @property
    def keep_corrected(self) -> bool | None:
        """Whether a run leaves segments alone that somebody has corrected; None: the user was not asked yet."""
        value = self._store.get("keep_corrected")
        return value if isinstance(value, bool) else None

    @keep_corrected.setter
    def keep_corrected(self, value: bool | None) -> None:
        self._set("keep_corrected", value)

    @property
    def keep_empty(self) -> bool:
        """Whether structures that are not found get empty segments."""
        return self._store.get("keep_empty", False) is True

    @keep_empty.setter
    def keep_empty(self, value: bool) -> None:
        self._set("keep_empty", bool(value))

    @property
    def worker_python(self) -> str | None:
        """The interpreter that runs the engine instead of Slicer's, or None."""
        return self._text("worker_python") or None

    @worker_python.setter
    def worker_python(self, value: str | None) -> None:
        self._set("worker_python", value or "")

    @property
    def pending_setup(self) -> bool:
        """Whether set-up continues after a restart of Slicer."""
        return self._store.get("pending_setup", False) is True

    @pending_setup.setter
    def pending_setup(self, value: bool) -> None:
        self._set("pending_setup", bool(value))

    # Structures, by label set, because indices mean something else in another one

    def favorites(self, label_set: str) -> frozenset[int]:
        """Return the indices of the structures that the user likes to have at hand."""
        return frozenset(self._indices(f"favorites/{label_set}"))

    def set_favorite(self, label_set: str, index: int, favorite: bool) -> None:
        """Add a structure to the favorites, or take it out."""
        indices = self.favorites(label_set) | {index} if favorite else self.favorites(label_set) - {index}
        self._set(f"favorites/{label_set}", sorted(indices))

    def recent(self, label_set: str) -> tuple[int, ...]:
        """Return the indices of the structures that were segmented last, the last one first."""
        return self._indices(f"recent/{label_set}")

    def note_recent(self, label_set: str, indices: Iterable[int]) -> None:
        """Remember what was segmented."""
        merged = dict.fromkeys((*indices, *self.recent(label_set)))
        self._set(f"recent/{label_set}", list(merged)[:_RECENT])

    # Speed

    def rate(self, model: str, device: str, preset: str) -> Rate | None:
        """Return how fast a model ran on a device, None before it has."""
        value = self._rates().get(_rate_key(model, device, preset))
        try:
            ms, window, spacing = value
            rate = Rate(float(ms), _triple(window, int), _triple(spacing, float))
        except (TypeError, ValueError):
            return None
        valid = math.isfinite(rate.ms) and rate.ms > 0 and min(rate.window) > 0 and min(rate.spacing) > 0
        return rate if valid else None

    def note_rate(self, model: str, device: str, preset: str, rate: Rate) -> None:
        """Remember how fast a model ran; earlier runs count as much as the last one."""
        known = self.rate(model, device, preset)
        same = known is not None and (known.window, known.spacing) == (rate.window, rate.spacing)
        ms = (known.ms + rate.ms) / 2 if same else rate.ms
        entry = [round(ms, 3), list(rate.window), list(rate.spacing)]
        self._set("rates", {**self._rates(), _rate_key(model, device, preset): entry})

    def _rates(self) -> dict[str, Any]:
        value = self._store.get("rates")
        return value if isinstance(value, dict) else {}

    def _text(self, key: str) -> str:
        value = self._store.get(key, "")
        return value if isinstance(value, str) else ""

    def _indices(self, key: str) -> tuple[int, ...]:
        value = self._store.get(key)
        return tuple(one for one in value if type(one) is int) if isinstance(value, (list, tuple)) else ()

    def _set(self, key: str, value: Any) -> None:
        if self._store.get(key) != value:
            self._store.set(key, value)
            self.changed(key)


def _rate_key(model: str, device: str, preset: str) -> str:
    return f"{model}|{device}|{preset}"


def _triple(values: Any, kind: type) -> tuple[Any, Any, Any]:
    """:raises ValueError: if these are not three numbers."""
    first, second, third = values
    return kind(first), kind(second), kind(third)
