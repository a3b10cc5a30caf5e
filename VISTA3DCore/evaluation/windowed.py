"""The paper's protocols, window by window with the reference in hand (upstream ``scripts/validation``).

Windows have the paper's layout (overlap 0.625, gaussian blending), each structure stands for itself (score above 0, no
competition), and masks come back to the input grid by nearest neighbour. ``point`` and ``auto+point`` set their clicks
in *every window*, from the reference: upper bounds that no user reaches.

What differs from upstream, which edits its automatic scores in place: each trial starts from the automatic result; and
where a kept trial leaves a voxel as it was, it keeps its automatic score.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from VISTA3DCore.evaluation.cases import OpenCase, Result
from VISTA3DCore.evaluation.clicking import TRIAL_COUNT, trial_clicks
from VISTA3DCore.evaluation.references import Target
from VISTA3DCore.evaluation.simulation import center_click, random_click
from VISTA3DCore.evaluation.statistics import dice
from VISTA3DCore.imaging.clicks import Click
from VISTA3DCore.imaging.components import Component, bounding_box
from VISTA3DCore.imaging.resampling import restore_nearest
from VISTA3DCore.inference.automatic.feature_map import Block, FeaturePass
from VISTA3DCore.inference.automatic.labels import score_block
from VISTA3DCore.inference.clicks.click_session import click_cache
from VISTA3DCore.inference.clicks.refinement import refine
from VISTA3DCore.inference.clicks.resample_to_input import ParallelGrids
from VISTA3DCore.inference.clicks.scores import ClickEncoder
from VISTA3DCore.inference.windows import PRESETS, Shape, WindowLayout, crop_window, gaussian_weights
from VISTA3DCore.network.click_head import ClickTokens
from VISTA3DCore.progress import Progress

if TYPE_CHECKING:
    from VISTA3DCore.inference.preprocessing import Box

# Score of a structure in a window that holds nothing of it (``NINF_VALUE`` of MONAI's VISTA3D).
_NOTHING = -9999.0
_T = TypeVar("_T")
_VOXELS = np.eye(4)  # clicks of one window are kept as voxel indices


def automatic(case: OpenCase, progress: Progress) -> Iterator[Result]:
    """Each structure where its blended score is positive; the reference takes no part."""
    yield from _segmented(case, [], progress)


def point(case: OpenCase, progress: Progress) -> Iterator[Result]:
    """One positive click in the middle of each structure in every window that holds a part of it."""
    if not case.targets:
        return
    windows = _Windows(case)
    for done, target in enumerate(case.targets):
        started = time.perf_counter()
        part = progress.part(done / len(case.targets), (done + 1) / len(case.targets))
        scores, clicks = windows.clicked(target, part)
        mask = windows.restored(scores > 0)
        yield Result(target, mask, clicks, time.perf_counter() - started)


def automatic_and_point(case: OpenCase, progress: Progress) -> Iterator[Result]:
    """The automatic scores, and in every window the best of three trials where its Dice rises."""
    edits = _Windows(case).trials(progress.part(0.0, 0.7)) if case.targets else []
    yield from _segmented(case, edits, progress.part(0.7, 1.0))


@dataclass(frozen=True, eq=False)
class _Edit:
    """What a kept trial changes in one window.

    :param number: of the target; :param start: the window's first voxel in the padded volume.
    :param voxels: [n, 3] indices in the window; :param change: [n] of the scores, times the window's weight.
    """

    number: int
    start: Shape
    voxels: np.ndarray
    change: np.ndarray
    clicks: int


@dataclass(eq=False)
class _Windows:
    """All windows of one case, and the reference on the model grid.

    Encoded windows are kept while they fit (:func:`click_cache`); those that do not are encoded for each structure.
    """

    case: OpenCase
    layout: WindowLayout = field(init=False)

    def __post_init__(self) -> None:
        segmenter = self.case.segmenter
        self._image, self._affine = self.case.session.model_grid
        self.layout = WindowLayout(self._image.shape, segmenter.config.window, PRESETS["paper"])
        self._grids = ParallelGrids(self.case.affine, self.case.shape, self._affine, self._image.shape)
        cache = click_cache(segmenter.device, None)
        self._encoder = ClickEncoder(segmenter.backend, self._image, cache, torch.float16)
        self._weights = gaussian_weights(self.layout.window).numpy()

    def clicked(self, target: Target, progress: Progress) -> tuple[np.ndarray, int]:
        """Return the sums of weighted scores on the model grid, and the number of clicks."""
        reference, clicks = self._padded_reference(target), 0
        sums = np.zeros(self.layout.padded_shape, dtype=np.float32)
        for done, start in enumerate(self.layout.windows):
            progress.update(done / len(self.layout.windows), "Clicking in every window", target.name)
            box = self._box(start)
            if reference[box].any():
                sums[box] += self._weights * self._answer(target, start, [center_click(reference[box], _VOXELS)])
                clicks += 1
            else:
                sums[box] += self._weights * np.float32(_NOTHING)
        return self._cropped(sums), clicks

    def trials(self, progress: Progress) -> list[_Edit]:
        """Return what the best trials change."""
        case = self.case
        edits: list[_Edit] = []
        vectors = case.segmenter.backend.class_matrix([target.known.index for target in case.targets])
        references = [_cut(self._padded_reference(target)) for target in case.targets]
        image = self.layout.pad(torch.from_numpy(self._image)[None, None])
        rng = np.random.default_rng(case.settings.seed)
        for done, start in enumerate(self.layout.windows):
            progress.update(done / len(self.layout.windows), "Trying clicks in every window")
            patch = crop_window(image, start, self.layout.window)
            features = self._encoder.attempt(functools.partial(self._automatic_features, patch))
            for number, (target, vector) in enumerate(zip(case.targets, vectors, strict=True)):
                progress.check()
                scores = torch.tensordot(vector.to(features.device), features, dims=1).cpu().numpy()
                window = self._window_of(references[number], start)
                edit = self._best_trial(number, target, start, scores, window, rng)
                edits += [edit] if edit is not None else []
        return edits

    def _automatic_features(self, patch: torch.Tensor) -> torch.Tensor:
        """Run the network that is in use now: the encoder moves to another device when memory runs out."""
        return self._encoder.backend.automatic_features(patch)  # type: ignore[attr-defined] # a segmenter's has it

    def restored(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask of the model grid on the input grid."""
        return restore_nearest(mask, self._affine, self.case.affine, self.case.shape)

    def _best_trial(
        self,
        number: int,
        target: Target,
        start: Shape,
        scores: np.ndarray,
        window: np.ndarray,
        rng: np.random.Generator,
    ) -> _Edit | None:
        """Return what the best of three trials changes, None where none is better than the automatic result."""
        shown, kept, clicks = scores > 0, None, 0
        best = _window_score(shown, window)
        for trial in range(TRIAL_COUNT):
            own = _clicks_of_trial(window, shown, rng, first=trial == 0)
            if not own:
                return None
            clicks += len(own)
            answer = self._answer(target, start, own)
            refined = refine(shown, answer > 0, own, _VOXELS, variant="reference")
            found = _window_score(refined.mask, window)
            if found > best:
                best, kept = found, (refined.added | refined.removed, answer)
        if kept is None:
            return None
        changed, answer = kept
        return _Edit(number, start, np.argwhere(changed), (self._weights * (answer - scores))[changed], clicks)

    def _answer(self, target: Target, start: Shape, clicks: Sequence[Click]) -> np.ndarray:
        tokens = ClickTokens(
            tuple(click.position for click in clicks),
            tuple(click.positive for click in clicks),
            target.known.special_click_tokens,
        )
        inside = _triple(first - before for first, before in zip(start, self.layout.pad_before, strict=True))
        return self._encoder.answer(inside, tokens, Progress())

    def _padded_reference(self, target: Target) -> np.ndarray:
        """Return the reference at the centers of the padded volume's voxels."""
        layout = self.layout
        box = _triple(
            slice(-before, size - before) for before, size in zip(layout.pad_before, layout.padded_shape, strict=True)
        )
        return self._grids.mask_on_model(self.case.mask(target), box)

    def _window_of(self, reference: Component | None, start: Shape) -> np.ndarray:
        """Return the part of a reference that lies in a window, bool [w, w, w]."""
        window = np.zeros(self.layout.window, dtype=bool)
        if reference is None:
            return window
        sides = [
            slice(max(part.start, first), min(part.stop, first + side))
            for part, first, side in zip(reference.box, start, self.layout.window, strict=True)
        ]
        if all(side.start < side.stop for side in sides):
            window[_moved(sides, start)] = reference.mask[_moved(sides, [part.start for part in reference.box])]
        return window

    def _box(self, start: Shape) -> Box:
        return _triple(slice(first, first + side) for first, side in zip(start, self.layout.window, strict=True))

    def _cropped(self, padded: np.ndarray) -> np.ndarray:
        sides = zip(self.layout.pad_before, self.layout.shape, strict=True)
        return padded[tuple(slice(before, before + size) for before, size in sides)]


def _triple(values: Iterable[_T]) -> tuple[_T, _T, _T]:
    first, second, third = values
    return first, second, third


def _cut(mask: np.ndarray) -> Component | None:
    """Return a mask cut to its bounding box, so that many of them fit into memory; None if it is empty."""
    box = bounding_box(mask)
    return None if box is None else Component(box, mask[box].copy())


def _moved(sides: Sequence[slice], origin: Sequence[int]) -> Box:
    return _triple(slice(side.start - first, side.stop - first) for side, first in zip(sides, origin, strict=True))


def _clicks_of_trial(window: np.ndarray, shown: np.ndarray, rng: np.random.Generator, first: bool) -> list[Click]:
    """Return the clicks of one trial; one on what was invented, where the window holds nothing of the structure."""
    if window.any():
        return trial_clicks(window, shown, _VOXELS, rng, first)
    return [random_click(shown, _VOXELS, rng, positive=False)] if shown.any() else []


def _window_score(shown: np.ndarray, window: np.ndarray) -> float:
    """Return Dice, or where the window holds nothing of the structure how little was invented."""
    return (dice(shown, window) or 0.0) if window.any() else -float(np.count_nonzero(shown))


def _segmented(case: OpenCase, edits: Sequence[_Edit], progress: Progress) -> Iterator[Result]:
    """Blend the automatic scores, add the edits, and bring each structure back to the input grid."""
    started = time.perf_counter()
    wanted = (*case.targets, *case.missing)
    if not wanted:
        return
    windows = _Windows(case)
    positive = _PositiveScores(case, wanted, windows.layout, edits)
    image = torch.from_numpy(case.session.model_grid[0])[None, None]
    for block in FeaturePass(case.segmenter.backend, image, windows.layout).stream(progress):
        positive.take(block)
    share = (time.perf_counter() - started) / len(wanted)
    for number, target in enumerate(wanted):
        clicks = sum(edit.clicks for edit in edits if edit.number == number)
        yield Result(target, windows.restored(positive.mask(number)), clicks, share)


class _PositiveScores:
    """Where each structure's score is positive, a bit per voxel and structure."""

    def __init__(self, case: OpenCase, wanted: Sequence[Target], layout: WindowLayout, edits: Sequence[_Edit]) -> None:
        self._vectors = case.segmenter.backend.class_matrix([target.known.index for target in wanted])
        self._bits = np.zeros(((len(wanted) + 7) // 8, *layout.shape), dtype=np.uint8)
        self._changes = _changes(layout, edits)

    def take(self, block: Block) -> None:
        """Decide on the planes of one block."""
        planes = [slice(None)] * 3
        planes[block.axis] = slice(block.start, block.stop)
        for number, vector in enumerate(self._vectors):
            scores = score_block(block, vector)
            if number in self._changes:
                voxels, change = self._changes[number]
                inside = (voxels[:, block.axis] >= block.start) & (voxels[:, block.axis] < block.stop)
                places = voxels[inside]
                places[:, block.axis] -= block.start
                np.add.at(scores, tuple(places.T), change[inside])
            plane_bits = self._bits[number // 8][tuple(planes)]
            plane_bits |= (scores > 0).astype(np.uint8) << np.uint8(number % 8)

    def mask(self, number: int) -> np.ndarray:
        """Return a structure's mask on the model grid."""
        return (self._bits[number // 8] >> np.uint8(number % 8) & np.uint8(1)).astype(bool)


def _changes(layout: WindowLayout, edits: Sequence[_Edit]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return for each edited target the voxels [n, 3] of the volume and by how much their blended scores change."""
    if not edits:
        return {}
    total = np.zeros(layout.padded_shape, dtype=np.float32)
    weights = gaussian_weights(layout.window).numpy()
    for start in layout.windows:
        total[tuple(slice(first, first + side) for first, side in zip(start, layout.window, strict=True))] += weights
    found = {}
    for number, group in itertools.groupby(sorted(edits, key=lambda edit: edit.number), key=lambda edit: edit.number):
        members = list(group)
        voxels = np.concatenate([edit.voxels + edit.start for edit in members])
        change = np.concatenate([edit.change for edit in members]) / total[tuple(voxels.T)]
        voxels = voxels - layout.pad_before
        inside = np.all((voxels >= 0) & (voxels < layout.shape), axis=1)
        found[number] = voxels[inside], change[inside]
    return found
