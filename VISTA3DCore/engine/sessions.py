"""What the engine process holds: loaded models and opened volumes. When memory runs low, the least recently used go.

Three steps, each only while memory is short, and never for what is being used: kept features and encoded windows of the
other volumes (they are computed again when needed), then the other volumes themselves (their sessions are unknown from
then on; the client opens the volume again), then models that no volume needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from VISTA3DCore.engine.protocol import Memory, UnknownSessionError
from VISTA3DCore.imaging.volume import Volume
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    import torch

    from VISTA3DCore.inference.segmenter import Segmenter
    from VISTA3DCore.inference.session import Session

log = logging.getLogger("vista3d.worker")

# Memory counts as short below this share of it, on the host (at most so many bytes) and on the device.
RESERVE_SHARE = 0.1
_HOST_RESERVE = 4 << 30

Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, eq=False)
class Opened:
    """An opened volume.

    :param name: what people call the volume.
    """

    id: str
    name: str
    segmenter: Segmenter
    session: Session


def memory_of(device: torch.device | None) -> Memory:
    """Return the bytes of the host's memory and, where the device has one of its own, of the device's.

    Zeros where psutil is missing: an engine that only manages models runs before anything was installed.
    """
    try:
        import psutil
    except ImportError:
        return Memory(0, 0)
    host = psutil.virtual_memory()
    if device is None or device.type != "cuda":
        return Memory(host.total, host.available)
    import torch

    free, total = torch.cuda.mem_get_info(device)
    # What torch keeps for later is as good as free.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return Memory(host.total, host.available, total, free + kept)


def is_short(memory: Memory) -> bool:
    """Whether less memory is left than the next request should find."""
    if memory.available < min(RESERVE_SHARE * memory.total, _HOST_RESERVE):
        return True
    if memory.device_total is None or memory.device_available is None:
        return False
    return memory.device_available < RESERVE_SHARE * memory.device_total


class SessionRegistry:
    """Models and sessions, the most recently used last. Belongs to the inference thread.

    :param load: model, device, progress, runtime, precision -> Segmenter.
    :param measure: device -> its and the host's memory.
    """

    def __init__(
        self,
        load: Callable[[str, str, Progress, str, str], Segmenter],
        measure: Callable[[torch.device], Memory] = memory_of,
    ) -> None:
        self._load, self._measure = load, measure
        self._segmenters: OrderedDict[Key, Segmenter] = OrderedDict()
        self._sessions: OrderedDict[str, Opened] = OrderedDict()
        self._evicted: dict[str, str] = {}

    @property
    def sessions(self) -> tuple[str, ...]:
        """Ids of the opened volumes; safe from any thread."""
        return tuple(self._sessions.copy())

    def model(
        self, name: str, device: str, progress: Progress, runtime: str = "auto", precision: str = "auto"
    ) -> Segmenter:
        """Return a model, loaded if it is not yet, or if its file has changed since.

        :raises VistaError: as :meth:`Segmenter.from_pretrained`.
        """
        from VISTA3DCore.models.store import ModelStore

        key = (name, device, runtime, precision, ModelStore().resolve(name).stat().st_mtime_ns)
        if key not in self._segmenters:
            self._segmenters[key] = self._load(name, device, progress, runtime, precision)
        self._segmenters.move_to_end(key)
        return self._segmenters[key]

    def open(self, volume: Volume, segmenter: Segmenter, progress: Progress, grid: str = "stored") -> Opened:
        """Open a volume with one of the models.

        :raises VistaError: as :meth:`Segmenter.open`.
        """
        self.make_room(segmenter)
        opened = Opened(uuid.uuid4().hex, volume.name, segmenter, segmenter.open(volume, progress, grid=grid))
        self._sessions[opened.id] = opened
        return opened

    def find(self, id_: str) -> Opened:
        """Return an opened volume and make it the most recently used.

        :raises UnknownSessionError: if it is not open; the sentence says if it had to go.
        """
        if id_ in self._sessions:
            self._sessions.move_to_end(id_)
            return self._sessions[id_]
        if id_ in self._evicted:
            raise UnknownSessionError(
                f"The volume '{self._evicted[id_]}' was closed because memory ran low; open it again."
            )
        raise UnknownSessionError("The volume is not open in the engine; open it again.")

    def close(self, id_: str) -> None:
        """Free a session, unless it was closed already because memory ran low.

        :raises UnknownSessionError: if it never was open, or was closed before.
        """
        if self._evicted.pop(id_, None) is not None:
            return
        opened = self.find(id_)
        del self._sessions[id_]
        opened.session.close()
        trim()

    def make_room(self, segmenter: Segmenter, used: Opened | None = None) -> None:
        """Release what is not used, step by step, while memory is short."""
        steps = self._steps(segmenter, used)
        while is_short(self._measure(segmenter.device)) and (step := next(steps, None)) is not None:
            step()
            release()

    def free_caches(self) -> None:
        """Drop the caches of all volumes and the models without a volume; results stay the same."""
        for opened in self._sessions.values():
            opened.session.free_caches()
        needed = [opened.segmenter for opened in self._sessions.values()]
        for segmenter in needed:
            segmenter.free_caches()
        for key in [key for key, idle in self._segmenters.items() if idle not in needed]:
            self._unload(key)
        release()

    def _steps(self, segmenter: Segmenter, used: Opened | None) -> Iterator[Callable[[], None]]:
        others = [opened for opened in self._sessions.values() if opened is not used]
        for opened in others:
            yield opened.session.free_caches
        for opened in others:
            yield partial(self._evict, opened)
        for key, idle in list(self._segmenters.items()):
            if idle is not segmenter:
                yield partial(self._unload, key)

    def _evict(self, opened: Opened) -> None:
        log.info("closing '%s' because memory is short", opened.name)
        self._evicted[opened.id] = opened.name
        del self._sessions[opened.id]
        opened.session.close()

    def _unload(self, key: Key) -> None:
        log.info("unloading %s because memory is short", key[0])
        del self._segmenters[key]


def release() -> None:
    """Hand memory that nothing uses any more back to the system."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.empty_cache()
    trim()


def trim() -> None:
    """Let the C library hand back what was freed; glibc alone keeps tens of megabytes, and has a function for it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
