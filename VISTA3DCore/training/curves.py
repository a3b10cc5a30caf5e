"""Losses and scores over time, as TensorBoard shows them."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_RECENT = 50
"""Steps over which losses are averaged for people."""

_FLUSH_S = 10.0


class Curves:
    """Writes event files. A disk that is full ends the curves with a warning, never the run.

    :param folder: None: only the recent means are kept.
    :param step: that a run resumes from; what an interrupted run wrote after it is hidden.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self._file = None if folder is None else _EventFile(folder, step + 1 if step else None)
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

    def close(self) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.close()

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._file is not None:
            self._file.add(step, values)


class _EventFile:
    """An event file that is written here and now.

    tensorboardX's own writer has a thread and a short queue: once the disk is full the thread dies, and the next steps
    wait for it for ever.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self._writer, self._flushed = None, time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        except OSError as error:
            self._give_up(error)
        if purge_step is not None:
            from tensorboardX.proto.event_pb2 import SessionLog

            self._event(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        from tensorboardX.proto.summary_pb2 import Summary

        if values:
            listed = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._event(step=step, summary=Summary(value=listed))

    def close(self) -> None:
        """Write what is left."""
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._give_up(error)
        self._writer = None

    def _event(self, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            return
        try:
            self._writer.write_event(Event(wall_time=time.time(), **what))
            if time.monotonic() - self._flushed > _FLUSH_S:
                self._writer.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()
        warnings.warn(f"The curves cannot be written any more ({error.strerror or error}).", UserWarning, stacklevel=2)
