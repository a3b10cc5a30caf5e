"""Losses and scores over time, as TensorBoard shows them."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

_RECENT = 50
"""Steps over which losses are averaged for people."""


class Curves:
    """Writes event files.

    :param folder: None: only the recent means are kept.
    :param step: that a run goes on from; what an interrupted run wrote after it is hidden.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._writer = None
        if folder is not None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        self._history: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))
        self._last = time.monotonic()

    @property
    def recent(self) -> dict[str, float]:
        """The mean losses of the last steps."""
        return {name: sum(values) / len(values) for name, values in sorted(self._history.items())}

    def add(self, step: int, losses: dict[str, float], groups: list[dict[str, Any]]) -> None:
        """Note the losses of a step."""
        for name, value in losses.items():
            self._history[name].append(value)
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        rates = {f"rate/{group['part']}": group["lr"] for group in groups}
        self._write(step, {f"loss/{name}": value for name, value in losses.items()} | rates | {"seconds": seconds})

    def add_scores(self, step: int, scores: dict[str, float]) -> None:
        """Note the Dice of a validation."""
        self._write(step, {f"dice/{name}": value for name, value in scores.items()})

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
