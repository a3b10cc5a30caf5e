"""Objects larger than a window: neighbours of the click's window answer too, so that no mask ends at a box's side.

A neighbour may hold no click. It gets a *seed* instead, a positive place deep inside the part of the object that lies
in it already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from VISTA3DCore.inference.click_scores import ClickEncoder, Prompt, ScoreMap, blend, click_windows, voxel_in
from VISTA3DCore.inference.click_windows import Policy, holds, neighbour_window
from VISTA3DCore.inference.components import label_components
from VISTA3DCore.inference.windows import Shape
from VISTA3DCore.progress import Progress

# A liver of 25 cm reaches into 8 windows of the released model beyond the first.
MOST_NEIGHBOURS = 8
# Fewer voxels than this at a window's side are noise.
_SMALLEST_FACE = 4


def answer_clicks(
    encoder: ClickEncoder,
    prompt: Prompt,
    policy: Policy,
    shape: Shape,
    base: Callable[[], np.ndarray] | None,
    progress: Progress,
    grow: bool = True,
) -> ScoreMap:
    """Return the network's answer to clicks.

    :param shape: of the model grid.
    :param base: gives the mask that is corrected, bool [i, j, k] on the model grid; or None. A window with negative
        clicks alone is told by a seed inside the base what the object is.
    :param grow: ask neighbour windows while the object touches a window's side, :data:`MOST_NEIGHBOURS` at most.
    :raises Cancelled: between windows.
    """
    windows = click_windows(prompt, policy, shape, encoder.window)
    answers = {}
    for number, start in enumerate(windows):
        part = progress.part(0.5 * number / len(windows), 0.5 * (number + 1) / len(windows))
        seed = _base_seed(prompt, start, encoder.window, base) if grow else None
        answers[start] = encoder.answer(start, prompt.tokens_in(start, encoder.window, seed), part)
    score_map = blend(list(answers.items()))
    for number in range(MOST_NEIGHBOURS if grow else 0):
        found = _next_neighbour(score_map, prompt, answers, shape, encoder.window)
        if found is None:
            break
        start, seed = found
        part = progress.part(0.5 + 0.5 * number / MOST_NEIGHBOURS, 0.5 + 0.5 * (number + 1) / MOST_NEIGHBOURS)
        answers[start] = encoder.answer(start, prompt.tokens_in(start, encoder.window, seed), part)
        score_map = blend(list(answers.items()))
    progress.update(1.0, "Clicks answered")
    return score_map


def _base_seed(prompt: Prompt, start: Shape, window: Shape, base: Callable[[], np.ndarray] | None) -> np.ndarray | None:
    """Return a place inside the base for a window in which every click is negative."""
    polarities = zip(prompt.places, prompt.positive, strict=True)
    if base is None or any(positive and holds(start, window, place) for place, positive in polarities):
        return None
    inside, mask = _part_inside(start, window, (0, 0, 0), base())
    mask = mask.copy()
    for place in prompt.places:
        _clear_around(mask, place - inside, min(window) // 8)
    return _deepest(mask, inside)


def _part_inside(start: Shape, window: Shape, origin: Shape, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of a mask (whose first voxel is ``origin``) that lies in a window, and its first voxel [3]."""
    low = np.clip(np.subtract(start, origin), 0, mask.shape)
    high = np.clip(np.subtract(start, origin) + window, low, mask.shape)
    return low + origin, mask[tuple(map(slice, low, high))]


def _clear_around(mask: np.ndarray, place: np.ndarray, radius: int) -> None:
    """Keep the seed away from what the user marked as wrong."""
    low = np.clip(np.rint(place) - radius, 0, mask.shape).astype(int)
    high = np.clip(np.rint(place) + radius + 1, 0, mask.shape).astype(int)
    mask[tuple(map(slice, low, high))] = False


def _next_neighbour(
    score_map: ScoreMap, prompt: Prompt, answers: dict[Shape, np.ndarray], shape: Shape, window: Shape
) -> tuple[Shape, np.ndarray] | None:
    """Return the window beyond the side that the object touches most, and a seed in it; None if it touches none."""
    positive = score_map.scores > 0
    sides = list(_open_sides(score_map, positive, answers, shape, window))
    if not sides:
        return None
    object_ = _clicked_object(score_map, positive, prompt)
    touched = _open_sides(score_map, object_, answers, shape, window)
    for _, start in sorted(touched, key=lambda side: (-side[0], side[1])):
        inside, part = _part_inside(start, window, score_map.start, object_)
        seed = _deepest(part, inside)
        if seed is not None:
            return start, seed
    return None


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


def _clicked_object(score_map: ScoreMap, positive: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Return the components that hold a positive click."""
    labels, _ = label_components(positive)
    voxels = [voxel_in(score_map, place) for place, kind in zip(prompt.places, prompt.positive, strict=True) if kind]
    numbers = {int(labels[voxel]) for voxel in voxels if voxel is not None} - {0}
    return np.isin(labels, list(numbers))


def _deepest(mask: np.ndarray, origin: np.ndarray) -> np.ndarray | None:
    """Return the place [3] deepest inside a mask, on every second voxel for speed; None if the mask is empty."""
    coarse = mask[::2, ::2, ::2]
    if not coarse.any():
        return None
    depth = ndimage.distance_transform_edt(np.pad(coarse, 1))[1:-1, 1:-1, 1:-1]
    return 2.0 * np.array(np.unravel_index(int(depth.argmax()), depth.shape)) + origin
