"""The network's answer to clicks: scores on the model grid, from the windows that the clicks choose.

Every window's features are encoded once and kept. The answer depends on the clicks alone, not on what was asked before:
windows and seeds are chosen by rules, and features are rounded to the kept precision before their first use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch

from VISTA3DCore.backends.memory import empty_caches, is_out_of_memory
from VISTA3DCore.backends.transfers import to_host
from VISTA3DCore.errors import NotEnoughMemoryError
from VISTA3DCore.inference.automatic.feature_map import warn_of_the_cpu
from VISTA3DCore.inference.clicks.cache import ClickCache
from VISTA3DCore.inference.clicks.windows import holds, nearest_voxel, window_image
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape, gaussian_weights
from VISTA3DCore.network.click_head import ClickTokens, ImageSide
from VISTA3DCore.network.config import ModelConfig
from VISTA3DCore.progress import Progress

Result = TypeVar("Result")
Token = tuple[np.ndarray, bool]
"""A place on the model grid (fractional voxel index [3]) and whether it belongs to the object."""

ENCODING = "Looking at the image around the click"
# Windows whose part of the first attention layer, and answers that, are kept for the next click or an undo.
_PREPARED = 2
_ANSWERS = 16


class ClickBackend(Protocol):
    """What clicks need of a runtime; see :class:`VISTA3DCore.backends.torch_backend.TorchBackend`."""

    config: ModelConfig
    device: torch.device

    def click_features(self, patch: torch.Tensor) -> torch.Tensor: ...

    def click_image(self, features: torch.Tensor) -> ImageSide: ...

    def click_scores(self, features: torch.Tensor | ImageSide, tokens: ClickTokens) -> torch.Tensor: ...

    def on(self, device: torch.device | str) -> ClickBackend: ...


@dataclass(frozen=True)
class Prompt:
    """The clicks on one object, on the model grid.

    :param places: [n, 3] fractional voxel indices.
    :param positive: [n] polarity.
    :param special: the structure needs special tokens.
    :param zero_shot: the object is none that the model knows.
    :param newest: how many of the clicks, the last ones, are about to add or remove something; None: all.
    """

    places: np.ndarray
    positive: tuple[bool, ...]
    special: bool = False
    zero_shot: bool = False
    newest: int | None = None

    def tokens_in(self, start: Shape, window: Shape, seeds: Sequence[Token] = ()) -> ClickTokens:
        """Return the tokens of the clicks that lie in a window, and of further places in it.

        Sorted, because attention does not care about order but rounding would.
        """
        clicks = zip(self.places, self.positive, strict=True)
        held = [(place, positive) for place, positive in clicks if holds(start, window, place)]
        tokens = sorted(((place - start).tolist(), positive) for place, positive in (*held, *seeds))
        return ClickTokens(
            tuple(tuple(place) for place, _ in tokens),
            tuple(positive for _, positive in tokens),
            self.special,
            self.zero_shot,
        )


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """Scores where windows answered.

    :param start: first voxel of the arrays on the model grid (may be negative).
    :param scores: [x, y, z] float32; 0 where no window answered.
    :param known: [x, y, z] bool, where a window answered.
    """

    start: Shape
    scores: np.ndarray
    known: np.ndarray

    @property
    def box(self) -> Box:
        return tuple(slice(first, first + size) for first, size in zip(self.start, self.scores.shape, strict=True))


class ClickEncoder:
    """Encodes windows of one image, and answers clicks in them.

    :param image: [i, j, k] of the model grid.
    :param cache: keeps features.
    :param dtype: in which they are kept, and rounded to before any use.
    """

    def __init__(self, backend: ClickBackend, image: np.ndarray, cache: ClickCache, dtype: torch.dtype) -> None:
        self.backend, self._image, self._cache, self._dtype = backend, image, cache, dtype
        self._prepared: OrderedDict[Shape, ImageSide] = OrderedDict()
        self._answers: OrderedDict[tuple[Shape, ClickTokens], np.ndarray] = OrderedDict()
        self.encoded = 0

    @property
    def window(self) -> Shape:
        return self.backend.config.window

    @property
    def cache(self) -> ClickCache:
        return self._cache

    def clear(self) -> None:
        """Forget everything."""
        self._cache.clear()
        self._prepared.clear()
        self._answers.clear()

    def encode(self, start: Shape, progress: Progress) -> torch.Tensor:
        """Return a window's features, encoding them if they are not kept; counted in ``encoded``.

        :raises Cancelled: before the encoding.
        """
        features = self.attempt(lambda: self._cache.get(start))
        if features is None:
            progress.update(0.0, ENCODING)
            patch = window_image(self._image, start, self.window)
            features = self.attempt(lambda: self.backend.click_features(patch).to(self._dtype))
            self.encoded += 1
            self._cache.put(start, features)
            progress.update(1.0, ENCODING)
        return features

    def answer(self, start: Shape, tokens: ClickTokens, progress: Progress) -> np.ndarray:
        """Return the scores of a window [w, w, w], float32."""
        key = (start, tokens)
        if key not in self._answers:
            self._answers[key] = self.attempt(lambda: self._scores(start, tokens, progress))
            _forget_oldest(self._answers, _ANSWERS)
        self._answers.move_to_end(key)
        return self._answers[key]

    def _scores(self, start: Shape, tokens: ClickTokens, progress: Progress) -> np.ndarray:
        # What was prepared on a device is of no use on the CPU, so each attempt asks for it, before the backend.
        side = self._side(start, progress)
        return to_host(self.backend.click_scores(side, tokens))

    def _side(self, start: Shape, progress: Progress) -> ImageSide:
        if start not in self._prepared:
            features = self.encode(start, progress)
            self._prepared[start] = self.attempt(lambda: self.backend.click_image(features))
            _forget_oldest(self._prepared, _PREPARED)
        self._prepared.move_to_end(start)
        return self._prepared[start]

    def attempt(self, action: Callable[[], Result]) -> Result:
        """Run an action; when memory runs out, free the device and repeat it, then with :attr:`backend` on the CPU.

        :raises NotEnoughMemoryError: if that did not help.
        """
        for step_down in (self._free_device, self._run_on_cpu, None):
            try:
                return action()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).splitlines()[0]
            if step_down is not None:
                step_down()
        raise NotEnoughMemoryError(
            f"There is not enough memory for one window of this model ({message}); close other programs or use a "
            "smaller model."
        )

    def _free_device(self) -> None:
        self._cache.leave_device()
        self._prepared.clear()
        getattr(self.backend, "forget", bool)()
        empty_caches()

    def _run_on_cpu(self) -> None:
        warn_of_the_cpu()
        self._prepared.clear()
        self.backend = self.backend.on("cpu")


def _forget_oldest(store: OrderedDict, most: int) -> None:
    while len(store) > most:
        store.popitem(last=False)


def blend(answers: Sequence[tuple[Shape, np.ndarray]]) -> ScoreMap:
    """Join the answers of windows; where they overlap, the middle of a window weighs more than its border.

    Every window that answered counts as one (the reference adds them up and forgets to divide), and none that did not.

    :param answers: first voxel and scores [w, w, w] of at least one window.
    """
    starts = np.array([start for start, _ in answers])
    shape = answers[0][1].shape
    first, stop = starts.min(axis=0), starts.max(axis=0) + shape
    if len(answers) == 1:
        return ScoreMap(tuple(first.tolist()), answers[0][1], np.ones(shape, dtype=bool))
    sums, total = (np.zeros(stop - first, dtype=np.float32) for _ in range(2))
    weights = gaussian_weights(shape).numpy()
    for start, scores in sorted(answers, key=lambda answer: answer[0]):
        place = tuple(slice(low, low + side) for low, side in zip(np.subtract(start, first), shape, strict=True))
        sums[place] += weights * scores
        total[place] += weights
    known = total > 0
    np.divide(sums, total, out=sums, where=known)
    return ScoreMap(tuple(first.tolist()), sums, known)


def voxel_in(score_map: ScoreMap, place: np.ndarray) -> Shape | None:
    """Return the voxel of a score map that a place on the model grid lies in, or None."""
    voxel = np.subtract(nearest_voxel(place), score_map.start)
    inside = np.all((voxel >= 0) & (voxel < score_map.scores.shape))
    return tuple(voxel.tolist()) if inside else None
