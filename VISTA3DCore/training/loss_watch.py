"""Whether losses grow instead of falling: a run may go on without a word although its weights are ruined."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

WINDOW = 20
"""Values of a loss that are compared, at the beginning and at the end."""

_LEAST = 6
_FACTOR, _MARGIN = 3.0, 1.0
"""A loss is far above its beginning if its median is more than three times as large, and 1 more: Dice + cross-entropy
of a network that has learned nothing is between 1 and 2."""


class LossWatch:
    """Compares the last values of each loss with its first ones."""

    def __init__(self) -> None:
        self._first: dict[str, list[float]] = {}
        self._last: dict[str, list[float]] = {}
        self._count: dict[str, int] = {}

    def add(self, losses: Mapping[str, float]) -> None:
        """Note the losses of a step."""
        for name, value in losses.items():
            first, last = self._first.setdefault(name, []), self._last.setdefault(name, [])
            self._count[name] = self._count.get(name, 0) + 1
            if len(first) < WINDOW:
                first.append(value)
            last.append(value)
            del last[:-WINDOW]

    def exploded(self) -> dict[str, tuple[float, float]]:
        """Return the losses that are far above their beginning: their medians then and now."""
        found = {}
        for name, count in self._count.items():
            half = min(WINDOW, count // 2)
            if count >= _LEAST:
                then, now = median(self._first[name][:half]), median(self._last[name][-half:])
                if now > _FACTOR * then + _MARGIN:
                    found[name] = (then, now)
        return found

    def sentence(self) -> str:
        """Return what to report about losses that are far above their beginning, or nothing."""
        told = [f"'{name}' from {then:.3g} to {now:.3g}" for name, (then, now) in self.exploded().items()]
        if not told:
            return ""
        return (
            f"The loss rose: {', '.join(told)}. The weights are most likely ruined; begin anew in another folder "
            "with a lower optimizer.learning_rate, or look at the data."
        )

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"first": self._first, "last": self._last, "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self._first = {name: list(values) for name, values in state["first"].items()}
        self._last = {name: list(values) for name, values in state["last"].items()}
        self._count = dict(state["count"])
