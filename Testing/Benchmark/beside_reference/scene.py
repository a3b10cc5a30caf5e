"""What all sides are asked to do: volumes, classes and clicks, read from the settings of a run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from VISTA3DCore.anatomy.catalogue import catalogue
from VISTA3DCore.network.config import ModelConfig

WINDOW, EVERYTHING, ONE_CLASS, SECOND_CLASS, MEMORY = "window", "everything", "one class", "second class", "memory"
FIRST_CLICK, CLICK = "first click", "click"
CLICK_COUNTS = (1, 5, 10)
#: What can be asked for, and the measures that it means.
WHAT = {
    "window": (WINDOW,),
    "everything": (EVERYTHING,),
    "automatic": (EVERYTHING, ONE_CLASS, SECOND_CLASS),
    "clicks": (FIRST_CLICK, *(f"{CLICK} {count}" for count in CLICK_COUNTS)),
    "memory": (MEMORY,),
}
# Clicks lie on a spiral around the middle of the window, this share of its side away.
_CLICK_RADIUS = 1 / 8
_GOLDEN_ANGLE = 2.4
# Each repetition clicks a little elsewhere (model voxels), so that no answer is known already.
_CLICK_SHIFT = 0.1


@dataclass(frozen=True)
class Scene:
    """Where a side finds its inputs, and how it is to run.

    :param model: a checkpoint, or the name of a model.
    :param click_volume: NIfTI of one window on the model grid; :param gate_volume: of a little less than a window.
    :param folder: for what a side leaves behind.
    :param device: as ``Segmenter.from_pretrained`` takes it; :param threads: of the CPU.
    :param device_memory: the most bytes that a CUDA device may give, or None.
    """

    model: str
    click_volume: str
    gate_volume: str
    folder: str
    device: str
    threads: int
    device_memory: int | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        return cls(**json.loads(text))

    def file(self, side: str, what: str, suffix: str) -> Path:
        """Return where a side leaves a result."""
        return Path(self.folder) / f"{side.replace(':', '_')}-{what.replace(' ', '_')}{suffix}"


def class_lists(config: ModelConfig) -> tuple[list[int], list[int], list[int]]:
    """Return the classes of "everything", of one class, and of another one asked for later."""
    structures = catalogue(config.label_set)
    everything = [one.index for one in structures.everything if config.classes is None or one.index in config.classes]
    return everything, everything[:1], everything[1:2] or everything[:1]


def click_places(config: ModelConfig, count: int, repetition: int = 0) -> tuple[np.ndarray, list[bool]]:
    """Return places [n, 3] in voxels of a model grid of one window, and polarities, the first one positive."""
    angles = np.arange(count) * _GOLDEN_ANGLE
    radius = _CLICK_RADIUS * min(config.window)
    offsets = np.stack([np.cos(angles), np.sin(angles), angles / 10], axis=1) * radius
    middle = np.array(config.window) / 2
    return middle + offsets + _CLICK_SHIFT * repetition % 1, [number % 2 == 0 for number in range(count)]


def gate_patch(config: ModelConfig, seed: int = 0) -> np.ndarray:
    """Return the window of the gate: the painted phantom, scaled to [0, 1], float32 [w, w, w]."""
    from VISTA3DCore.imaging.phantom import paint_phantom

    low, high = config.intensity_range
    image = paint_phantom(config.window, seed)[0].array
    return np.clip((image - low) / (high - low), 0, 1).astype(np.float32)


def thinned(logits: np.ndarray) -> np.ndarray:
    """Return every n-th voxel along the last three axes, about 32 of them, which is enough to compare."""
    steps = (max(1, side // 32) for side in logits.shape[-3:])
    return np.ascontiguousarray(logits[(..., *(slice(None, None, step) for step in steps))])
