"""Objects larger than a window: neighbours of the click's window answer too, so that no mask ends at a box's side.

Only what the newest click is about to change counts. A neighbour may hold no click. It gets *seeds* instead: a positive
place deep inside the part that lies in it of what a positive click is about to add, and a negative one deep inside what
a negative click is about to remove. Likewise, a window with
negative clicks alone learns from seeds inside the base what the object is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from VISTA3DCore.imaging.components import bounding_box, label_components
from VISTA3DCore.imaging.morphology import depth
from VISTA3DCore.inference.clicks.scores import ClickEncoder, Prompt, ScoreMap, Token, blend, voxel_in
from VISTA3DCore.inference.clicks.windows import Policy, holds, neighbour_window
from VISTA3DCore.inference.preprocessing import Box
from VISTA3DCore.inference.windows import Shape
from VISTA3DCore.progress import Progress

# A liver of 25 cm reaches into 8 windows of the released model beyond the first.
MOST_NEIGHBOURS = 8
# Places that tell a window of negative clicks what the base is. On a training CT with neighbours merged into the base,
# one negative click brought mean Dice from 0.63 to 0.55 without them, 0.67 with one, 0.69 with three.
_BASE_SEEDS = 3
# Fewer voxels than this at a window's side are noise.
_SMALLEST_FACE = 4

Base = Callable[[Box], np.ndarray]
"""Gives the mask that is corrected in a box of the model grid, bool; False beyond the volume."""


def answer_clicks(
    encoder: ClickEncoder,
    prompt: Prompt,
    policy: Policy,
    shape: Shape,
    base: Base | None,
    progress: Progress,
    grow: bool = True,
) -> ScoreMap:
    """Return the network's answer to clicks.

    :param shape: of the model grid.
    :param base: the mask that is shown before the newest click, or None for an empty one.
    :param grow: use seeds, and ask neighbour windows while what the newest click adds or removes touches a window's
        side, :data:`MOST_NEIGHBOURS` at most. Without it, windows are those of the clicks, as in the reference.
    :raises Cancelled: between windows.
    """
    windows = policy(prompt.places, shape, encoder.window)
    growth = _Growth(encoder, prompt, shape, _remembered(base) if grow and base is not None else None)
    for number, start in enumerate(windows):
        growth.ask(start, {}, progress.part(0.5 * number / len(windows), 0.5 * (number + 1) / len(windows)))
    for number in range(MOST_NEIGHBOURS if grow else 0):
        found = growth.next_neighbour()
        if found is None:
            break
        growth.ask(
            *found, progress.part(0.5 + 0.5 * number / MOST_NEIGHBOURS, 0.5 + 0.5 * (number + 1) / MOST_NEIGHBOURS)
        )
    progress.update(1.0, "Clicks answered")
    return growth.score_map


def _remembered(base: Base) -> Base:
    """Return the same, which does not resample a box twice in a row; the result must not be changed."""
    last: dict[tuple, np.ndarray] = {}

    def in_box(box: Box) -> np.ndarray:
        key = tuple((part.start, part.stop) for part in box)
        if key not in last:
            last.clear()
            last[key] = base(box)
        return last[key]

    return in_box


Regions = dict[bool, np.ndarray]
"""On the score map: what the newest clicks will add if they are positive (True), remove if negative (False)."""


@dataclass(eq=False)
class _Growth:
    """The windows that answered so far."""

    encoder: ClickEncoder
    prompt: Prompt
    shape: Shape
    base: Base | None
    answers: dict[Shape, np.ndarray] = field(default_factory=dict)

    @property
    def score_map(self) -> ScoreMap:
        return blend(list(self.answers.items()))

    def ask(self, start: Shape, regions: Regions, progress: Progress) -> None:
        """Let one more window answer."""
        tokens = self.prompt.tokens_in(start, self.encoder.window, self._seeds(start, regions))
        self.answers[start] = self.encoder.answer(start, tokens, progress)

    def next_neighbour(self) -> tuple[Shape, Regions] | None:
        """Return the window beyond the side that the regions touch most, and the regions; None if they touch none."""
        score_map = self.score_map
        regions = self._regions(score_map)
        touched: dict[Shape, int] = {}
        for region in regions.values():
            for count, start in _open_sides(score_map, region, self.answers, self.shape, self.encoder.window):
                touched[start] = max(touched.get(start, 0), count)
        if not touched:
            return None
        return min(touched, key=lambda start: (-touched[start], start)), regions

    def _regions(self, score_map: ScoreMap) -> Regions:
        """Find the components that hold clicks; only where some mask touches an open side, because they take time."""
        positive = score_map.scores > 0
        touches = partial(_open_sides, score_map, answers=self.answers, shape=self.shape, window=self.encoder.window)
        places, polarities = self._newest()
        regions = {}
        for polarity in set(polarities):
            if self.base is None and not polarity:
                continue
            if self.base is None:
                mask = positive
            elif polarity:
                mask = positive & ~self.base(score_map.box)
            else:
                mask = self.base(score_map.box) & ~positive & score_map.known
            if any(True for _ in touches(mask=mask)):
                clicked = [place for place, one in zip(places, polarities, strict=True) if one == polarity]
                regions[polarity] = _clicked_components(score_map, mask, clicked)
        return regions

    def _newest(self) -> tuple[np.ndarray, tuple[bool, ...]]:
        """Return places and polarities of the clicks that are about to change something."""
        count = len(self.prompt.positive)
        first = 0 if self.prompt.newest is None else max(count - self.prompt.newest, 0)
        return self.prompt.places[first:], self.prompt.positive[first:]

    def _seeds(self, start: Shape, regions: Regions) -> list[Token]:
        """Return the places that a window is told beside the clicks in it."""
        window = self.encoder.window
        origin = tuple(np.min(list(self.answers), axis=0).tolist()) if self.answers else start
        seeds = []
        for polarity, region in regions.items():
            inside, part = _part_inside(start, window, origin, region)
            seeds += [(place + inside, polarity) for place in _deepest(part)]
        polarities = zip(self.prompt.places, self.prompt.positive, strict=True)
        told = any(polarity for _, polarity in seeds) or any(
            positive and holds(start, window, place) for place, positive in polarities
        )
        if self.base is not None and not told:
            seeds += self._base_seeds(start, regions.get(False), origin)
        return seeds

    def _base_seeds(self, start: Shape, removed: np.ndarray | None, origin: Shape) -> list[Token]:
        """Return places deep inside the base, apart from each other and from what the user marked as wrong."""
        window = self.encoder.window
        mask = self.base(tuple(slice(first, first + side) for first, side in zip(start, window, strict=True))).copy()
        for place in self.prompt.places:
            _clear_around(mask, place - start, min(window) // 8)
        if removed is not None:
            inside, part = _part_inside(start, window, origin, removed)
            low = np.subtract(inside, start)
            mask[tuple(map(slice, low, low + part.shape))] &= ~part
        return [(place + start, True) for place in _deepest(mask, _BASE_SEEDS, min(window) // 8)]


def _part_inside(start: Shape, window: Shape, origin: Shape, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a mask (whose first voxel is ``origin``) in a window: its first voxel [3], and it."""
    low = np.clip(np.subtract(start, origin), 0, mask.shape)
    high = np.clip(np.subtract(start, origin) + window, low, mask.shape)
    return low + origin, mask[tuple(map(slice, low, high))]


def _clear_around(mask: np.ndarray, place: np.ndarray, radius: int) -> None:
    low = np.clip(np.rint(place) - radius, 0, mask.shape).astype(int)
    high = np.clip(np.rint(place) + radius + 1, 0, mask.shape).astype(int)
    mask[tuple(map(slice, low, high))] = False


def _open_sides(
    score_map: ScoreMap, mask: np.ndarray, answers: dict[Shape, np.ndarray], shape: Shape, window: Shape
) -> Iterator[tuple[int, Shape]]:
    """Yield (touching voxels, next window) of windows' sides where the mask ends because nothing answered beyond."""
    for start in answers:
        for axis in range(3):
            for direction in (-1, 1):
                beyond = neighbour_window(start, axis, direction, shape, window)
                if beyond is None or beyond in answers:
                    continue
                touching = _touching(score_map, mask, start, window, axis, direction)
                if touching >= _SMALLEST_FACE:
                    yield touching, beyond


def _touching(score_map: ScoreMap, mask: np.ndarray, start: Shape, window: Shape, axis: int, direction: int) -> int:
    """Return how many voxels of a window's side are in the mask and have nothing known behind them."""
    place = [
        slice(first - low, first - low + side) for first, low, side in zip(start, score_map.start, window, strict=True)
    ]
    last = place[axis].stop - 1 if direction > 0 else place[axis].start
    place[axis] = last
    face = mask[tuple(place)]
    behind = last + direction
    if 0 <= behind < mask.shape[axis]:
        place[axis] = behind
        face = face & ~score_map.known[tuple(place)]
    return int(np.count_nonzero(face))


def _clicked_components(score_map: ScoreMap, mask: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Return the components of a mask that hold one of several places on the model grid."""
    labels, _ = label_components(mask)
    voxels = [voxel_in(score_map, place) for place in places]
    numbers = {int(labels[voxel]) for voxel in voxels if voxel is not None} - {0}
    return np.isin(labels, list(numbers))


def _deepest(mask: np.ndarray, count: int = 1, apart: int = 0) -> list[np.ndarray]:
    """Return places [3] deep inside a mask, the deepest first, on every second voxel for speed; fewer if it has fewer.

    :param apart: around each place, all that is within so many voxels along each axis counts as outside for the next.
    """
    coarse = mask[::2, ::2, ::2]
    box = bounding_box(coarse)
    if box is None:
        return []
    # Beyond its box everything is outside, so nothing there is nearer than the layer of outside that depth adds.
    depths = depth(coarse[box])
    places = []
    while len(places) < count and depths.any():
        voxel = np.unravel_index(int(depths.argmax()), depths.shape)
        places.append(2.0 * (np.array(voxel) + [part.start for part in box]))
        away = (
            np.maximum(abs(np.arange(size) - at) - apart // 2, 0) for size, at in zip(depths.shape, voxel, strict=True)
        )
        squares = (np.float32(steps) ** 2 for steps in np.ix_(*away))
        np.minimum(depths, np.sqrt(sum(squares)), out=depths)
    return places
