# SPDX-License-Identifier: Apache-2.0
"""How long a run will take, from what was measured on this computer, in words that promise no more than is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from VISTA3DCore.engine.client import model_on_wire
from VISTA3DCore.engine.protocol import ProbeParams

from ..i18n import tr as _
from .regions import Corners, volume_box
from .settings import Rate
from .signals import Signal

if TYPE_CHECKING:
    from VISTA3DCore.engine.protocol import OpenResult, ProbeResult, SegmentResult
    from VISTA3DCore.errors import VistaError

    from .automatic import RunRequest
    from .engine import Engine, Pending
    from .settings import Settings
    from .volumes import OpenedVolumes

#: Share of a window's side that neighbors have in common, by preset of the engine.
OVERLAPS = {"bundle": 0.25, "paper": 0.625}
# Around a region the engine computes this share of a window as context.
_CONTEXT = 1 / 8

# From here on cheaper ways are mentioned.
_SLOW_S = 60.0
_EXAMPLE_REGION_MM = 200.0

Shape = tuple[int, int, int]
# A session, a preset and a region.
_Key = tuple[str, str, "Corners | None"]


class Forecast:
    """Says how long runs take: from measured times, and before the first run from one window that the engine computes.

    Signal: ``changed()``: a time that was not known is known now.

    :param settings: where measured times are kept; None: nothing is known.
    """

    def __init__(self, engine: Engine, volumes: OpenedVolumes, settings: Settings | None) -> None:
        self.changed = Signal()
        self._engine, self._volumes, self._settings = engine, volumes, settings
        # Runs of which the engine keeps what the network saw, and all those that tell nothing about the network.
        self._kept: set[_Key] = set()
        self._computed: set[_Key] = set()
        self._probing: Pending | None = None
        self._probed: set[tuple[str, str]] = set()
        engine.stopped.connect(self._forget)

    def seconds(self, request: RunRequest) -> float | None:
        """Return how many seconds the network will take, None if that was never measured."""
        if self._is_kept(request):
            return 0.0
        rate = self._rate(request)
        return None if rate is None else self._windows(request, rate) * rate.ms / 1000

    def in_words(self, request: RunRequest) -> str | None:
        """Return the time of a valid request as a sentence with cheaper ways if it is long; None if unknown."""
        if self._is_kept(request):
            return _("A few seconds: the network has already seen this part of the volume.")
        seconds, on_processor = self.seconds(request), self._device(request) == "cpu"
        if seconds is None:
            return _("Measuring how fast this computer is…") if self._probing is not None else None
        where = _("on this processor") if on_processor else _("on the GPU")
        time = in_words(seconds)
        told = _("{time} {where}").format(time=time[:1].upper() + time[1:], where=where)
        return "; ".join([told, *(self._cheaper(request) if seconds > _SLOW_S else ())]) + "."

    def probe(self, request: RunRequest) -> None:
        """Let the engine compute one window of the model if its time is not known; ``changed`` tells when it is.

        A failure stays silent: the run itself tells what is wrong.
        """
        key = request.model, request.device
        if self._settings is None or self._probing is not None or key in self._probed or self._rate(request):
            return
        self._probed.add(key)
        params = ProbeParams(model_on_wire(request.model), request.device)
        learned, failed = partial(self._on_probed, request), self._on_probe_failed
        self._probing = self._engine.request("probe", params, learned, failed)

    def stop(self) -> None:
        """Make way for a run."""
        pending, self._probing = self._probing, None
        if pending is not None:
            pending.drop()

    def learn(self, request: RunRequest, session: str, result: SegmentResult) -> None:
        """Note how long a run took on a volume that is open, and whether the engine keeps what the network saw."""
        opened, key = self._opened(request), (session, request.preset, request.region)
        (self._kept.add if result.kept else self._kept.discard)(key)
        if self._settings is None or opened is None or opened.window is None or key in self._computed:
            return
        self._computed.add(key)
        rate = Rate(1.0, opened.window, opened.spacing)
        ms = result.engine_ms / self._windows(request, rate)
        if ms > 0:
            self._settings.note_rate(request.model, opened.device, request.preset, replace(rate, ms=ms))

    def _on_probed(self, request: RunRequest, result: ProbeResult) -> None:
        self._probing = None
        rate = Rate(result.window_ms, result.window, result.spacing)
        for device in {result.device, request.device} - {"auto"}:
            for preset in OVERLAPS:  # more windows, each of which takes as long
                self._settings.note_rate(request.model, device, preset, rate)
        self.changed()

    def _on_probe_failed(self, _error: VistaError) -> None:
        self._probing = None
        self.changed()

    def _forget(self) -> None:
        self._kept.clear()
        self._computed.clear()
        self._probed.clear()

    def _is_kept(self, request: RunRequest) -> bool:
        opened = self._opened(request)
        return opened is not None and (opened.session, request.preset, request.region) in self._kept

    def _cheaper(self, request: RunRequest) -> list[str]:
        """Return what would be faster. Fewer structures would not: the network sees the same windows."""
        ways = []
        if request.region is None:
            region = (0.0, 0.0, 0.0, *[_EXAMPLE_REGION_MM] * 3)
            time = in_words(self.seconds(replace(request, region=region)))
            ways.append(_("{time} for a region of 20 cm").format(time=time))
        quicker = self.seconds(replace(request, preset="bundle"))
        if request.preset != "bundle" and quicker is not None:
            ways.append(_("{time} in standard quality").format(time=in_words(quicker)))
        return ways

    def _rate(self, request: RunRequest) -> Rate | None:
        if self._settings is None:
            return None
        return self._settings.rate(request.model, self._device(request), request.preset)

    def _windows(self, request: RunRequest, rate: Rate) -> int:
        opened = self._opened(request)
        whole = opened.model_shape if opened else grid_of(volume_box(request.volume), rate.spacing)
        shape = whole if request.region is None else region_grid(request.region, whole, rate)
        return count_windows(shape, rate.window, request.preset)

    def _device(self, request: RunRequest) -> str:
        """Return where a request would run, as far as is known; empty if it is not."""
        opened = self._opened(request)
        if opened is not None:
            return opened.device
        if request.device != "auto":
            return request.device
        return "" if self._engine.info is None else self._engine.info.device

    def _opened(self, request: RunRequest) -> OpenResult | None:
        return self._volumes.opened(request.volume, request.model, request.device)


def count_windows(shape: Sequence[int], window: Sequence[int], preset: str) -> int:
    """Return how many windows the engine lays over a model grid of ``shape`` voxels."""
    count = 1
    for size, side in zip(shape, window, strict=True):
        stride = max(int(side * (1 - OVERLAPS[preset])), 1)
        count *= math.ceil(max(size - side, 0) / stride) + 1
    return count


def grid_of(box: Corners, spacing: Sequence[float]) -> Shape:
    """Return how many voxels of the model grid a box in mm has along each axis."""
    sizes = np.subtract(box[3:], box[:3]) / spacing
    return tuple(max(math.ceil(size), 1) for size in sizes)


def region_grid(region: Corners, whole: Shape, rate: Rate) -> Shape:
    """Return the voxels of the model grid that the engine computes for a region: with context, within the volume."""
    inner = grid_of(region, rate.spacing)
    return tuple(
        min(max(size + 2 * int(side * _CONTEXT), side), full)
        for size, side, full in zip(inner, rate.window, whole, strict=True)
    )


def in_words(seconds: float) -> str:
    """Return a duration for people, rounded so that it claims no more precision than it has."""
    if seconds < 8:
        return _("a few seconds")
    if seconds < 55:
        return _("about {count} seconds").format(count=5 * math.ceil(seconds / 5))
    if seconds < 90:
        return _("about a minute")
    if seconds < 90 * 60:
        return _("about {count} minutes").format(count=round(seconds / 60))
    return _("about {count} hours").format(count=round(seconds / 3600))
